"""Checkpoint files as tests make and compare them: .safetensors, written and read by its specification."""

import hashlib
import json
import os
import struct
from pathlib import Path


def _header(file, sizes):
    """Writes the header for one-dimensional uint8 tensors of these sizes."""
    header, offset = {}, 0
    for name, size in sizes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)


def write(path, tensors):
    """Writes {name: bytes} as one-dimensional uint8 tensors."""
    with open(path, "wb") as file:
        _header(file, {name: len(data) for name, data in tensors.items()})
        for data in tensors.values():
            file.write(data)


def write_random(path, count, size_bytes):
    """Writes so many tensors of random bytes, without holding more than one in memory."""
    with open(path, "wb") as file:
        _header(file, {f"model.{i}": size_bytes for i in range(count)})
        for _ in range(count):
            file.write(os.urandom(size_bytes))


def digests(path):
    """{name: (dtype, shape, SHA-256 of its bytes)} of a file."""
    data = Path(path).read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + size])
    payload = memoryview(data)[8 + size:]
    return {name: (entry["dtype"], tuple(entry["shape"]),
                   hashlib.sha256(payload[slice(*entry["data_offsets"])]).hexdigest())
            for name, entry in header.items() if name != "__metadata__"}
