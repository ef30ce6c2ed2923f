"""Seeds of the fuzz targets that read files: what torch and numpy would put into a pickle is made by stand-ins of the
same names, so that Python's own library does.
"""

import collections
import io
import json
import pathlib
import pickle
import struct
import sys
import types
import zipfile


def module(name):
    if name not in sys.modules:
        sys.modules[name] = types.ModuleType(name)
    return sys.modules[name]


def stand_in(module_name, name):
    def call(*_):
        raise AssertionError("is only named")

    call.__module__, call.__name__, call.__qualname__ = module_name, name, name
    setattr(module(module_name), name, call)
    return call


class Reduced:
    """Is pickled as a call of `function` with these arguments, and then this state."""

    def __init__(self, function, arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


class Storage:
    def __init__(self, kind, key, elements):
        self.id = ("storage", kind, key, "cpu", elements)


class Pickler(pickle._Pickler):  # Python's own one takes the stand-ins of any module
    def persistent_id(self, value):
        return value.id if isinstance(value, Storage) else None


def dump(value, protocol=2):
    out = io.BytesIO()
    Pickler(out, protocol).dump(value)
    return out.getvalue()


REBUILD = stand_in("torch._utils", "_rebuild_tensor_v2")
REBUILD_V3 = stand_in("torch._utils", "_rebuild_tensor_v3")
REBUILD_PARAMETER = stand_in("torch._utils", "_rebuild_parameter")
FLOATS = stand_in("torch", "FloatStorage")
UNTYPED = stand_in("torch.storage", "UntypedStorage")
UINT16 = stand_in("torch", "uint16")
SIZE = stand_in("torch", "Size")
DEVICE = stand_in("torch", "device")
LAYOUT = stand_in("torch.serialization", "_get_layout")
RECONSTRUCT = stand_in("numpy._core.multiarray", "_reconstruct")
SCALAR_OF = stand_in("numpy._core.multiarray", "scalar")
NDARRAY = stand_in("numpy", "ndarray")
DTYPE = stand_in("numpy", "dtype")


def torch_tensor(storage, size, stride, offset=0, dtype=None):
    arguments = (storage, offset, size, stride, False, collections.OrderedDict())
    return Reduced(REBUILD, arguments) if dtype is None else Reduced(REBUILD_V3, (*arguments, dtype))


def dtype(name, order="<", more=()):
    return Reduced(DTYPE, (name, False, True), (3, order, None, None, None, -1, -1, 0, *more))


def array(shape, of, data, fortran=False):
    return Reduced(RECONSTRUCT, (NDARRAY, (0,), b"b"), (1, shape, of, fortran, data))


class Ordered(collections.OrderedDict):
    def __reduce__(self):
        return collections.OrderedDict, (), {"_metadata": {"": {"version": 1}}}, None, iter(self.items())


def states():
    floats = Storage(FLOATS, "0", 16)
    weight = torch_tensor(floats, (2, 3), (3, 1))
    yield {"model": Ordered(w=weight, tied=weight), "epoch": 3}
    yield {"a": torch_tensor(floats, (4,), (1,)), "b": torch_tensor(floats, (2, 2), (1, 4), 4),
           "c": torch_tensor(Storage(UNTYPED, "1", 16), (8,), (1,), 0, UINT16),
           "p": Reduced(REBUILD_PARAMETER, (torch_tensor(floats, (3, 4), (0, 1)), True, collections.OrderedDict()))}
    yield {"state": {0: {"step": torch_tensor(Storage(FLOATS, "2", 1), (), ())}}, "param_groups": [{"params": [0]}]}
    yield [None, True, 1, -300, 2**40, 2**70, -(2**90), 0.5, float("nan"), 1 + 2j, "text", "é" * 200, b"\xff\x00",
           bytearray(b"x" * 300), (), (1,), (1, 2, 3, 4), {1, 2}, frozenset("a")]
    yield {"d": collections.defaultdict(int, a=1), "c": collections.Counter("aab"), "p": pathlib.PurePosixPath("a/b")}
    yield [Reduced(SIZE, ((1, 2),)), Reduced(DEVICE, ("cuda", 1)), Reduced(LAYOUT, ("torch.strided",)), UINT16]
    yield [array((2, 2), dtype("f4"), b"0123456789abcdef", True), array((3,), dtype("S2", "|"), b"aabbcc"),
           Reduced(SCALAR_OF, (dtype("i8", "<"), b"12345678")),
           array((1,), dtype("M8", "<", [(None, (b"ns", 25, 1, 1))]), b"12345678")]
    yield {"deep": [[[[{"a": ({},)}]]]]}


def pickles():
    for state in states():
        for protocol in (2, 3, 4, 5):
            yield dump(state, protocol)


STORAGES = {"data/0": bytes(range(64)), "data/1": bytes(16), "data/2": bytes(4), "data/3": b""}


def pth_files():
    for state in states():
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
            for name, content in {"data.pkl": dump(state), "byteorder": b"little", **STORAGES, "version": b"3\n"}.items():
                file.writestr(zipfile.ZipInfo(f"archive/{name}"), content)
        yield out.getvalue()
    yield b"PK\5\6" + bytes(18)


def safetensors():
    def file(header, size):
        out = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        return struct.pack("<Q", len(out)) + out + bytes(size)

    yield file({}, 0)
    yield file({"__metadata__": {"format": "pt", "é": ""}, "w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}, 16)
    yield file({"b.weight": {"dtype": "BF16", "shape": [3], "data_offsets": [8, 14]},
                "a": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]},
                "none": {"dtype": "U8", "shape": [0, 4], "data_offsets": [14, 14]}}, 14)
