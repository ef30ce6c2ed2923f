"""The service's messages and calls in Python, made from proto/ when this is imported."""

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

from programs import ROOT

_made = tempfile.TemporaryDirectory(prefix="ckpt-bench-proto-")
_protos = [str(path) for path in (ROOT / "proto/ckpt/v1").glob("*.proto")]
_include = Path(protoc.__file__).parent / "_proto"
if protoc.main(
    [
        "protoc",
        f"-I{ROOT / 'proto'}",
        f"-I{_include}",
        f"--python_out={_made.name}",
        f"--grpc_python_out={_made.name}",
        *_protos,
    ]
):
    sys.exit("bench: protoc failed")
sys.path.insert(0, _made.name)
from ckpt.v1 import service_pb2 as service  # noqa: E402, F401
from ckpt.v1 import service_pb2_grpc as calls  # noqa: E402, F401
from ckpt.v1 import state_pb2 as state  # noqa: E402, F401
