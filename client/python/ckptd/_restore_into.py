"""Restoring into tensors and arrays that are there already."""

from __future__ import annotations

import argparse
import ctypes
import itertools
import math
import mmap
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from ckptd import _kinds, _native
from ckptd._decode import StoredTensor
from ckptd._encode import is_dtensor
from ckptd._errors import Error, InvalidState

if TYPE_CHECKING:
    import numpy as np
    import torch

# A tensor that cannot be read to where it is wanted is read aside and copied, so many bytes at a time. Larger ones come
# in parts that end where chunks do, if they can.
ASIDE_BYTES = 128 << 20
_CHUNK_BYTES = 1 << 20  # the largest; smaller ones mostly divide it
_ALIGNMENT = 64

Slice = tuple[int, tuple[int, ...], tuple[int, ...], int, tuple[int, ...]]  # see _native.Restore.read_slices
Path = tuple[Any, ...]  # the keys, indices and "@name"s from the root


class _Leaf(NamedTuple):
    """A tensor that is to be written, and what is stored for it."""

    path: Path
    live: Any  # a torch.Tensor or a numpy.ndarray
    number: int
    stored: StoredTensor
    type_name: str
    memory: _Memory


def restore_into(restore: _native.Restore, state: Any, components: list[str]) -> None:
    """Writes what is stored into the tensors and arrays of ``state``; its other leaves stay as they are.

    Raises:
        InvalidState: shapes, dtypes or the tensors that there are differ: all of that is listed, nothing was written.
        Error: the restore failed in the middle; the message says that the state is torn.
    """
    try:
        tensors = [StoredTensor(*fields) for fields in restore.tensors()]
        leaves = _match(restore, tensors, state, components)
        plan = _Plan(tensors)
        for leaf in leaves:
            plan.add(leaf)
        plan.run(restore)
    finally:
        restore.pause()


def _match(restore: _native.Restore, tensors: list[StoredTensor], state: Any, components: list[str]) -> list[_Leaf]:
    stored = {path: (number, name) for path, number, name in _stored_tensors(restore)}
    live = dict(_live_tensors(state, components))
    differences = [f"{_text(path)}: is a tensor in the state only" for path in live if path not in stored]
    leaves = []
    for path, (number, type_name) in stored.items():
        tensor = tensors[number]
        if path not in live:
            differences.append(f"{_text(path)}: is a tensor in the checkpoint only")
            continue
        is_array = bool(type_name)
        here, there = _describe_live(live[path]), _describe_stored(tensor, type_name)
        if here != there:
            differences.append(f"{_text(path)}: is {here} in the state, and {there} in the checkpoint")
        elif not is_array and is_dtensor(live[path]):
            differences.append(f"{_text(path)}: is a DTensor: load it with torch.distributed.checkpoint and ckptd.dcp")
        elif not is_array and not _has_memory(live[path]):
            differences.append(f"{_text(path)}: is a {type(live[path]).__name__} without memory of its own to write to")
        elif getattr(live[path], "is_meta", False):
            differences.append(f"{_text(path)}: is on the meta device, where there are no bytes")
        elif (memory := _Memory(live[path])).overlaps_itself():
            what = "array" if is_array else "tensor"
            differences.append(f"{_text(path)}: is an expanded {what}, or another one whose elements share memory")
        elif is_array and not live[path].flags.writeable:
            differences.append(f"{_text(path)}: is an array that cannot be written to")
        else:
            leaves.append(_Leaf(path, live[path], number, tensor, type_name, memory))
    differences += _shared_otherwise(leaves)
    if differences:
        lines = ["the state differs from the checkpoint; nothing was written:", *differences[:50]]
        if len(differences) > 50:
            lines.append(f"and {len(differences) - 50} more")
        raise InvalidState("\n  ".join(lines), "STATE_DIFFERS")
    return leaves


