"""A checkpoint as torch.distributed.checkpoint reads it: its description, and any slices of its tensors."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadItemType, LoadPlan, LoadPlanner, ReadItem

from ckptd import _kinds, _native
from ckptd._decode import Opaque, StoredTensor, _Decoder, _Describer, _Memory
from ckptd._errors import Error, InvalidState
from ckptd._restore_into import Slice, _live_tensors

_PARAM_GROUPS = re.compile(r"(?:.*\.)?param_groups(?=\.|$)")  # an optimizer's, at the start of a key
_BATCH = 256 << 20  # bytes that are held besides the tensors that are loaded into


class OpenCheckpoint:
    """An open checkpoint. Not thread-safe.

    Attributes:
        reference: what names exactly this version.
    """

    def __init__(self, restore: _native.Restore) -> None:
        """Reads its description.

        Raises:
            InvalidState: it is none that torch can address: no dict, with a pickle, or two keys make one text.
        """
        checkpoint = restore.checkpoint()
        self.reference = f"{checkpoint['run']}@{checkpoint['epoch']}#{checkpoint['version']}"
        self._restore = restore
        restore.pause()  # until all ranks have described what they load
        self._nodes = restore.nodes()
        self._tensors = [StoredTensor(*fields) for fields in restore.tensors()]
        describer = _Describer(self._tensors)
        state = describer.run(self._nodes)
        self._numbers = {id(value): number for (_, number), value in describer.objects.items()}
        self._kinds = {number: kind for kind, number in describer.objects}
        self._objects = describer.objects  # so that ids stay what they are
        if not isinstance(state, dict):
            raise InvalidState(
                f"{self.reference} is a {type(state).__name__}, and torch.distributed.checkpoint loads dicts: load it "
                "with ckptd.load",
                "NO_DICT",
            )
        try:
            self._flat, self._mappings = flatten_state_dict(state)
        except ValueError as error:  # "a.b" beside "a", "b"
            raise InvalidState(
                f"{self.reference} has keys that torch.distributed.checkpoint cannot tell apart ({error}): load it "
                "with ckptd.load",
                "AMBIGUOUS_KEYS",
            ) from error

    def metadata(self) -> Metadata:
        """The description, as torch's default planner would have made it of the same state."""
        boxes = self._restore.boxes()
        described: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
        for key, value in self._flat.items():
            if not isinstance(value, torch.Tensor):
                described[key] = BytesStorageMetadata()
                continue
            number = self._numbers[id(value)]
            stored = self._tensors[number]
            parts = [((0,) * value.dim(), tuple(value.shape))]
            if stored.view_of is None and not stored.strides:
                parts = boxes[number] or parts
            described[key] = TensorStorageMetadata(
                TensorProperties(dtype=value.dtype, requires_grad=stored.requires_grad),
                value.size(),
                [ChunkStorageMetadata(torch.Size(offset), torch.Size(shape)) for offset, shape in parts],
            )
        return Metadata(described, planner_data=self._mappings)

    def read(self, plan: LoadPlan, planner: LoadPlanner) -> None:
        """Reads what is planned to where the planner wants it.

        Raises:
            InvalidState: it does not have that.
            Error: the restore failed in the middle: the message says that the state is torn.
        """
        if isinstance(planner, DefaultLoadPlanner) and not planner.allow_partial_load:
            self._refuse_lost_moments(planner.state_dict.keys())
        try:
            self._read_leaves([item for item in plan.items if item.type is LoadItemType.BYTE_IO], planner)
            batch = _Batch()
            for item in plan.items:
                if item.type is LoadItemType.BYTE_IO:
                    continue
                target = planner.resolve_tensor(item)
                self._add(batch, item, target)
                if batch.held_bytes >= _BATCH:
                    batch.read(self._restore, planner)
            batch.read(self._restore, planner)
        finally:
            self._restore.pause()

    def _refuse_lost_moments(self, wanted: Iterable[str]) -> None:
        """A fresh optimizer has no state: loading into its state_dict would take the groups and lose all moments."""
        for groups in {found[0] for found in map(_PARAM_GROUPS.match, wanted) if found is not None}:
            state = groups.removesuffix("param_groups") + "state."
            saved, live = (
                [key[len(state) :].split(".") for key in keys if key.startswith(state)] for keys in (self._flat, wanted)
            )
            # By position all must be there; by name, which may begin with a number too, some may be left out.
            by_position = all(len(key) == 2 and key[0].isdigit() for key in saved)
            if saved and (not live or (by_position and not {key[0] for key in saved} <= {key[0] for key in live})):
                raise InvalidState(
                    f"{self.reference} has states beside {groups} that the state that is loaded into has not: they "
                    "would be lost; load into what get_state_dict gives, which makes them, or use ckptd.load",
                    "OPTIMIZER_WITHOUT_STATE",
                )

    # ---- Tensors

    def _add(self, batch: _Batch, item: ReadItem, target: torch.Tensor) -> None:
        key = item.storage_index.fqn
        value = self._flat.get(key)
        number = self._numbers.get(id(value))
        if number is None or not isinstance(value, torch.Tensor):
            raise InvalidState(f"{self.reference} has no tensor {key}", "NO_TENSOR")
        begin = item.storage_index.offset or (0,) * value.dim()
        offset = tuple(a + b for a, b in zip(begin, item.storage_offsets, strict=True))
        shape = tuple(item.lengths)
        if any(a + b > extent for a, b, extent in zip(offset, shape, value.shape, strict=True)):
            raise InvalidState(f"{self.reference} has {key} with shape {list(value.shape)} only", "NO_TENSOR")
        live = target.detach()
        if live.numel() == 0:
            return
        stored = self._tensors[number]
        if stored.view_of is not None:
            base = self._tensors[stored.view_of]
            if (base.dtype, base.shape, base.strides) != (stored.dtype, stored.shape, stored.strides):
                slice_of, source = self._view(stored, value, offset, shape)
                batch.add(slice_of, item, target, live, source)
                return
            number, stored = stored.view_of, base
        order = _memory_order(stored)
        fast = next((d for d in reversed(order) if shape[d] > 1), None)  # elements of that dimension lie together
        is_direct = live.is_cpu and live.dtype == value.dtype and not live.is_conj() and not live.is_neg()
        # Of an expanded tensor, copy_ says what is wrong with it.
        is_direct = is_direct and all(
            step != 0 for step, extent in zip(live.stride(), shape, strict=True) if extent > 1
        )
        if is_direct and (fast is None or live.stride(fast) == 1):
            batch.add(_slice(number, offset, live), item, target, None, None)
            return
        memory = torch.empty([shape[d] for d in order], dtype=value.dtype, device="cpu")
        source = memory.permute([order.index(d) for d in range(len(order))])
        batch.add(_slice(number, offset, source), item, target, live, source)

    def _view(
        self, stored: StoredTensor, value: torch.Tensor, offset: tuple[int, ...], shape: tuple[int, ...]
    ) -> tuple[Slice, torch.Tensor]:
        """A slice of a tensor that shows others' bytes, and memory for it."""
        assert stored.view_of is not None
        base = self._tensors[stored.view_of]
        if base.dtype != _kinds.UINT8 or len(base.shape) != 1:
            raise InvalidState(
                f"{self.reference}: {stored.path} shows part of another tensor ({base.path}) of another type; load it "
                "with ckptd.load",
                "UNSUPPORTED_VIEW",
            )
        strides = value.stride()
        size = value.element_size()
        first = stored.view_offset_bytes + sum(a * b for a, b in zip(offset, strides, strict=True)) * size
        reach = (1 + sum((a - 1) * b for a, b in zip(shape, strides, strict=True))) * size
        memory = torch.empty(reach, dtype=torch.uint8, device="cpu")
        source = torch.empty(0, dtype=value.dtype, device="cpu").set_(memory.untyped_storage(), 0, shape, strides)
        return _slice(stored.view_of, (first,), memory), source

    # ---- Other values

    def _read_leaves(self, items: list[ReadItem], planner: LoadPlanner) -> None:
        wanted: set[int] = set()
        for item in items:
            key = item.storage_index.fqn
            if key not in self._flat:
                raise InvalidState(f"{self.reference} has no {key}", "NO_VALUE")
            wanted |= {self._numbers[id(value)] for _, value in _live_tensors(self._flat[key], [])}
        if any(node[0] == _kinds.OPAQUE for node in self._nodes) and items:
            self._refuse_pickles(items)
        flat = self._read_tensors_within(wanted) if wanted else self._flat
        for item in items:
            data = io.BytesIO()
            torch.save(flat[item.storage_index.fqn], data)  # of what was decoded here: for torch.load in the planner
            data.seek(0)
            planner.load_bytes(item, data)

    def _refuse_pickles(self, items: list[ReadItem]) -> None:
        stack = [self._flat[item.storage_index.fqn] for item in items]
        while stack:
            value = stack.pop()
            if isinstance(value, Opaque):
                raise InvalidState(
                    f"the checkpoint holds a {value.type_name} as a pickle, which runs code when it is read; if you "
                    "trust who saved it: ckptd.load(…, allow_pickle=True)",
                    "PICKLE_NOT_ALLOWED",
                )
            if isinstance(value, dict):
                stack += value.values()
            elif isinstance(value, (list, tuple)):
                stack += value
            stack += getattr(value, "__dict__", {}).values()

    def _read_tensors_within(self, wanted: set[int]) -> dict[str, Any]:
        """The state again, with these tensors' values: of those in tuples, and arrays."""
        kinds = {number: self._kinds[number] for number in wanted}
        for number in wanted:
            shown = self._tensors[number].view_of
            if shown is not None:
                kinds.setdefault(shown, kinds[number])
        memory = _Memory(self._tensors, kinds)
        batch = _Batch()
        for number, address in enumerate(memory.addresses):
            if address:
                stored = self._tensors[number]
                size = stored.size_bytes // math.prod(stored.shape)
                steps = tuple(stride * size for stride in stored.strides or _kinds.row_major(stored.shape))
                batch.slices.append((number, (0,) * len(steps), stored.shape, address, steps))
        batch.read(self._restore, None)
        return flatten_state_dict(_LeafDecoder(self._tensors, memory, "cpu").run(self._nodes))[0]


