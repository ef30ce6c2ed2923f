"""From what a rank plans to save to its part of a sharded save."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed._shard.sharded_tensor.api import ShardedTensor
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, TensorWriteData, WriteItem
from torch.distributed.tensor import DTensor

from ckptd import _kinds
from ckptd._dcp_plan import Source
from ckptd._encode import _BUFFERS, _dtype_number, _Encoder, refusal_of
from ckptd._errors import InvalidState

if TYPE_CHECKING:
    import numpy as np

_Box = tuple[tuple[int, ...], tuple[int, ...], int]  # offset, shape, address

TENSOR_TYPES = frozenset((torch.Tensor, torch.nn.Parameter, DTensor))


class PartEncoder(_Encoder):
    """Describes the whole of a rank's state, with the boxes of its tensors that are in its plan.

    Each rank describes all: so that lists are equally long, keys keep their order, and values that differ are found. A
    tensor that stands in the state twice, or shows the same elements of the same memory as another, becomes one.

    Attributes:
        sent: what this part sends of each planned item, in bytes; what another place of the same tensor sends: 0.
        memory: the addresses of the memory that the state's tensors show.
    """

    def __init__(
        self,
        source: Source,
        plan: SavePlan,
        planner: SavePlanner,
        planned: Mapping[str, TensorWriteData],
        has_unplanned: bool,
    ) -> None:
        """Begins a part.

        Args:
            source: the state.
            plan: what of it this rank sends.
            planner: has the data of the plan's items.
            planned: what the planner says of this state's tensors, where it has planned anew: it may convert them.
            has_unplanned: whether this rank sends what torch does not plan: tensors in attributes of containers.
        """
        super().__init__(None, False)
        self.may_pickle = False
        self.flat = source.flat
        self.planner = planner
        self.planned_as = planned
        self.has_unplanned = has_unplanned
        self.items: dict[str, list[WriteItem]] = defaultdict(list)
        for item in plan.items:
            self.items[item.index.fqn].append(item)
        self.numbers: dict[Any, int] = {}  # by what two places of one tensor have in common
        self.sent: dict[int, int] = {}  # by id of the item
        self.memory: set[int] = set()

    def enter(self, value: Any, name: str, role: int) -> None:
        numpy = sys.modules.get("numpy")
        if type(value) in TENSOR_TYPES:
            self.tensor(value, name, role)
        elif isinstance(value, TensorWriteData):
            self.described(value, name, role)
        elif numpy is not None and type(value) is numpy.ndarray:
            self.array(value, name, role)
        elif isinstance(value, ShardedTensor):
            raise self.refuse(name, "a ShardedTensor", "save DTensors, as fully_shard (FSDP2) and get_state_dict make")
        else:
            super().enter(value, name, role)

    # ---- Leaves with boxes

    def add_tensor(self, value: torch.Tensor, name: str, role: int, parameter: bool) -> int:
        local = value._local_tensor if isinstance(value, DTensor) else value
        refusal = local_refusal_of(local)
        if refusal is not None:
            raise self.refuse(name, *refusal)
        memory = local.untyped_storage()
        self.memory.add(memory.data_ptr())
        spread = (value.device_mesh, value.placements) if isinstance(value, DTensor) else None
        elements = (memory._cdata, local.storage_offset(), local.shape, local.stride(), local.dtype)
        same = (elements, local.is_conj(), local.is_neg(), value.shape, spread, value.requires_grad)
        # Of what has no elements here, ranks that have some say what is one.
        number = self.numbers.get(same) if local.numel() or not value.numel() else None
        if number is None:
            if role == _kinds.ROLE_OTHER and (parameter or value.requires_grad):
                role = _kinds.ROLE_PARAMETER
            elif role == _kinds.ROLE_PARAMETER and name.rpartition(".")[2] in _BUFFERS:
                role = _kinds.ROLE_BUFFER
            path = self.path(name)
            planned = self.flat.get(path) is value
            described = self.planned_as.get(path) if planned else None
            dtype = self.dtype(described.properties.dtype if described else value.dtype, name)
            boxes = self.planned(path, dtype) if planned else self.unplanned(value, name)
            device = "" if local.is_cpu else str(local.device)
            number = self.builder.add_boxes(dtype, tuple(value.shape), boxes, value.requires_grad, device, role)
            self.numbers[same] = number
        return number

    def described(self, value: TensorWriteData, name: str, role: int) -> None:
        """Of a planner that shows nothing but its plan."""
        path, properties = self.path(name), value.properties
        dtype = self.dtype(properties.dtype, name)
        boxes = self.planned(path, dtype)
        number = self.builder.add_boxes(dtype, tuple(value.size), boxes, properties.requires_grad, "", role)
        self.builder.tensor(_kinds.TENSOR, number)

    def array(self, value: np.ndarray[Any, Any], name: str, role: int) -> None:
        number = self.tensors.get(id(value))
        if number is None:
            import numpy as np

            self.check_numpy(value.dtype, name)
            dtype = _kinds.NUMPY_DTYPES.get(value.dtype.str)  # None: kept as bytes
            shape = value.shape if dtype else (*value.shape, value.itemsize)
            boxes: list[_Box] = []
            if value.nbytes and self.is_sender(self.path(name), value):
                whole = np.ascontiguousarray(value)
                self.keep.append(whole)
                boxes.append(((0,) * len(shape), shape, whole.ctypes.data))
            number = self.builder.add_boxes(_kinds.DTYPES[dtype or "uint8"], shape, boxes, False, "", _kinds.ROLE_OTHER)
            self.keep.append(value)
            self.tensors[id(value)] = number
        self.builder.tensor(_kinds.NUMPY_ARRAY, number, value.dtype.str)

    # ---- Boxes

    def planned(self, path: str, dtype: int) -> list[_Box]:
        boxes = []
        for item in self.items.get(path, ()):
            data = item.tensor_data
            assert data is not None
            tensor = self.planner.resolve_data(item)
            assert isinstance(tensor, torch.Tensor)
            if tensor.shape != data.chunk.sizes:
                raise InvalidState(
                    f"{path}: this rank holds {list(tensor.shape)} of it, and torch says {list(data.chunk.sizes)}: it "
                    "does not know how this tensor is cut; choose sizes that its mesh divides evenly",
                    "SHARD_DIFFERS",
                )
            if _dtype_number(tensor.dtype) != dtype:
                raise InvalidState(
                    f"{path}: the planner makes {tensor.dtype} of it and has not planned that", "SHARD_DIFFERS"
                )
            boxes += self.box(tensor, tuple(data.chunk.offsets))
            self.sent[id(item)] = tensor.numel() * tensor.element_size()
        return boxes

    def unplanned(self, value: torch.Tensor, name: str) -> list[_Box]:
        """Of a tensor that torch's planners do not see: in a tuple, or in an attribute."""
        if isinstance(value, DTensor):
            raise self.refuse(name, "a DTensor where torch does not look for one", "put it where no tuple is around it")
        return self.box(value, (0,) * value.dim()) if self.is_sender(self.path(name), value) else []

    def is_sender(self, path: str, value: Any) -> bool:
        """Whether this rank sends this value, which is a leaf of the planner's, or within one, or is not planned."""
        if self.flat.get(path) is value:
            return path in self.items
        names = [frame.name for frame in self.stack[1:]]
        for depth in range(len(names), 0, -1):
            above = ".".join(names[:depth])
            if above in self.flat and id(self.flat[above]) == self.stack[depth].identity:
                return above in self.items
        return self.has_unplanned

    def box(self, tensor: torch.Tensor, offset: tuple[int, ...]) -> list[_Box]:
        if tensor.numel() == 0:
            return []
        whole = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        self.keep.append(whole)
        return [(offset, tuple(whole.shape), whole.data_ptr())]


def local_refusal_of(value: torch.Tensor) -> tuple[str, str] | None:
    """As refusal_of, of a tensor or of what a DTensor holds on this rank."""
    if type(value) not in (torch.Tensor, torch.nn.Parameter):
        return f"a DTensor of {type(value).__qualname__}s", "save its parts"
    return refusal_of(value)
