"""Numbers of the data model: proto/ckpt/v1/state.proto."""

from __future__ import annotations

import functools

# NodeKind
SCALAR = 1
DICT = 2
ORDERED_DICT = 3
DEFAULT_DICT = 4
COUNTER = 5
LIST = 6
TUPLE = 7
SET = 8
FROZENSET = 9
BYTEARRAY = 10
SIZE = 11
DTYPE = 12
DEVICE = 13
LAYOUT = 14
MEMORY_FORMAT = 15
NUMPY_DTYPE = 16
NUMPY_SCALAR = 17
NUMPY_ARRAY = 18
TENSOR = 19
PARAMETER = 20
PATH = 21
TORCH_VERSION = 22
NAMESPACE = 23
OPAQUE = 24

MAPPINGS = frozenset((DICT, ORDERED_DICT, DEFAULT_DICT, COUNTER))
TENSORS = frozenset((NUMPY_ARRAY, TENSOR, PARAMETER))

# Role
ROLE_PARAMETER = 1
ROLE_BUFFER = 2
ROLE_OPTIMIZER = 3
ROLE_OTHER = 4

# DType, by torch's name.
UINT8 = 2
DTYPES = {
    "bool": 1,
    "uint8": UINT8,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "uint32": 6,
    "int32": 7,
    "uint64": 8,
    "int64": 9,
    "float16": 10,
    "bfloat16": 11,
    "float32": 12,
    "float64": 13,
    "complex32": 14,
    "complex64": 15,
    "complex128": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
    "float8_e8m0fnu": 21,
}
DTYPE_NAMES = {number: name for name, number in DTYPES.items()}

# The tensor types of numpy's, by dtype.str. Arrays of other types are kept as bytes.
NUMPY_DTYPES = {
    "|b1": "bool",
    "|u1": "uint8",
    "|i1": "int8",
    "<u2": "uint16",
    "<i2": "int16",
    "<u4": "uint32",
    "<i4": "int32",
    "<u8": "uint64",
    "<i8": "int64",
    "<f2": "float16",
    "<f4": "float32",
    "<f8": "float64",
    "<c8": "complex64",
    "<c16": "complex128",
}

# The factories that a defaultdict may have, by the name that is stored; "" is None.
FACTORIES = {t.__name__: t for t in (int, float, bool, complex, str, bytes, list, tuple, dict, set, frozenset)}


@functools.lru_cache(maxsize=4096)
def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of a tensor that is contiguous, as torch counts them."""
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= max(extent, 1)
    return tuple(reversed(strides))