class _Copy(NamedTuple):
    item: ReadItem
    target: torch.Tensor  # the planner's
    live: torch.Tensor | None  # where a copy goes; None: the bytes go there directly
    source: torch.Tensor | None


class _Batch:
    """Slices that are read together."""

    def __init__(self) -> None:
        self.slices: list[Slice] = []
        self.copies: list[_Copy] = []
        self.held_bytes = 0

    def add(
        self,
        slice_of: Slice,
        item: ReadItem,
        target: torch.Tensor,
        live: torch.Tensor | None,
        source: torch.Tensor | None,
    ) -> None:
        self.slices.append(slice_of)
        self.copies.append(_Copy(item, target, live, source))
        if source is not None:
            self.held_bytes += source.untyped_storage().nbytes()

    def read(self, restore: _native.Restore, planner: LoadPlanner | None) -> None:
        if not self.slices:
            return
        try:
            restore.read_slices(self.slices)
        except Error as error:
            error.args = (f"{error.args[0]}; the state is torn: part of it has been restored", *error.args[1:])
            raise
        written = [copy.target for copy in self.copies if copy.source is None]
        if written:
            torch.autograd.graph.increment_version(written)  # who had saved them for backward is told
        with torch.no_grad():
            for copy in self.copies:
                if copy.live is not None and copy.source is not None:
                    copy.live.copy_(copy.source)
                if planner is not None:
                    planner.commit_tensor(copy.item, copy.target)
        self.slices, self.copies, self.held_bytes = [], [], 0


class _LeafDecoder(_Decoder, _Describer):
    """Decodes the tensors that were read, and describes the others."""

    def tensor(self, number: int) -> torch.Tensor:
        is_here = self._base(number) in self.memory.storages
        return _Decoder.tensor(self, number) if is_here else _Describer.tensor(self, number)

    def array(self, number: int, type_name: str) -> Any:
        is_here = self._base(number) in self.memory.arrays
        return _Decoder.array(self, number, type_name) if is_here else _Describer.array(self, number, type_name)

    def _base(self, number: int) -> int:
        shown = self.tensors[number].view_of
        return number if shown is None else shown


def _memory_order(stored: StoredTensor) -> list[int]:
    """The tensor's dimensions in the order in which its bytes are stored."""
    dims = range(len(stored.shape))
    return sorted(dims, key=lambda dim: -stored.strides[dim]) if stored.strides else list(dims)


def _slice(number: int, offset: tuple[int, ...], target: torch.Tensor) -> Slice:
    steps = tuple(stride * target.element_size() for stride in target.stride())
    return number, offset, tuple(target.shape), target.data_ptr(), steps
