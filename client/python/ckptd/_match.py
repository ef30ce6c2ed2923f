"""How a checkpoint and live objects fit together: what would be loaded where, found without touching either."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ckptd._errors import InvalidState
from ckptd._report import Change, Differences, LoadReport
from ckptd._slots import Slot, class_name, live_slots, plain_name, plain_state_dict, saved_slots

if TYPE_CHECKING:
    import torch

Match = Literal["strict", "by_name", "model_only"]

# What ckptd.torch.capture writes beside the parts' own states.
SLOTS = "optimizer_slots"
SCHEDULER_CLASS = "scheduler_class"

# A scheduler's lists with an element for each parameter group.
_PER_GROUP = frozenset(
    {"base_lrs", "_last_lr", "lr_lambdas", "min_lrs", "max_lrs", "base_momentums", "max_momentums", "_min_lrs"}
)
_NOT_HYPERPARAMETERS = frozenset({"params", "param_names"})


@dataclass(frozen=True)
class Parts:
    """The live objects that a checkpoint is loaded into."""

    model: torch.nn.Module | None = None
    optimizer: torch.optim.Optimizer | None = None
    scheduler: Any = None
    scaler: Any = None
    rng: bool = False

    def asked(self) -> list[str]:
        """The names of those that there are."""
        return [name for name, part in vars(self).items() if part is not None and part is not False]


@dataclass
class Plan:
    """What goes where.

    Attributes:
        report: the same for people.
        model: plain names of the model's entries that are loaded, with the live ones.
        slots: saved index of each live slot that gets a state.
        sources: for each live group the saved groups of its members.
        whole: for each live group the saved group that has exactly the same members, or None.
        scheduler: the state to load into the scheduler, or None.
        load_optimizer: whether the optimizer is touched.
        load_scaler: likewise the scaler.
        load_rng: likewise the states of the random generators.
    """

    report: LoadReport
    model: dict[str, str] = field(default_factory=dict)
    slots: dict[int, int] = field(default_factory=dict)
    sources: list[list[int]] = field(default_factory=list)
    whole: list[int | None] = field(default_factory=list)
    scheduler: Any = None
    load_optimizer: bool = False
    load_scaler: bool = False
    load_rng: bool = False


def make_plan(reference: str, saved: Any, parts: Parts, match: Match) -> Plan:
    """Compares a state that ``ckptd.torch.capture`` made, of which only shapes are needed, with live objects.

    Raises:
        InvalidState: the state is not one of named parts; the names of parameters are ambiguous.
    """
    if match not in ("strict", "by_name", "model_only"):
        raise InvalidState(f"match is 'strict', 'by_name' or 'model_only', not {match!r}", "BAD_ARGUMENT")
    if not isinstance(saved, dict):
        raise InvalidState(f"{reference} is a {type(saved).__name__}, not a dict of parts", "STATE_DIFFERS")
    plan = Plan(LoadReport(reference, match))
    report = plan.report
    for part in parts.asked():
        if part not in saved and not (match == "model_only" and part != "model"):
            report.absent.append(part)
    if parts.model is not None and "model" in saved:
        _match_model(plan, saved["model"], parts.model)
    if match == "model_only":
        return plan
    if parts.optimizer is not None and "optimizer" in saved:
        _OptimizerMatch(plan, saved, parts.optimizer, parts.model).run()
    if parts.scheduler is not None and "scheduler" in saved:
        _match_scheduler(plan, saved, parts.scheduler, parts.optimizer)
    if parts.scaler is not None and "scaler" in saved:
        plan.load_scaler = bool(saved["scaler"]) and bool(parts.scaler.state_dict())
        if not plan.load_scaler:
            report.notes.append("the GradScaler is left alone: its state is empty, here or in the checkpoint")
    plan.load_rng = parts.rng and "rng" in saved
    return plan


def _match_model(plan: Plan, saved: Any, model: torch.nn.Module) -> None:
    import torch

    if not isinstance(saved, dict):
        raise InvalidState(f"model is a {type(saved).__name__} in the checkpoint, not a state_dict", "STATE_DIFFERS")
    stored = plain_state_dict(saved)
    live_state = model.state_dict()
    live = dict(zip(plain_state_dict(live_state), live_state, strict=True))
    report = plan.report.model = Differences()
    report.missing = [name for name in live if name not in stored]
    for name, value in stored.items():
        if name not in live:
            report.unexpected.append(name)
            continue
        here = live_state[live[name]]
        if isinstance(value, torch.Tensor) and isinstance(here, torch.Tensor):
            if value.shape != here.shape:
                report.reshaped.append(Change(name, str(list(value.shape)), str(list(here.shape))))
                continue
            if value.dtype != here.dtype:
                report.dtype_changed.append(Change(name, _dtype(value.dtype), _dtype(here.dtype)))
        report.matched.append(name)
        plan.model[name] = live[name]


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class _OptimizerMatch:
    def __init__(
        self, plan: Plan, saved: Mapping[str, Any], optimizer: torch.optim.Optimizer, model: torch.nn.Module | None
    ) -> None:
        self.plan = plan
        self.report = plan.report
        self.state: Any = saved["optimizer"]
        if not (isinstance(self.state, dict) and {"state", "param_groups"} <= self.state.keys()):
            raise InvalidState("optimizer is no optimizer's state_dict in the checkpoint", "STATE_DIFFERS")
        self.recorded = saved.get(SLOTS)
        self.saved = saved_slots(self.state, self.recorded)
        self.optimizer = optimizer
        self.live, _ = live_slots(optimizer, model)
        self.differences = Differences()

    def run(self) -> None:
        if self.is_of_another_class():
            return
        pairs = self.by_name() if any(slot.names for slot in self.saved) else self.by_position()
        if pairs is None:
            return
        self.report.optimizer = self.differences
        self.compare(pairs)
        self.compare_groups()
        # LBFGS has one vector over all parameters: there is nothing to take apart.
        if type(self.optimizer).__name__ == "LBFGS" and not self.report.optimizer_fits:
            self.plan.slots.clear()
            self.report.notes.append("LBFGS keeps one state for all its parameters, which differ: it begins fresh")
        self.plan.load_optimizer = True

    def is_of_another_class(self) -> bool:
        here = class_name(self.optimizer)
        if self.recorded is not None:
            saved = self.recorded["class"]
            if saved != here:
                self.refuse(f"the optimizer was {saved} when it was saved, and is {here} here")
            return bool(saved != here)
        groups = (*self.state["param_groups"], *self.optimizer.param_groups)
        kinds = {frozenset(group) - _NOT_HYPERPARAMETERS - {"initial_lr"} for group in groups}
        if len(kinds) > 1:
            differing = sorted(frozenset.union(*kinds) - frozenset.intersection(*kinds))
            self.refuse(f"the saved optimizer looks like none of {here}: they differ in {', '.join(differing)}")
        return len(kinds) > 1

    def refuse(self, why: str) -> None:
        self.report.refused.append(f"{why}; match='model_only' loads the model, and the optimizer begins fresh")

    def by_name(self) -> list[tuple[Slot, Slot]]:
        """Pairs of a live slot and the saved one of the same name."""
        by_name = {name: slot for slot in self.saved for name in slot.names}
        pairs: list[tuple[Slot, Slot]] = []
        taken: set[int] = set()
        for slot in self.live:
            found = {by_name[name].index: by_name[name] for name in slot.names if name in by_name}
            if len(found) == 1 and not found.keys() & taken:
                taken |= found.keys()
                pairs.append((slot, next(iter(found.values()))))
            else:
                self.differences.missing.append(slot.name)
                if found:  # it was tied otherwise than now
                    self.report.notes.append(
                        f"{', '.join(slot.names)}: one parameter here, and saved as more than one, or the other way "
                        "round; its state begins fresh"
                    )
        self.differences.unexpected = [slot.name for slot in self.saved if slot.index not in taken]
        return pairs

    def by_position(self) -> list[tuple[Slot, Slot]] | None:
        """Pairs by position, where the shapes of all moments agree: a guess. None: refused."""
        self.report.guessed = True
        sizes = [len(group["params"]) for group in self.state["param_groups"]]
        if sizes != [len(group["params"]) for group in self.optimizer.param_groups]:
            self.refuse("the checkpoint has no names of parameters, and its groups have other sizes")
            return None
        pairs = list(zip(self.live, self.saved, strict=True))
        seen = False
        for slot, saved in pairs:
            for shape in _moment_shapes(self.state["state"].get(saved.index, {})):
                seen = True
                if shape != slot.shape:
                    self.refuse(
                        f"the checkpoint has no names of parameters, and at position {slot.index} a state of shape "
                        f"{list(shape)} where {slot.name} here has {list(slot.shape or ())}"
                    )
                    return None
        if not seen:
            self.refuse("the checkpoint has no names of parameters, and no state with their shapes to go by")
            return None
        return pairs

    def compare(self, pairs: list[tuple[Slot, Slot]]) -> None:
        """Fills in the differences of the pairs, and which of them get a state."""
        differences = self.differences
        for slot, saved in pairs:
            shapes = [saved.shape] if saved.shape is not None else []
            if not shapes and type(self.optimizer).__name__ not in ("Adafactor", "LBFGS"):
                shapes = _moment_shapes(self.state["state"].get(saved.index, {}))
            other = next((shape for shape in shapes if shape != slot.shape), None)
            if other is not None:
                differences.reshaped.append(Change(slot.name, str(list(other)), str(list(slot.shape or ()))))
                continue
            if saved.dtype not in ("", slot.dtype):
                differences.dtype_changed.append(Change(slot.name, saved.dtype, slot.dtype))
            differences.matched.append(slot.name)
            self.plan.slots[slot.index] = saved.index
        indices = list(self.plan.slots.values())
        differences.reordered = [
            self.live[live].name
            for live, index, in_order in zip(self.plan.slots, indices, sorted(indices), strict=True)
            if index != in_order
        ]

    def compare_groups(self) -> None:
        saved_groups, live_groups = self.state["param_groups"], self.optimizer.param_groups
        group_of = {slot.index: slot.group for slot in self.saved}
        for number, group in enumerate(live_groups):
            members = [self.plan.slots.get(slot.index) for slot in self.live if slot.group == number]
            sources = sorted({group_of[index] for index in members if index is not None})
            self.plan.sources.append(sources)
            whole = len(sources) == 1 and set(members) == set(saved_groups[sources[0]]["params"])
            self.plan.whole.append(sources[0] if whole else None)
            if not whole and sources:
                where = ", ".join(map(str, sources))
                self.report.groups.append(
                    f"group {number} has not the same members as any saved one (some are of {where})"
                )
            elif not sources and group["params"]:
                self.report.groups.append(f"group {number} has no members that were saved")
            for source in sources[:1] if len(saved_groups) == len(live_groups) or whole else []:
                self.report.hyperparameters += _hyperparameter_changes(number, saved_groups[source], group)
        if len(saved_groups) != len(live_groups):
            self.report.groups.insert(0, f"{len(saved_groups)} groups saved, {len(live_groups)} here")
        elif not self.report.groups and self.plan.whole != list(range(len(live_groups))):
            self.report.groups.append("the groups are in another order")


def _moment_shapes(entry: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """The shapes of a slot's state: its tensors' that have dimensions."""
    shapes = (tuple(getattr(value, "shape", ())) for value in entry.values())
    return [shape for shape in shapes if shape]


def _hyperparameter_changes(number: int, saved: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted((saved.keys() | here.keys()) - _NOT_HYPERPARAMETERS):
        old, new = saved.get(name), here.get(name)
        if not hasattr(old, "shape") and not hasattr(new, "shape") and old != new:
            texts = (repr(group[name]) if name in group else "nothing" for group in (saved, here))
            yield Change(f"group {number} {name}", *texts)


def _match_scheduler(plan: Plan, saved: Mapping[str, Any], scheduler: Any, optimizer: Any) -> None:
    state, report = saved["scheduler"], plan.report
    was, here = saved.get(SCHEDULER_CLASS), class_name(scheduler)
    if was is not None and was != here:
        report.refused.append(f"the scheduler was {was} when it was saved, and is {here} here; load without it")
        return
    if optimizer is None or plan.whole == list(range(len(optimizer.param_groups))):
        plan.scheduler = state
        return
    if not plan.load_optimizer:
        return  # refused, or absent
    try:
        plan.scheduler = _Regrouped(plan.sources, len(saved["optimizer"]["param_groups"])).state(
            state, scheduler.state_dict(), "scheduler"
        )
        report.notes.append("the scheduler's lists by group were rearranged for the groups that are here")
    except _CannotRegroup as error:
        report.refused.append(str(error))


class _CannotRegroup(Exception):
    pass


class _Regrouped:
    """Rearranges a scheduler's lists that have an element for each group."""

    def __init__(self, sources: list[list[int]], saved_count: int) -> None:
        self.sources = sources
        self.saved_count = saved_count

    def state(self, saved: Mapping[str, Any], live: Mapping[str, Any], path: str) -> dict[str, Any]:
        return {name: self.value(value, live.get(name), name, f"{path}.{name}") for name, value in saved.items()}

    def value(self, saved: Any, live: Any, name: str, path: str) -> Any:
        if not isinstance(saved, (list, tuple)):
            return saved
        if name == "_schedulers" and isinstance(live, (list, tuple)) and len(live) == len(saved):
            pairs = enumerate(zip(saved, live, strict=True))
            return [self.state(inner, here, f"{path}.{i}") for i, (inner, here) in pairs]
        fits = isinstance(live, (list, tuple)) and (len(saved), len(live)) == (self.saved_count, len(self.sources))
        if name not in _PER_GROUP and not (fits and self.saved_count != len(self.sources)):
            return saved
        if not fits:
            raise _CannotRegroup(
                f"{path} has {len(saved)} elements, not one for each group; load without the scheduler"
            )
        return type(saved)(self.element(saved, live, group, path) for group in range(len(self.sources)))

    def element(self, saved: Any, live: Any, group: int, path: str) -> Any:
        values = [saved[source] for source in self.sources[group]]
        if not values:
            return live[group]
        if any(value != values[0] for value in values):
            raise _CannotRegroup(
                f"{path}: group {group} here has members of saved groups with the values "
                f"{', '.join(map(repr, values))}; load without the scheduler"
            )
        return values[0]


def plain_entries(names: Mapping[str, str], saved: Mapping[str, Any]) -> dict[str, Any]:
    """The saved entries that go into the model, by live name."""
    return {names[plain_name(name)]: value for name, value in saved.items() if plain_name(name) in names}
