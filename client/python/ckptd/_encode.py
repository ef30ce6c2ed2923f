"""From a Python state to the data model (proto/ckpt/v1/state.proto)."""

from __future__ import annotations

import argparse
import collections
import functools
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptd import _kinds, _native
from ckptd._errors import InvalidState

if TYPE_CHECKING:
    import numpy as np
    import torch

_ADVICE = "a state cannot hold this; take it out, or turn it into plain values, tensors or arrays"
_ADVICE_OR_PICKLE = f"{_ADVICE}; or save with opaque='pickle', and restore with allow_pickle=True what you trust"
_DTENSOR_ADVICE = "save it with torch.distributed.checkpoint and ckptd.dcp.StorageWriter, each rank its shards"
_MAX_PICKLE = 3 << 20  # bytes: what a node may have
_SCALARS = frozenset((type(None), bool, int, float, complex, str, bytes))
_PATHS = [pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath]
_PATHS += [pathlib.Path, pathlib.PurePath]
_BUFFERS = frozenset(("running_mean", "running_var", "num_batches_tracked"))
_FACTORY_NAMES: dict[type, str] = {factory: name for name, factory in _kinds.FACTORIES.items()}
_PLAIN, _KEYED, _ATTRIBUTE = range(3)


class Encoded(NamedTuple):
    """A state for ``_native.Client.save``, and what keeps its tensors' memory alive until that has returned."""

    builder: _native.Builder
    keep: list[Any]


def encode(state: Any, place: Callable[[int, int], int] | None = None, opaque: str | None = None) -> Encoded:
    """Describes ``state``. Tensors on the CPU stay where they are; those of other devices are copied to the CPU.

    Args:
        state: the state.
        place: takes address and size of memory that tensors or arrays show, and returns the address that a copy of it
            will have; None: they are saved from where they are.
        opaque: "pickle" keeps values of other types as pickles; None refuses them.

    Raises:
        InvalidState: the state holds what cannot be saved; the message has its path and type.
    """
    if opaque not in (None, "pickle"):
        raise InvalidState(f"opaque is 'pickle' or None, not {opaque!r}", "BAD_ARGUMENT")
    return _Encoder(place, opaque is not None).run(state)


class _Open(NamedTuple):
    """A container whose members are being encoded."""

    members: Iterator[tuple[int, Any, Any]]  # (what it is, key or name, value)
    identity: int
    name: str  # in its own container
    role: int  # of tensors below


