"""What a planner of torch.distributed.checkpoint is to save, and what its ranks are told of the save."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch.distributed.checkpoint import planner as torch_planner
from torch.distributed.checkpoint._nested_dict import unflatten_state_dict
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta

from ckptd._client import _What
from ckptd._errors import InvalidState


@dataclass(frozen=True)
class Ticket:
    """What the coordinator tells a rank of the save, in ``plan.storage_data``."""

    attempt_key: bytes
    rank: int
    world_size: int
    what: _What


class SavePlanner(DefaultSavePlanner):
    """Plans a save of the state exactly as it is.

    torch's default planner flattens a state: keys become texts, an OrderedDict a dict, empty dicts and what tuples are
    beside tensors is lost. This one shards and balances as that does, and what comes back from ``ckptd.load`` is the
    tree that went in: its types, its keys and their order, and which tensors are one. Only the outermost container
    becomes a dict, which ``torch.distributed.checkpoint.save`` makes of it, and strides become row-major.

    Args:
        dedup_save_to_lowest_rank: of what several ranks hold the lowest one sends all; False: they share it.
        enable_plan_caching: plans are not exchanged again while they stay the same.
    """

    def __init__(self, *, dedup_save_to_lowest_rank: bool = False, enable_plan_caching: bool = False) -> None:
        super().__init__(dedup_save_to_lowest_rank=dedup_save_to_lowest_rank, enable_plan_caching=enable_plan_caching)
        self.tree: Any = {}

    def set_up_planner(
        self, state_dict: dict[str, Any], storage_meta: StorageMeta | None = None, is_coordinator: bool = False
    ) -> None:
        """Called by torch on all ranks, first."""
        self.tree = state_dict
        try:
            super().set_up_planner(state_dict, storage_meta, is_coordinator)
        except RecursionError as error:
            raise InvalidState("the state contains itself, or is nested too deeply", "UNSUPPORTED_VALUE") from error

    def finish_plan(self, new_plan: torch_planner.SavePlan) -> torch_planner.SavePlan:
        """Called by torch on all ranks, with what the coordinator planned."""
        plan = super().finish_plan(new_plan)
        if plan is not new_plan:  # a cached one, with what it was told when it was new
            plan = replace(plan, storage_data=new_plan.storage_data)
        self.plan = plan
        return plan


class LoadPlanner(DefaultLoadPlanner):
    """Loads into the state exactly as it is.

    torch's default planner makes texts of keys: what a state has under ``1`` it puts under ``"1"``, and leaves what was
    there. This one puts it where it belongs.

    Args:
        allow_partial_load: what the checkpoint does not have is left as it is.
    """

    def __init__(self, *, allow_partial_load: bool = False) -> None:
        super().__init__(allow_partial_load=allow_partial_load)

    def load_bytes(self, read_item: torch_planner.ReadItem, value: io.BytesIO) -> None:
        """Called by torch with each value that is no tensor."""
        container: Any = self.original_state_dict
        *above, last = self.mappings[read_item.dest_index.fqn]
        for name in above:
            container = container[self._key_of(container, name)]
        key = self._key_of(container, last)
        container[key] = torch.load(value, weights_only=False)  # of what the reader has decoded

    def _key_of(self, container: Any, name: Any) -> Any:
        if not isinstance(container, Mapping) or name in container:
            return name
        keys = self._keys.setdefault(id(container), {})
        if name not in keys:
            keys.update((str(key), key) for key in container)
        return keys.get(name, name)

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Called by torch on all ranks, first."""
        self._keys: dict[int, dict[str, Any]] = {}  # by container: what its keys are as texts
        super().set_up_planner(state_dict, metadata, is_coordinator)


class Source(NamedTuple):
    """What is to be saved, as one rank sees it.

    Attributes:
        tree: the whole state. Where a planner shows only what its plan has, the rest is not in it.
        flat: what the planner plans by: its leaves by their keys joined with ".". They are those of the tree.
    """

    tree: Any
    flat: Mapping[str, Any]


def source_of(planner: torch_planner.SavePlanner, plan: torch_planner.SavePlan) -> Source:
    """The state that a planner was set up with.

    Raises:
        InvalidState: it is one that must not be flattened, or the planner has a pickle of what pickle alone can read.
    """
    if isinstance(planner, SavePlanner):
        return Source(planner.tree, planner.state_dict)
    if isinstance(planner, DefaultSavePlanner):
        flat = planner.state_dict
        tree = unflatten_state_dict(flat, planner.mappings) if planner.flatten_state_dict else flat
        _refuse_positions(tree)
        return Source(tree, flat)
    objects: dict[str, Any] = {}
    for item in plan.items:
        if item.type is torch_planner.WriteItemType.BYTE_IO:
            objects[item.index.fqn] = _object(planner, item)
        else:
            objects[item.index.fqn] = item.tensor_data
    return Source(objects, objects)


def _object(planner: torch_planner.SavePlanner, item: torch_planner.WriteItem) -> Any:
    lookup = getattr(planner, "lookup_object", None)
    if lookup is not None:
        return lookup(item.index)
    data = planner.resolve_data(item)
    assert isinstance(data, io.BytesIO)
    data.seek(0)
    try:
        return torch.load(data, weights_only=True)
    except pickle.UnpicklingError as error:
        raise InvalidState(
            f"{item.index.fqn}: a value that needs pickle; take it out, or turn it into plain values or tensors",
            "UNSUPPORTED_VALUE",
        ) from error


def _refuse_positions(tree: Any) -> None:
    """An optimizer's own state goes by position: flattened, its numbers are texts, which no optimizer finds again."""
    stack: list[tuple[str, Any]] = [("", tree)]
    while stack:
        path, value = stack.pop()
        members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        stack += [(f"{path}.{key}" if path else str(key), member) for key, member in members]
        if not isinstance(value, dict) or not isinstance(value.get("state"), dict) or "param_groups" not in value:
            continue
        groups = [group for group in value["param_groups"] if isinstance(group, dict)]
        is_named = all(isinstance(name, str) for group in groups for name in group.get("params", ()))
        if not is_named and any(str(key).isdigit() for key in value["state"]):
            raise InvalidState(
                f"{path or 'the whole state'}: optimizer.state_dict() goes by position, and torch's planner makes "
                "texts of its numbers: load_state_dict would take them and lose all moments; save what get_state_dict "
                "of torch.distributed.checkpoint.state_dict gives, or save with planner=ckptd.dcp.SavePlanner()",
                "OPTIMIZER_BY_POSITION",
            )
