"""Compares two states: types, order, values to the bit, strides, and which tensors share memory."""

import argparse
import struct

import numpy as np
import torch


def assert_same(a, b):
    _Comparison().compare(a, b, "state")


def _bytes(tensor):
    if tensor.numel() == 0:
        return torch.empty(0)
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


class _Comparison:
    def __init__(self):
        self.storages = {}  # of a → of b
        self.objects = {}

    def compare(self, a, b, path):
        assert type(a) is type(b), (path, type(a), type(b))
        if isinstance(a, torch.Tensor):
            self.tensor(a, b, path)
        elif isinstance(a, dict):
            assert list(a) == list(b) or all(x is y or x == y or x != x for x, y in zip(a, b)), path
            assert len(a) == len(b), path
            for (ka, va), (kb, vb) in zip(a.items(), b.items()):
                self.compare(ka, kb, f"{path} key")
                self.compare(va, vb, f"{path}.{ka}")
            assert getattr(a, "default_factory", None) is getattr(b, "default_factory", None), path
            self.compare(getattr(a, "__dict__", None), getattr(b, "__dict__", None), f"{path}.__dict__")
        elif isinstance(a, (list, tuple)):
            assert len(a) == len(b), path
            for i, (va, vb) in enumerate(zip(a, b)):
                self.compare(va, vb, f"{path}.{i}")
        elif isinstance(a, (float, complex)) and not isinstance(a, np.generic):
            parts = (lambda x: (x.real, x.imag)) if isinstance(a, complex) else (lambda x: (x,))
            assert [struct.pack(">d", x) for x in parts(a)] == [struct.pack(">d", x) for x in parts(b)], path
        elif isinstance(a, (np.ndarray, np.generic)):
            assert a.dtype == b.dtype and a.dtype.str == b.dtype.str, path
            assert a.shape == b.shape and a.tobytes() == b.tobytes(), path
            if isinstance(a, np.ndarray):
                for flag in ("C_CONTIGUOUS", "F_CONTIGUOUS"):
                    assert a.flags[flag] == b.flags[flag], (path, flag)
                assert self.objects.setdefault(id(a), id(b)) == id(b), path
        elif isinstance(a, argparse.Namespace):
            self.compare(vars(a), vars(b), path)
        else:
            assert a == b, (path, a, b)

    def tensor(self, a, b, path):
        for name in ("dtype", "shape", "requires_grad", "device", "layout"):
            assert getattr(a, name) == getattr(b, name), (path, name)
        assert a.stride() == b.stride(), (path, a.stride(), b.stride())
        assert torch.equal(_bytes(a), _bytes(b)), path
        assert self.objects.setdefault(id(a), id(b)) == id(b), (path, "is another object")
        if a.numel():
            key, other = a.untyped_storage().data_ptr(), b.untyped_storage().data_ptr()
            assert self.storages.setdefault(key, other) == other, (path, "does not share its memory")
            first = self.objects.setdefault(("offset", key), b.data_ptr() - a.data_ptr())
            assert first == b.data_ptr() - a.data_ptr(), (path, "shows other bytes of the shared memory")
            assert len(set(self.storages.values())) == len(self.storages), (path, "shares memory that it did not")
