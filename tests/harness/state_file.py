"""Checkpoint files as tests make and compare them: .safetensors, written and read by its specification."""

import hashlib
import json
import struct
from pathlib import Path


def write(path, tensors):
    """Writes {name: bytes} as one-dimensional uint8 tensors."""
    header, offset = {}, 0
    for name, data in tensors.items():
        header[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for data in tensors.values():
            file.write(data)


def digests(path):
    """{name: (dtype, shape, SHA-256 of its bytes)} of a file."""
    data = Path(path).read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + size])
    payload = memoryview(data)[8 + size:]
    return {name: (entry["dtype"], tuple(entry["shape"]),
                   hashlib.sha256(payload[slice(*entry["data_offsets"])]).hexdigest())
            for name, entry in header.items() if name != "__metadata__"}
