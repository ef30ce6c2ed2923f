"""From the data model (proto/ckpt/v1/state.proto) back to a Python state."""

from __future__ import annotations

import argparse
import collections
import pathlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ckptd import _kinds, _native
from ckptd._errors import DataLoss, InvalidState

if TYPE_CHECKING:
    import numpy as np
    import torch


class StoredTensor(NamedTuple):
    """A tensor of a checkpoint, as ``_native.Restore.tensors`` describes it."""

    path: str
    dtype: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in elements; empty: row-major
    requires_grad: bool
    device: str  # "": the CPU
    size_bytes: int
    view_of: int | None
    view_offset_bytes: int
    selected: bool


def decode(restore: _native.Restore, map_location: Any = None, allow_pickle: bool = False) -> Any:
    """Reads what was selected and makes the state of it. PyTorch is imported only if it has tensors.

    Raises:
        InvalidState: it holds pickles, and these are not allowed; nothing was read.
        DataLoss: stored bytes are damaged, or the description makes no sense.
        Unavailable: the server cannot be reached.
    """
    try:
        nodes = restore.nodes()
        opaque = next((node for node in nodes if node[0] == _kinds.OPAQUE), None)
        if opaque is not None and not allow_pickle:
            raise InvalidState(
                f"the checkpoint holds a {opaque[5]} as a pickle, which runs code when it is read; "
                "if you trust who saved it: allow_pickle=True",
                "PICKLE_NOT_ALLOWED",
            )
        tensors = [StoredTensor(*fields) for fields in restore.tensors()]
        kinds = {node[6]: node[0] for node in nodes if node[0] in _kinds.TENSORS}
        for number in list(kinds):
            shown = tensors[number].view_of
            if shown is not None:
                kinds.setdefault(shown, kinds[number])
        memory = _Memory(tensors, kinds)
        restore.read_into(memory.addresses)
        restore.pause()  # what follows may take a while, and is the caller's in part
        return _Decoder(tensors, memory, map_location).run(nodes)
    finally:
        restore.pause()


def describe(restore: _native.Restore) -> Any:
    """The state without the bytes of its tensors, which are on the meta device; arrays hold zeros. Reads no payload."""
    tensors = [StoredTensor(*fields) for fields in restore.tensors()]
    return _Describer(tensors).run(restore.nodes())


class _Memory:
    """Fresh memory for the bytes of the tensors that are read: a torch storage, or a numpy array of bytes, each."""

    def __init__(self, tensors: list[StoredTensor], kinds: dict[int, int]) -> None:
        self.storages: dict[int, torch.UntypedStorage] = {}
        self.arrays: dict[int, np.ndarray[Any, Any]] = {}
        self.addresses = [0] * len(tensors)
        for number, kind in kinds.items():
            tensor = tensors[number]
            if tensor.view_of is not None:
                continue
            if kind == _kinds.NUMPY_ARRAY:
                import numpy

                self.arrays[number] = numpy.empty(tensor.size_bytes, numpy.uint8)
                self.addresses[number] = self.arrays[number].ctypes.data if tensor.size_bytes else 0
            else:
                import torch

                self.storages[number] = torch.UntypedStorage(tensor.size_bytes)  # type: ignore[no-untyped-call]
                self.addresses[number] = self.storages[number].data_ptr()


class _Open:
    """A container that lacks members."""

    __slots__ = ("attributes", "attributes_left", "finish", "keys", "left", "members", "names", "type_name")

    def __init__(self, left: int, attributes_left: int, finish: Callable[[_Open, str], Any], type_name: str) -> None:
        self.left = left
        self.attributes_left = attributes_left
        self.finish = finish
        self.type_name = type_name
        self.keys: list[Any] = []
        self.members: list[Any] = []
        self.names: list[str] = []
        self.attributes: list[Any] = []