class _Encoder:
    def __init__(self, place: Callable[[int, int], int] | None, pickles: bool) -> None:
        self.builder = _native.Builder()
        self.place = place
        self.pickles = pickles
        self.may_pickle = True  # whoever saves can ask for that
        self.keep: list[Any] = []
        self.stack: list[_Open] = []
        self.identities: set[int] = set()
        self.tensors: dict[int, int] = {}  # id of an object: its number
        self.storages: dict[tuple[str, int], tuple[int, int]] = {}  # device and address: number, bytes
        self.in_attributes = False

    def run(self, state: Any) -> Encoded:
        self.enter(state, "", _kinds.ROLE_OTHER)
        while self.stack:
            top = self.stack[-1]
            member = next(top.members, None)
            if member is None:
                self.stack.pop()
                self.identities.discard(top.identity)
                self.builder.end()
                continue
            what, key, value = member
            if what == _PLAIN:
                name = str(key)
            elif what == _KEYED:
                name = self.key(key)
            elif key is None:  # the attributes begin
                self.builder.attributes()
                continue
            else:
                name = f"@{key}"
                self.builder.key(key)
            self.enter(value, name, top.role)
        return Encoded(self.builder, self.keep)

    def path(self, name: str) -> str:
        return ".".join([frame.name for frame in self.stack[1:]] + ([name] if self.stack else [])) or "the whole state"

    def refuse(self, name: str, what: str, advice: str = _ADVICE) -> InvalidState:
        return InvalidState(f"{self.path(name)}: {what}; {advice}", "UNSUPPORTED_VALUE")

    def key(self, key: Any) -> str:
        if type(key) not in _SCALARS:
            raise self.refuse(
                f"[{_shown(key)}]",
                f"a key of type {_type_name(key)}",
                "keys are None, bool, int, float, complex, str or bytes",
            )
        self.builder.key(key)
        return key if type(key) is str else str(key)

    def enter(self, value: Any, name: str, role: int) -> None:
        kind = type(value)
        if kind in _SCALARS:
            self.builder.leaf(_kinds.SCALAR, value)
            return
        container = _CONTAINERS.get(kind)
        if container is not None:
            if id(value) in self.identities:
                raise self.refuse(name, "a container that contains itself")
            type_name, role = container.describe(self, value, name, role)
            self.builder.open(container.kind, type_name)
            self.stack.append(_Open(container.members(self, value), id(value), name, role))
            self.identities.add(id(value))
            return
        leaf = _LEAVES.get(kind)
        if leaf is None:
            _learn_types()
            leaf = _LEAVES.get(kind) or _leaf_of(value)
        if leaf is None:
            self.other(value, name)
        else:
            leaf(self, value, name, role)

    def other(self, value: Any, name: str) -> None:
        """A value of a type that the data model does not have."""
        if self.pickles and not _is_tensor(value):
            import pickle

            try:
                pickled = pickle.dumps(value, protocol=4)
            except Exception as error:
                raise self.refuse(
                    name, f"a value of type {_type_name(value)} that cannot be pickled ({error})"
                ) from error
            if len(pickled) > _MAX_PICKLE:
                raise self.refuse(name, f"a value of type {_type_name(value)} whose pickle has {len(pickled)} bytes")
            self.builder.leaf(_kinds.OPAQUE, pickled, _type_name(value))
            return
        advice = _ADVICE if _is_tensor(value) or not self.may_pickle else _ADVICE_OR_PICKLE
        if is_dtensor(value):
            advice = _DTENSOR_ADVICE
        if isinstance(value, (dict, list, tuple, set, str, int, float)):
            base = next(t for t in (dict, list, tuple, set, str, bool, int, float) if isinstance(value, t))
            advice = f"save {base.__name__}(…) of it, if that is what it means"
        raise self.refuse(name, f"a value of type {_type_name(value)}", advice)

    # ---- Leaves

    def bytearray(self, value: bytearray, name: str, role: int) -> None:
        self.builder.leaf(_kinds.BYTEARRAY, bytes(value))

    def path_value(self, value: pathlib.PurePath, name: str, role: int) -> None:
        self.builder.leaf(_kinds.PATH, str(value), type(value).__name__)

    def numpy_dtype(self, value: np.dtype[Any], name: str, role: int) -> None:
        self.check_numpy(value, name)
        self.builder.leaf(_kinds.NUMPY_DTYPE, None, value.str)

    def numpy_scalar(self, value: np.generic, name: str, role: int) -> None:
        self.check_numpy(value.dtype, name)
        self.builder.leaf(_kinds.NUMPY_SCALAR, value.tobytes(), value.dtype.str)

    def check_numpy(self, dtype: np.dtype[Any], name: str) -> None:
        if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
            raise self.refuse(name, f"numpy's {dtype}", "use arrays of numbers, texts or times")

    def array(self, value: np.ndarray[Any, Any], name: str, role: int) -> None:
        number = self.tensors.get(id(value))
        if number is None:
            import numpy as np

            self.check_numpy(value.dtype, name)
            whole = value if value.flags.c_contiguous or value.flags.f_contiguous else np.ascontiguousarray(value)
            dtype = _kinds.NUMPY_DTYPES.get(value.dtype.str)  # None: kept as bytes
            item = 1 if dtype else value.itemsize
            strides = () if whole.flags.c_contiguous else tuple(s // value.itemsize * item for s in whole.strides)
            shape = whole.shape
            if not dtype:  # an element's bytes are one dimension more
                shape += (item,)
                strides += (1,) if strides else ()
            storage = self.add_storage(whole.ctypes.data, whole.nbytes, whole is value)
            number = self.builder.add_view(
                storage, 0, _kinds.DTYPES[dtype or "uint8"], shape, strides, False, "", _kinds.ROLE_OTHER
            )
            self.keep += (value, whole)
            self.tensors[id(value)] = number
        self.builder.tensor(_kinds.NUMPY_ARRAY, number, value.dtype.str)

    def size(self, value: torch.Size, name: str, role: int) -> None:
        self.builder.open(_kinds.SIZE)
        for extent in value:
            self.builder.leaf(_kinds.SCALAR, int(extent))
        self.builder.end()

    def named(self, value: Any, name: str, role: int) -> None:
        """torch's dtype, layout and memory_format, each of which prints as "torch.NAME"."""
        text = str(value).removeprefix("torch.")
        kind = {"dtype": _kinds.DTYPE, "layout": _kinds.LAYOUT, "memory_format": _kinds.MEMORY_FORMAT}[
            type(value).__name__
        ]
        if kind == _kinds.DTYPE and text not in _kinds.DTYPES:
            raise self.refuse(name, str(value))
        self.builder.leaf(kind, None, text)

    def device(self, value: torch.device, name: str, role: int) -> None:
        self.builder.leaf(_kinds.DEVICE, None, str(value))

    def torch_version(self, value: Any, name: str, role: int) -> None:
        self.builder.leaf(_kinds.TORCH_VERSION, str(value))

    def tensor(self, value: torch.Tensor, name: str, role: int) -> None:
        import torch

        parameter = isinstance(value, torch.nn.Parameter)
        number = self.tensors.get(id(value))
        if number is None:
            number = self.add_tensor(value, name, role, parameter)
            self.keep.append(value)
            self.tensors[id(value)] = number
        self.builder.tensor(_kinds.PARAMETER if parameter else _kinds.TENSOR, number)

    def add_tensor(self, value: torch.Tensor, name: str, role: int, parameter: bool) -> int:
        refusal = refusal_of(value)
        if refusal is not None:
            raise self.refuse(name, *refusal)
        device = "" if value.is_cpu else str(value.device)
        dtype = self.dtype(value.dtype, name)
        shape, strides = tuple(value.shape), value.stride()
        requires_grad = value.requires_grad
        if requires_grad:
            value = value.detach()
        if value.is_conj() or value.is_neg():
            value = value.resolve_conj().resolve_neg()
            strides = value.stride()
        storage, size = self.storage(value, device)
        if role == _kinds.ROLE_OTHER and (parameter or requires_grad):
            role = _kinds.ROLE_PARAMETER
        elif role == _kinds.ROLE_PARAMETER and name.rpartition(".")[2] in _BUFFERS:
            role = _kinds.ROLE_BUFFER
        offset = int(value.storage_offset()) * value.element_size()
        if value.numel() and size == 0:
            raise self.refuse(name, "a tensor whose memory was given back")
        return self.builder.add_view(
            storage,
            offset,
            dtype,
            shape,
            () if strides == _kinds.row_major(shape) else strides,
            requires_grad,
            device,
            role,
        )

    def dtype(self, dtype: torch.dtype, name: str) -> int:
        number = _dtype_number(dtype)
        if number is None:
            raise self.refuse(name, f"a tensor of {dtype}")
        return number

    def add_storage(self, address: int, size: int, is_the_callers: bool) -> int:
        if self.place is not None and is_the_callers and size:
            address = self.place(address, size)
        return self.builder.add_storage(address, size)

    def storage(self, value: torch.Tensor, device: str) -> tuple[int, int]:
        """The number and the bytes of the memory that the tensor shows."""
        memory = value.untyped_storage()
        address, size = memory.data_ptr(), memory.nbytes()
        found = self.storages.get((device, address)) if address else None
        if found is None or found[1] < size:
            on_cpu = memory.cpu() if device else memory  # type: ignore[no-untyped-call]
            self.keep += (memory, on_cpu)  # also so that nothing else gets the address
            found = (self.add_storage(on_cpu.data_ptr(), size, not device), size)
            self.storages[device, address] = found
        return found


def refusal_of(value: torch.Tensor) -> tuple[str, str] | None:
    """What about this tensor no state can have, and what to do; None: it can."""
    import torch

    if value.layout is not torch.strided:
        return f"a tensor with layout {value.layout}", "save .to_dense(), or its parts"
    if value.is_quantized:
        return "a quantized tensor", "save .dequantize(), or .int_repr() with scale and zero point"
    if value.is_meta:
        return "a tensor on the meta device, which has no bytes", "materialize it first"
    if vars(value):
        names = ", ".join(vars(value))
        return f"a tensor with attributes of its own ({names})", "save tensor.detach(), and the attributes beside it"
    return None


@functools.cache
def _dtype_number(dtype: torch.dtype) -> int | None:
    return _kinds.DTYPES.get(str(dtype).removeprefix("torch."))


def is_dtensor(value: Any) -> bool:
    """Whether it is a torch.distributed.tensor.DTensor: of one process's part of it, ckptd.dcp knows."""
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(value, tensors.DTensor)


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and hasattr(torch, "Tensor") and isinstance(value, torch.Tensor)


def _type_name(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


# ---- Containers


class _Container(NamedTuple):
    kind: int
    describe: Callable[[_Encoder, Any, str, int], tuple[str, int]]  # its type name, and the role of tensors below
    members: Callable[[_Encoder, Any], Iterator[tuple[int, Any, Any]]]


def _role_below(value: Any, role: int) -> int:
    if role == _kinds.ROLE_OPTIMIZER or not isinstance(value, dict):
        return role
    if "state" in value and "param_groups" in value:
        return _kinds.ROLE_OPTIMIZER
    return _kinds.ROLE_PARAMETER if "_metadata" in getattr(value, "__dict__", ()) else role


def _describe(encoder: _Encoder, value: Any, name: str, role: int) -> tuple[str, int]:
    return "", _role_below(value, role)


def _describe_default_dict(
    encoder: _Encoder, value: collections.defaultdict[Any, Any], name: str, role: int
) -> tuple[str, int]:
    factory = value.default_factory
    if factory is None:
        return "", _role_below(value, role)
    known = _FACTORY_NAMES.get(factory) if isinstance(factory, type) else None
    if known is None:
        raise encoder.refuse(name, f"a defaultdict whose factory is {_shown(factory)}", "save dict(…) of it")
    return known, _role_below(value, role)


def _mapping(encoder: _Encoder, value: dict[Any, Any]) -> Iterator[tuple[int, Any, Any]]:
    for key, member in value.items():
        yield _KEYED, key, member
    yield from _attributes(value)


def _sequence(encoder: _Encoder, value: Any) -> Iterator[tuple[int, Any, Any]]:
    for index, member in enumerate(value):
        yield _PLAIN, index, member


def _set(encoder: _Encoder, value: Any) -> Iterator[tuple[int, Any, Any]]:
    for index, member in enumerate(value):
        if type(member) not in _SCALARS:
            raise encoder.refuse(
                str(index), f"a member of type {_type_name(member)} in a set", "sets hold plain values"
            )
        yield _PLAIN, index, member


def _attributes(value: Any) -> Iterator[tuple[int, Any, Any]]:
    attributes = getattr(value, "__dict__", None)
    if attributes:
        yield _ATTRIBUTE, None, None
        for name, member in attributes.items():
            yield _ATTRIBUTE, name, member


_CONTAINERS: dict[type, _Container] = {
    dict: _Container(_kinds.DICT, _describe, _mapping),
    collections.OrderedDict: _Container(_kinds.ORDERED_DICT, _describe, _mapping),
    collections.defaultdict: _Container(_kinds.DEFAULT_DICT, _describe_default_dict, _mapping),
    collections.Counter: _Container(_kinds.COUNTER, _describe, _mapping),
    list: _Container(_kinds.LIST, _describe, _sequence),
    tuple: _Container(_kinds.TUPLE, _describe, _sequence),
    set: _Container(_kinds.SET, _describe, _set),
    frozenset: _Container(_kinds.FROZENSET, _describe, _set),
    argparse.Namespace: _Container(_kinds.NAMESPACE, _describe, lambda encoder, value: _attributes(value)),
}


# ---- Leaves, by type. Those of numpy and PyTorch are added once somebody has imported these.

_Leaf = Callable[[_Encoder, Any, str, int], None]
_LEAVES: dict[type, _Leaf] = {bytearray: _Encoder.bytearray, **dict.fromkeys(_PATHS, _Encoder.path_value)}


def _learn_types() -> None:
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        _LEAVES[numpy.ndarray] = _Encoder.array
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "nn"):
        _LEAVES[torch.Tensor] = _LEAVES[torch.nn.Parameter] = _Encoder.tensor
        _LEAVES[torch.Size] = _Encoder.size
        _LEAVES[torch.device] = _Encoder.device
        _LEAVES.update(dict.fromkeys((torch.dtype, torch.layout, torch.memory_format), _Encoder.named))
        _LEAVES[torch.torch_version.TorchVersion] = _Encoder.torch_version


def _leaf_of(value: Any) -> _Leaf | None:
    """numpy's scalars and dtypes are of many types."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        return None
    if isinstance(value, numpy.generic):
        return _Encoder.numpy_scalar if type(value).__module__ == "numpy" else None
    return _Encoder.numpy_dtype if isinstance(value, numpy.dtype) else None