class _Memory:
    """Where the elements of a tensor or an array are, which may be on another device."""

    def __init__(self, value: Any) -> None:
        is_tensor = _is_tensor(value)
        self.device = str(value.device) if is_tensor else "cpu"
        self.item = value.element_size() if is_tensor else value.itemsize
        self.address = value.data_ptr() if is_tensor else value.ctypes.data
        self.shape = tuple(value.shape)
        self.strides = (
            tuple(stride * self.item for stride in value.stride()) if is_tensor else value.strides
        )  # in bytes
        reach = [(extent - 1) * stride for extent, stride in zip(self.shape, self.strides, strict=True)]
        self.begin = self.address + sum(step for step in reach if step < 0)
        self.end = self.address + sum(step for step in reach if step > 0) + self.item

    def is_empty(self) -> bool:
        return 0 in self.shape or not self.item

    def overlaps_itself(self) -> bool:
        """Whether elements share memory; also of strides that do so for no shape, but are none of a slice's."""
        if self.is_empty():
            return False
        reach = self.item
        for stride, extent in sorted((abs(s), e) for s, e in zip(self.strides, self.shape, strict=True) if e > 1):
            if stride < reach:
                return True
            reach += (extent - 1) * stride
        return False

    def overlaps(self, other: _Memory) -> bool:
        import numpy

        work: Any = 1_000_000  # numpy's stubs know -1 and 0 only
        try:
            return bool(numpy.shares_memory(self.addresses(), other.addresses(), max_work=work))
        except numpy.exceptions.TooHardError:
            return True

    def addresses(self) -> np.ndarray[Any, Any]:
        """An array of the same addresses, whose memory is not touched."""
        import numpy

        class Interface:
            __array_interface__: ClassVar = {
                "version": 3,
                "data": (self.address, False),
                "typestr": f"|V{self.item}",
                "shape": self.shape,
                "strides": self.strides,
            }

        return numpy.asarray(Interface())


def _shared_otherwise(leaves: list[_Leaf]) -> list[str]:
    """Live tensors and arrays that share memory, though those of the checkpoint do not, or do so otherwise."""
    differences = []
    before: list[_Leaf] = []  # those that reach beyond the beginning of the one at hand
    for leaf in sorted(leaves, key=lambda each: (each.memory.device, each.memory.begin)):
        here = leaf.memory
        if here.is_empty():
            continue
        before = [its for its in before if its.memory.device == here.device and its.memory.end > here.begin]
        differences += [
            f"{_text(leaf.path)}: shares memory with {_text(its.path)} in the state, and not so in the checkpoint"
            for its in before
            if not _are_alike(its, leaf) and its.memory.overlaps(here)
        ]
        before.append(leaf)
    return differences


def _are_alike(one: _Leaf, other: _Leaf) -> bool:
    """Whether the same bytes of the checkpoint go to the same memory, as far as both have them."""

    def base(leaf: _Leaf) -> int:
        return leaf.number if leaf.stored.view_of is None else leaf.stored.view_of

    def dims(leaf: _Leaf) -> list[tuple[int, int, int]]:
        """Extent, and the strides in bytes, as stored and as live."""
        memory = leaf.memory
        strides = leaf.stored.strides or _kinds.row_major(leaf.stored.shape)
        steps = (stride * memory.item for stride in strides[: len(memory.shape)])
        return sorted(dim for dim in zip(memory.shape, steps, memory.strides, strict=True) if dim[0] > 1)

    if base(one) != base(other):
        return False
    its, others = dims(one), dims(other)
    begin, offset = one.memory.address, one.stored.view_offset_bytes
    other_begin, other_offset = other.memory.address, other.stored.view_offset_bytes
    if (begin, offset, its) == (other_begin, other_offset, others):
        return True
    is_as_stored = all(stored == live for _, stored, live in its + others)
    return is_as_stored and begin - offset == other_begin - other_offset


def _has_memory(tensor: torch.Tensor) -> bool:
    """Whether it shows strided memory; a subclass that wraps others may not, and a sparse tensor does not."""
    import torch

    if tensor.layout is not torch.strided:
        return False
    try:
        return tensor.is_meta or tensor.numel() == 0 or tensor.untyped_storage().data_ptr() != 0
    except RuntimeError:  # there is no such memory to ask for
        return False