class _Tree:
    """Makes the tree of a list of nodes."""

    def __init__(self, tensors: list[StoredTensor]) -> None:
        self.tensors = tensors
        self.objects: dict[tuple[int, int], Any] = {}  # kind and number

    def run(self, nodes: list[tuple[int, Any, int, int, Any, str, int]]) -> Any:
        stack: list[_Open] = []
        for kind, key, children, attributes, value, type_name, number in nodes:
            if stack:
                top = stack[-1]
                if top.left:
                    top.left -= 1
                    top.keys.append(key)
                else:
                    top.attributes_left -= 1
                    top.names.append(key)
            finish = _CONTAINERS.get(kind)
            if finish is None:
                done = self.leaf(kind, value, type_name, number)
            else:
                stack.append(_Open(children, attributes, finish, type_name))
                if children + attributes:
                    continue
                top = stack.pop()
                done = top.finish(top, top.type_name)
            while stack:
                top = stack[-1]
                (top.attributes if top.names else top.members).append(done)
                if top.left or top.attributes_left:
                    break
                stack.pop()
                done = top.finish(top, top.type_name)
            else:
                return done
        raise DataLoss("the state tree is incomplete", "MALFORMED_MANIFEST")

    def leaf(self, kind: int, value: Any, type_name: str, number: int) -> Any:
        if kind == _kinds.SCALAR:
            return value
        if kind in _kinds.TENSORS:
            made = self.objects.get((kind, number))
            if made is None:
                make = {_kinds.TENSOR: self.tensor, _kinds.PARAMETER: self.parameter}.get(kind)
                made = make(number) if make else self.array(number, type_name)
                self.objects[kind, number] = made
            return made
        leaf = _LEAVES.get(kind)
        if leaf is None:
            raise DataLoss(
                f"a value of a kind that this version does not know ({kind}); use a newer client", "CLIENT_TOO_OLD"
            )
        return leaf(value, type_name)

    def tensor(self, number: int) -> torch.Tensor:
        raise NotImplementedError

    def parameter(self, number: int) -> torch.nn.Parameter:
        import torch

        return torch.nn.Parameter(self.tensor(number).detach(), requires_grad=self.tensors[number].requires_grad)

    def array(self, number: int, type_name: str) -> np.ndarray[Any, Any]:
        raise NotImplementedError

    def array_shape(self, number: int, type_name: str) -> tuple[int, ...]:
        shape = self.tensors[number].shape
        return shape if type_name in _kinds.NUMPY_DTYPES else shape[:-1]  # the last is an element's bytes


class Opaque(NamedTuple):
    """What ``describe`` has for a pickle, which it does not read."""

    type_name: str


class _Describer(_Tree):
    def leaf(self, kind: int, value: Any, type_name: str, number: int) -> Any:
        return Opaque(type_name) if kind == _kinds.OPAQUE else super().leaf(kind, value, type_name, number)

    def tensor(self, number: int) -> torch.Tensor:
        import torch

        tensor = self.tensors[number]
        strides = tensor.strides or _kinds.row_major(tensor.shape)
        dtype = getattr(torch, _kinds.DTYPE_NAMES[tensor.dtype])
        return torch.empty_strided(tensor.shape, strides, dtype=dtype, device="meta")

    def array(self, number: int, type_name: str) -> np.ndarray[Any, Any]:
        import numpy

        return numpy.broadcast_to(numpy.zeros((), type_name), self.array_shape(number, type_name))


class _Decoder(_Tree):
    def __init__(self, tensors: list[StoredTensor], memory: _Memory, map_location: Any) -> None:
        super().__init__(tensors)
        self.memory = memory
        self.map_location = map_location
        self.moved: dict[int, torch.UntypedStorage] = {}

    def tensor(self, number: int) -> torch.Tensor:
        import torch

        tensor = self.tensors[number]
        dtype = getattr(torch, _kinds.DTYPE_NAMES[tensor.dtype])
        base = number if tensor.view_of is None else tensor.view_of
        storage = self.storage(base, tensor.device)
        out = torch.empty(0, dtype=dtype, device=storage.device)
        offset = tensor.view_offset_bytes // out.element_size()
        out.set_(storage, offset, tensor.shape, tensor.strides or _kinds.row_major(tensor.shape))
        return out.requires_grad_() if tensor.requires_grad else out

    def storage(self, number: int, device: str) -> torch.UntypedStorage:
        """The tensor's memory where map_location, or else the checkpoint, wants it."""
        import torch

        if number not in self.moved:
            storage, wanted = self.memory.storages[number], self.map_location
            location = device or "cpu"
            if callable(wanted):
                storage = wanted(storage, location) or storage
            else:
                target = wanted.get(location, location) if isinstance(wanted, Mapping) else wanted or location
                if torch.device(target).type != "cpu":
                    storage = (
                        torch.empty(0, dtype=torch.uint8, device=storage.device)
                        .set_(storage)
                        .to(target)
                        .untyped_storage()
                    )
            self.moved[number] = storage
        return self.moved[number]

    def array(self, number: int, type_name: str) -> np.ndarray[Any, Any]:
        import numpy

        tensor = self.tensors[number]
        dtype = numpy.dtype(type_name)
        raw = self.memory.arrays[number if tensor.view_of is None else tensor.view_of]
        out = numpy.ndarray(self.array_shape(number, type_name), dtype, raw, order="F" if tensor.strides else "C")
        return out.copy(order="A") if out.size == 0 or not out.flags.aligned else out


