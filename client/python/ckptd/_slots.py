"""An optimizer's slots: which parameter has which index, by the names that a model gives its parameters."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptd._errors import InvalidState

if TYPE_CHECKING:
    import torch

# What DistributedDataParallel, torch.compile, activation checkpointing and FSDP put into names.
_WRAPPERS = frozenset({"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})


def plain_name(name: str) -> str:
    """The name of a parameter or buffer without what wrappers put into it."""
    *path, last = name.split(".")
    return ".".join([*(part for part in path if part not in _WRAPPERS), last])


def plain_path(path: str) -> str:
    """The same for the path of a module."""
    return ".".join(part for part in path.split(".") if part not in _WRAPPERS)


def plain_state_dict(state: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """A model's state_dict with plain names, and with its ``_metadata``. The values are the same objects."""
    plain: OrderedDict[str, Any] = OrderedDict()
    for name, value in state.items():
        short = plain_name(name)
        if short in plain and not _is_same(plain[short], value):
            raise _ambiguous("entries of the model", short)
        plain[short] = value
    if hasattr(state, "_metadata"):
        metadata = ((plain_path(path), value) for path, value in state._metadata.items())
        plain._metadata = OrderedDict(metadata)  # type: ignore[attr-defined]
    return plain


def _is_same(a: Any, b: Any) -> bool:
    """Whether two entries show the same: one module that is reached by two ways."""
    if a is b:
        return True
    return all(hasattr(v, "data_ptr") for v in (a, b)) and (a.data_ptr(), a.shape) == (b.data_ptr(), b.shape)


def check_unique(names: Iterable[str], what: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise _ambiguous(what, twice[0])


def _ambiguous(what: str, name: str) -> InvalidState:
    return InvalidState(
        f"two {what} have the name {name}, once without the names of wrappers; rename one", "AMBIGUOUS_NAMES"
    )


@dataclass(frozen=True)
class Slot:
    """What an optimizer has for one parameter.

    Attributes:
        index: its key in the optimizer's state_dict: its place there.
        group: the parameter group that it is in.
        names: all names of the parameter, plain; none if nobody named it.
        shape: the parameter's; None if it is not known.
        dtype: the parameter's, as "float32"; "" if it is not known.
    """

    index: int
    group: int
    names: tuple[str, ...]
    shape: tuple[int, ...] | None
    dtype: str

    @property
    def name(self) -> str:
        return self.names[0] if self.names else f"(parameter {self.index})"


def live_slots(
    optimizer: torch.optim.Optimizer, model: torch.nn.Module | None
) -> tuple[list[Slot], list[torch.nn.Parameter]]:
    """The slots of an optimizer, and their parameters.

    Names come from the model, whose parameters are told apart by identity; where it has none, from the optimizer's own
    ``param_names``.

    Raises:
        InvalidState: two slots have a name in common.
    """
    from torch.nn.parameter import is_lazy

    names: defaultdict[int, list[str]] = defaultdict(list)
    if model is not None:
        for name, parameter in model.named_parameters(remove_duplicate=False):
            names[id(parameter)].append(plain_name(name))
    slots: list[Slot] = []
    parameters: list[torch.nn.Parameter] = []
    for group, members in enumerate(optimizer.param_groups):
        own = members.get("param_names") or [""] * len(members["params"])
        for parameter, own_name in zip(members["params"], own, strict=True):
            its = list(dict.fromkeys(names.get(id(parameter)) or ([plain_name(own_name)] if own_name else [])))
            if is_lazy(parameter):
                raise InvalidState(
                    f"{its[0] if its else 'a parameter'} has no shape yet: run the lazy module once, and make the "
                    "optimizer then",
                    "UNINITIALIZED",
                )
            dtype = str(parameter.dtype).removeprefix("torch.")
            slots.append(Slot(len(slots), group, tuple(its), tuple(parameter.shape), dtype))
            parameters.append(parameter)
    check_unique((name for slot in slots for name in slot.names), "parameters of the optimizer")
    return slots, parameters


def class_name(value: Any) -> str:
    """The value's class, with its module."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def scheduler_class(scheduler: Any) -> dict[str, Any]:
    """A scheduler's class, and those of the schedulers that it is made of."""
    return {
        "class": class_name(scheduler),
        "parts": [scheduler_class(part) for part in getattr(scheduler, "_schedulers", ())],
    }


def record(optimizer: torch.optim.Optimizer, model: torch.nn.Module | None) -> dict[str, Any]:
    """What a checkpoint keeps of the slots, beside the optimizer's state_dict."""
    slots, _ = live_slots(optimizer, model)
    return {
        "class": class_name(optimizer),
        "names": [list(slot.names) for slot in slots],
        "shapes": [list(slot.shape or ()) for slot in slots],
        "dtypes": [slot.dtype for slot in slots],
    }


def saved_slots(state: Mapping[str, Any], recorded: Mapping[str, Any] | None) -> list[Slot]:
    """The slots of an optimizer's saved state_dict; without names if nobody recorded them.

    Raises:
        InvalidState: what was recorded does not fit the state_dict.
    """
    slots: list[Slot] = []
    for number, group in enumerate(state["param_groups"]):
        own = group.get("param_names") or [""] * len(group["params"])
        for index, own_name in zip(group["params"], own, strict=True):
            # torch.distributed.checkpoint's get_state_dict has names where others have indices.
            name = index if isinstance(index, str) else own_name
            slots.append(Slot(index, number, (plain_name(name),) if name else (), None, ""))
    if recorded is not None:
        columns = [recorded[column] for column in ("names", "shapes", "dtypes")]
        if [slot.index for slot in slots] != list(range(len(slots))) or {len(c) for c in columns} != {len(slots)}:
            raise InvalidState("what is recorded of the optimizer's slots does not fit its state", "MALFORMED_STATE")
        slots = [
            Slot(slot.index, slot.group, tuple(names), tuple(shape), dtype)
            for slot, names, shape, dtype in zip(slots, *columns, strict=True)
        ]
    check_unique((name for slot in slots for name in slot.names), "parameters of the saved optimizer")
    return slots