def _overlaps(tensor: torch.Tensor) -> bool:
    return any(extent > 1 and stride == 0 for extent, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _text(path: Path) -> str:
    return ".".join(map(str, path)) or "the whole state"


def _describe_live(value: Any) -> str:
    dtype = value.dtype.str if not _is_tensor(value) else str(value.dtype).removeprefix("torch.")
    return f"{dtype} {list(value.shape)}"


def _describe_stored(tensor: StoredTensor, type_name: str) -> str:
    shape = tensor.shape if type_name in _kinds.NUMPY_DTYPES or not type_name else tensor.shape[:-1]
    return f"{type_name or _kinds.DTYPE_NAMES[tensor.dtype]} {list(shape)}"


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _stored_tensors(restore: _native.Restore) -> Iterator[tuple[Path, int, str]]:
    """The path, number and numpy type ("" for torch's) of each tensor in the tree."""
    stack: list[list[Any]] = []  # [name, is a mapping, children left, attributes left, next index]
    for kind, key, children, attributes, _, type_name, number in restore.nodes():
        name: Any = ()
        if stack:
            top = stack[-1]
            if top[2]:
                top[2] -= 1
                name = key if top[1] else top[4]
                top[4] += 1
            else:
                top[3] -= 1
                name = f"@{key}"
        if kind in _kinds.TENSORS:
            yield (
                (*(frame[0] for frame in stack[1:]), *((name,) if stack else ())),
                number,
                (type_name if kind == _kinds.NUMPY_ARRAY else ""),
            )
        if children + attributes:
            stack.append([name, kind in _kinds.MAPPINGS, children, attributes, 0])
        while stack and stack[-1][2] + stack[-1][3] == 0:
            stack.pop()


def _live_tensors(state: Any, components: list[str]) -> Iterator[tuple[Path, Any]]:
    stack: list[tuple[Path, Any]] = [((), state)]
    while stack:
        path, value = stack.pop()
        if _is_tensor(value) or _is_array(value):
            yield path, value
            continue
        members: list[tuple[Any, Any]] = []
        if isinstance(value, dict):
            members = list(value.items())
            if not path and components:
                members = [(key, member) for key, member in members if key in components]
        elif isinstance(value, (list, tuple)):
            members = list(enumerate(value))
        attributes = getattr(value, "__dict__", None) if isinstance(value, (dict, argparse.Namespace)) else None
        members += [(f"@{name}", member) for name, member in (attributes or {}).items()]
        stack += [((*path, key), member) for key, member in reversed(members)]


class _Place(NamedTuple):
    """Memory for a stored tensor's bytes."""

    memory: Any  # a torch.UntypedStorage, a numpy.ndarray or an mmap
    offset: int  # of the first byte
    address: int  # of that byte; 0 when there are none


class _Box(NamedTuple):
    """Some of a tensor, which lies together in the stored bytes."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]


class _Aside(NamedTuple):
    """What is read aside in one go."""

    base: int  # number of the tensor that has the bytes
    box: _Box | None  # None: all of it
    size_bytes: int


class _Plan:
    """Where each stored tensor's bytes go, and what is copied from there."""

    def __init__(self, tensors: list[StoredTensor]) -> None:
        self.tensors = tensors
        self.direct: dict[int, _Place] = {}  # by number of the tensor that has the bytes
        self.copies: dict[int, list[_Leaf]] = {}  # the same; if it is not direct it is read aside first
        self.written: list[torch.Tensor] = []

    def add(self, leaf: _Leaf) -> None:
        base = leaf.number if leaf.stored.view_of is None else leaf.stored.view_of
        if base in self.direct or base in self.copies or leaf.stored.view_of is not None or not self.is_direct(leaf):
            self.copies.setdefault(base, []).append(leaf)
        else:
            self.place_direct(leaf)

    def is_direct(self, leaf: _Leaf) -> bool:
        """Whether the bytes can be read to where they are wanted."""
        live, stored = leaf.live, leaf.stored
        if leaf.type_name:
            order = live.flags.f_contiguous if stored.strides else live.flags.c_contiguous
            return bool(order) and live.flags.aligned
        strides = stored.strides or _kinds.row_major(stored.shape)
        return (
            live.device.type == "cpu" and tuple(live.stride()) == strides and not live.is_conj() and not live.is_neg()
        )

    def place_direct(self, leaf: _Leaf) -> None:
        live = leaf.live
        if leaf.type_name:
            address = live.ctypes.data if live.size else 0
            self.direct[leaf.number] = _Place(live, 0, address)
            return
        offset = live.storage_offset() * live.element_size()
        self.direct[leaf.number] = _Place(live.untyped_storage(), offset, live.data_ptr())
        self.written.append(live)

    def run(self, restore: _native.Restore) -> None:
        waves = list(self.waves())
        size = max((sum(map(_aligned, wave)) for wave in waves), default=0)
        memory = mmap.mmap(-1, max(1, size), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # all of them use it
        torn = "the state is torn: part of it has been restored"
        try:
            self.read_direct(restore)
            for wave in waves:
                self.read_aside(restore, wave, memory)
        except Error as error:
            error.args = (f"{error.args[0]}; {torn}", *error.args[1:])
            raise
        except BaseException as error:
            error.add_note(torn)
            raise
        finally:
            if self.written:
                import torch

                torch.autograd.graph.increment_version(self.written)  # who had saved them for backward is told

    def waves(self) -> Iterator[list[_Aside]]:
        """What is read aside, so much at a time that it takes little memory."""
        wave: list[_Aside] = []
        size = 0
        for aside in itertools.chain.from_iterable(self.parts(base) for base in self.copies if base not in self.direct):
            if wave and size + _aligned(aside) > ASIDE_BYTES:
                yield wave
                wave, size = [], 0
            wave.append(aside)
            size += _aligned(aside)
        if wave:
            yield wave

    def parts(self, base: int) -> Iterator[_Aside]:
        stored = self.tensors[base]
        whole = (stored.dtype, stored.shape, stored.strides, 0)
        views = (leaf.stored for leaf in self.copies[base] if leaf.number != base)
        has_parts = all((view.dtype, view.shape, view.strides, view.view_offset_bytes) == whole for view in views)
        if stored.size_bytes <= ASIDE_BYTES or not has_parts:
            yield _Aside(base, None, stored.size_bytes)
            return
        shape = stored.shape
        strides = stored.strides or _kinds.row_major(shape)
        outer: list[int] = []  # dimensions of which one index is more than is read in one go
        step_bytes = stored.size_bytes  # of one index of the next
        for dim in sorted(range(len(shape)), key=lambda d: (shape[d] > 1, strides[d]), reverse=True):
            step_bytes //= shape[dim]
            if step_bytes <= ASIDE_BYTES:
                break
            outer.append(dim)
        count = ASIDE_BYTES // step_bytes
        whole_chunks = _CHUNK_BYTES // math.gcd(_CHUNK_BYTES, step_bytes)  # so many steps are some
        if count > whole_chunks:
            count -= count % whole_chunks
        for index in itertools.product(*(range(shape[d]) for d in outer)):
            for begin in range(0, shape[dim], count):
                offset, extents = [0] * len(shape), list(shape)
                for d, i in zip(outer, index, strict=True):
                    offset[d], extents[d] = i, 1
                offset[dim], extents[dim] = begin, min(count, shape[dim] - begin)
                yield _Aside(base, _Box(tuple(offset), tuple(extents)), extents[dim] * step_bytes)

    def read_direct(self, restore: _native.Restore) -> None:
        addresses = [0] * len(self.tensors)
        for base, place in self.direct.items():
            addresses[base] = place.address
        if any(addresses):
            restore.read_into(addresses)
        for base, place in self.direct.items():
            for leaf in self.copies.get(base, ()):
                _copy(leaf.live, _show(leaf, place, None))

    def read_aside(self, restore: _native.Restore, wave: list[_Aside], memory: mmap.mmap) -> None:
        """Reads to memory that has what is live now, so that what is right there is not sent, and copies it back."""
        begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        offset = 0
        slices = []
        pairs = []  # of what is live, and of what is stored for it
        for aside in wave:
            if not aside.size_bytes:
                continue
            pairs += [
                (_part(leaf.live, aside.box), _show(leaf, _Place(memory, offset, begin + offset), aside.box))
                for leaf in self.copies[aside.base]
            ]
            slices.append(self.slice_of(aside, begin + offset))
            offset += _aligned(aside)
        for live, shown in pairs:
            if _is_array(shown) or not _overlaps(shown):  # of an expanded tensor all that is live does not fit
                _copy(shown, live)
        if slices:
            restore.read_slices(slices)
        for live, shown in pairs:
            _copy(live, shown)

    def slice_of(self, aside: _Aside, address: int) -> Slice:
        stored = self.tensors[aside.base]
        item = stored.size_bytes // math.prod(stored.shape)
        steps = tuple(stride * item for stride in stored.strides or _kinds.row_major(stored.shape))
        offset, shape = aside.box or ((0,) * len(steps), stored.shape)
        return aside.base, offset, shape, address, steps


def _aligned(aside: _Aside) -> int:
    return -(-aside.size_bytes // _ALIGNMENT) * _ALIGNMENT


def _part(live: Any, box: _Box | None) -> Any:
    if box is None:
        return live
    begins = zip(box.offset, box.shape, strict=True)
    return live[tuple(slice(begin, begin + extent) for begin, extent in begins)[: live.ndim]]


def _copy(to: Any, source: Any) -> None:
    if _is_array(to):
        to[...] = source
        return
    import torch

    # PyTorch transposes a matrix fast if the one that is written is contiguous.
    order = sorted(range(to.dim()), key=to.stride, reverse=True)
    with torch.inference_mode() if to.is_inference() else torch.no_grad():
        to.permute(order).copy_(source.permute(order))


def _show(leaf: _Leaf, place: _Place, box: _Box | None) -> Any:
    """What was saved of the leaf, or of this part of it, in the place of the bytes."""
    if leaf.type_name:
        import numpy

        order: Literal["F", "C"] = "F" if leaf.stored.strides else "C"
        raw = place.memory.reshape(-1, order="A").view(numpy.uint8) if _is_array(place.memory) else place.memory
        shape = box.shape[: leaf.live.ndim] if box else leaf.live.shape
        return numpy.ndarray(shape, leaf.live.dtype, raw, place.offset, order=order)
    import torch

    shown = torch.empty(0, dtype=leaf.live.dtype, device="cpu")
    strides = leaf.stored.strides or _kinds.row_major(leaf.stored.shape)
    offset = place.offset + leaf.stored.view_offset_bytes
    memory = place.memory
    if isinstance(memory, mmap.mmap):
        memory = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    shown.set_(memory, offset // shown.element_size(), box.shape if box else leaf.stored.shape, strides)
    return shown