# ---- Containers, from their members


def _with_attributes(out: Any, made: _Open) -> Any:
    if made.names:
        vars(out).update(zip(made.names, made.attributes, strict=True))
    return out


def _dict_of(kind: Callable[[], Any]) -> Callable[[_Open, str], Any]:
    def finish(made: _Open, type_name: str) -> Any:
        out = kind()
        for key, member in zip(made.keys, made.members, strict=True):
            out[key] = member
        return _with_attributes(out, made)

    return finish


def _default_dict(made: _Open, type_name: str) -> Any:
    if type_name and type_name not in _kinds.FACTORIES:
        raise DataLoss(f"a defaultdict of {type_name}, which is none that is ever saved", "MALFORMED_MANIFEST")
    out: Any = collections.defaultdict(_kinds.FACTORIES[type_name] if type_name else None)
    out.update(zip(made.keys, made.members, strict=True))
    return out


def _size(made: _Open, type_name: str) -> Any:
    import torch

    return torch.Size(made.members)


_CONTAINERS: dict[int, Callable[[_Open, str], Any]] = {
    _kinds.DICT: _dict_of(dict),
    _kinds.ORDERED_DICT: _dict_of(collections.OrderedDict),
    _kinds.DEFAULT_DICT: _default_dict,
    _kinds.COUNTER: _dict_of(collections.Counter),
    _kinds.LIST: lambda made, _: made.members,
    _kinds.TUPLE: lambda made, _: tuple(made.members),
    _kinds.SET: lambda made, _: set(made.members),
    _kinds.FROZENSET: lambda made, _: frozenset(made.members),
    _kinds.SIZE: _size,
    _kinds.NAMESPACE: lambda made, _: _with_attributes(argparse.Namespace(), made),
}


# ---- Leaves, from value and type name


def _path(value: str, type_name: str) -> pathlib.PurePath:
    kind = getattr(pathlib, type_name)
    try:
        return kind(value)  # type: ignore[no-any-return]
    except NotImplementedError:  # a WindowsPath elsewhere
        return pathlib.PureWindowsPath(value) if "Windows" in type_name else pathlib.PurePosixPath(value)


def _torch_name(value: Any, type_name: str) -> Any:
    import torch

    return getattr(torch, type_name)


def _device(value: Any, type_name: str) -> torch.device:
    import torch

    return torch.device(type_name)


def _torch_version(value: str, type_name: str) -> Any:
    from torch.torch_version import TorchVersion

    return TorchVersion(value)


def _numpy_dtype(value: Any, type_name: str) -> np.dtype[Any]:
    import numpy

    return numpy.dtype(type_name)


def _numpy_scalar(value: bytes, type_name: str) -> Any:
    import numpy

    dtype = numpy.dtype(type_name)
    return numpy.frombuffer(value, dtype)[0] if value else numpy.zeros((), dtype)[()]


def _unpickle(value: bytes, type_name: str) -> Any:
    import pickle

    return pickle.loads(value)


_LEAVES: dict[int, Callable[[Any, str], Any]] = {
    _kinds.OPAQUE: _unpickle,
    _kinds.BYTEARRAY: lambda value, _: bytearray(value),
    _kinds.DTYPE: _torch_name,
    _kinds.DEVICE: _device,
    _kinds.LAYOUT: _torch_name,
    _kinds.MEMORY_FORMAT: _torch_name,
    _kinds.NUMPY_DTYPE: _numpy_dtype,
    _kinds.NUMPY_SCALAR: _numpy_scalar,
    _kinds.PATH: _path,
    _kinds.TORCH_VERSION: _torch_version,
}
