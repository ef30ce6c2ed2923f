"""A ckptd for each test file, and the Python client of it."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))  # server, same_state
import ckptd  # noqa: E402
from server import Server  # noqa: E402

BIN = Path(os.environ["CKPT_BIN"])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with Server(BIN / "ckptd", folder / "store", folder / "ckptd.log") as running:
        yield running
        assert running.stop() == 0


@pytest.fixture
def client(server, monkeypatch):
    monkeypatch.setenv("CKPT_SERVER", server.address)
    return ckptd.connect()
