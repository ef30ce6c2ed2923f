"""How a checkpoint and live objects fit together: what would be loaded where, found without touching either."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ckptd._encode import is_dtensor
from ckptd._errors import InvalidState
from ckptd._report import Change, Differences, LoadReport
from ckptd._slots import (
    Slot,
    class_name,
    live_slots,
    plain_name,
    plain_state_dict,
    saved_slots,
    scheduler_class,
)

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
# Those that say which moments there are: a group that does not take the saved ones cannot take the moments.
_STRUCTURAL = ("amsgrad", "centered", "momentum")
# Those that torch's optimizers got in the course of time: older checkpoints lack them.
_LATE = frozenset({"foreach", "fused", "maximize", "differentiable", "capturable", "decoupled_weight_decay"})


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
        model: plain names of the model's entries that are loaded.
        slots: saved index of each live slot that gets a state.
        casts: the dtype of the saved parameter, by live slot, where the live one has another.
        sources: for each live group the saved groups of its members.
        whole: for each live group the saved group that has exactly the same members, or None.
        scheduler: the state to load into the scheduler, or None.
        load_optimizer: whether the optimizer is touched.
        load_scaler: likewise the scaler.
        load_rng: likewise the states of the random generators.
    """

    report: LoadReport
    model: set[str] = field(default_factory=set)
    slots: dict[int, Any] = field(default_factory=dict)
    casts: dict[int, str] = field(default_factory=dict)
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
    _refuse_shards(parts)
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
    if parts.scheduler is not None and "scheduler" in saved and "optimizer" not in report.absent:
        _match_scheduler(plan, saved, parts.scheduler, parts.optimizer)
    elif parts.scheduler is not None and "scheduler" in saved:
        report.notes.append("scheduler: left as it is, as the optimizer is")
    if parts.scaler is not None and "scaler" in saved:
        _match_scaler(plan, saved["scaler"], parts.scaler)
    if parts.rng and "rng" in saved:
        plan.load_rng = isinstance(saved["rng"], dict) and {"python", "torch"} <= saved["rng"].keys()
        if not plan.load_rng:
            report.refused.append("rng is not what ckptd.torch.capture saves; load with rng=False")
    return plan


def _refuse_shards(parts: Parts) -> None:
    groups = parts.optimizer.param_groups if parts.optimizer is not None else []
    parameters = [parameter for group in groups for parameter in group["params"]]
    if parts.model is not None:
        parameters += parts.model.parameters()
    if any(is_dtensor(parameter) for parameter in parameters):
        raise InvalidState(
            "the parameters are DTensors (FSDP2, tensor parallel), of which this process has its shards only: load "
            "with torch.distributed.checkpoint and ckptd.dcp.StorageReader",
            "UNSUPPORTED_VALUE",
        )


def _match_scaler(plan: Plan, saved: Any, scaler: Any) -> None:
    live = scaler.state_dict()
    plan.load_scaler = bool(saved) and bool(live)
    if not plan.load_scaler:
        plan.report.notes.append("the GradScaler is left alone: its state is empty, here or in the checkpoint")
    elif not (isinstance(saved, dict) and live.keys() <= saved.keys()):
        plan.report.refused.append("scaler is no GradScaler's state in the checkpoint; load without it")


def _match_model(plan: Plan, saved: Any, model: torch.nn.Module) -> None:
    import torch

    if not isinstance(saved, dict):
        raise InvalidState(f"model is a {type(saved).__name__} in the checkpoint, not a state_dict", "STATE_DIFFERS")
    stored = plain_state_dict(saved)
    live_state = model.state_dict()
    plain_state_dict(live_state)  # its names must be unique, too
    live = {plain_name(name): name for name in live_state}
    report = plan.report.model = Differences()
    report.missing = [name for name in live if name not in stored]
    for name, value in stored.items():
        if name not in live:
            report.unexpected.append(name)
            continue
        here = live_state[live[name]]
        if name.endswith("_extra_state"):
            pass  # whatever the module makes of it
        elif isinstance(value, torch.Tensor) != isinstance(here, torch.Tensor):
            report.reshaped.append(Change(name, _kind(value), _kind(here)))
            continue
        elif isinstance(value, torch.Tensor):
            if value.shape != here.shape:
                report.reshaped.append(Change(name, str(list(value.shape)), str(list(here.shape))))
                continue
            if value.dtype != here.dtype:
                report.dtype_changed.append(Change(name, _dtype(value.dtype), _dtype(here.dtype)))
        report.matched.append(name)
        plan.model.add(name)


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _why_no_guess(saved: Mapping[str, Any], optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> str:
    """Why positions in the optimizer say nothing of which parameter is which; "": nothing speaks against it."""
    names = [plain_name(name) for name in model.state_dict()]
    if [name for name in names if name in saved] != [name for name in saved if name in set(names)]:
        return "its model has them in another order than here"
    here = [id(parameter) for parameter in model.parameters()]
    groups = [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]
    if {key for group in groups for key in group} != set(here):
        return (
            "the optimizer here does not have just the model's parameters, which may be others than it had (save what "
            "ckptd.torch.capture makes, which has their names; or load the optimizer by itself, without the model)"
        )
    if len(groups) == 1 and groups[0] != here:
        return "the optimizer has them in another order than the model"
    return ""


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
        self.model_shapes = _shapes(saved.get("model"))
        self.no_guess = _why_no_guess(self.model_shapes, optimizer, model) if model is not None else ""
        self.is_lbfgs = any(base.__name__ == "LBFGS" for base in type(optimizer).__mro__)
        self.has_other_shapes = self.is_lbfgs or any(b.__name__ == "Adafactor" for b in type(optimizer).__mro__)
        self.differences = Differences()
        self.took_unnamed: set[str] = set()

    def run(self) -> None:
        if self.is_of_another_class():
            return
        pairs = self.by_name() if any(slot.names for slot in self.saved) else self.by_position()
        if pairs is None:
            return
        if not pairs and self.live and self.saved:
            advice = (
                "" if any(slot.names for slot in self.live) else ": say model=, which has the names of the parameters"
            )
            self.refuse(f"none of the optimizer's {len(self.saved)} saved slots is here{advice}")
            return
        self.report.optimizer = self.differences
        self.compare(pairs)
        self.compare_groups()
        # LBFGS has one vector over all parameters: there is nothing to take apart.
        if self.is_lbfgs and not self.report.optimizer_fits:
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
        expected = set(self.optimizer.defaults) - _LATE
        lacking = sorted({name for group in self.state["param_groups"] for name in expected - group.keys()})
        if lacking:
            self.refuse(f"the saved optimizer looks like none of {here}: it has no {', '.join(lacking)}")
        return bool(lacking)

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
        pairs += self.unnamed()
        paired = {id(slot) for pair in pairs for slot in pair}
        self.differences.missing = [name for name in self.differences.missing if name not in self.took_unnamed]
        self.differences.unexpected = [slot.name for slot in self.saved if id(slot) not in paired]
        return sorted(pairs, key=lambda pair: pair[0].index)

    def unnamed(self) -> list[tuple[Slot, Slot]]:
        """Pairs of the slots that nobody named, in order, if all of them are recorded to be alike."""
        live = [slot for slot in self.live if not slot.names]
        saved = [slot for slot in self.saved if not slot.names]
        alike = [(s.group, s.shape, s.dtype) for s in live] == [(s.group, s.shape, s.dtype) for s in saved]
        if not live or not alike:
            return []
        self.took_unnamed = {slot.name for slot in live}
        self.report.notes.append(f"{len(live)} parameters that nobody named were matched by position: a guess")
        return list(zip(live, saved, strict=True))

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
            shapes = [saved.shape] if saved.shape is not None else self.moment_shapes(saved)
            for shape in shapes:
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
        if self.no_guess:
            self.refuse(f"the checkpoint has no names of parameters, and {self.no_guess}")
            return None
        return pairs

    def compare(self, pairs: list[tuple[Slot, Slot]]) -> None:
        """Fills in the differences of the pairs, and which of them get a state."""
        differences = self.differences
        for slot, saved in pairs:
            shapes = [saved.shape] if saved.shape is not None else []
            shapes += [self.model_shapes[name] for name in saved.names if name in self.model_shapes]
            if not shapes and not self.has_other_shapes:
                shapes = self.moment_shapes(saved)
            other = next((shape for shape in shapes if shape != slot.shape), None)
            if other is not None:
                differences.reshaped.append(Change(slot.name, str(list(other)), str(list(slot.shape or ()))))
                continue
            if saved.dtype not in ("", slot.dtype):
                differences.dtype_changed.append(Change(slot.name, saved.dtype, slot.dtype))
                self.plan.casts[slot.index] = saved.dtype
            differences.matched.append(slot.name)
            self.plan.slots[slot.index] = saved.index
        places = {slot.index: place for place, slot in enumerate(self.saved)}
        indices = [places[index] for index in self.plan.slots.values()]
        differences.reordered = [
            self.live[live].name
            for live, index, in_order in zip(self.plan.slots, indices, sorted(indices), strict=True)
            if index != in_order
        ]

    def moment_shapes(self, slot: Slot) -> list[tuple[int, ...]]:
        """The shapes of a slot's state: its tensors' that have dimensions."""
        entry = self.state["state"].get(slot.index, {})
        shapes = (tuple(getattr(value, "shape", ())) for value in entry.values())
        return [shape for shape in shapes if shape]

    def compare_groups(self) -> None:
        saved_groups, live_groups = self.state["param_groups"], self.optimizer.param_groups
        group_of = {slot.index: slot.group for slot in self.saved}
        for number, group in enumerate(live_groups):
            members = [self.plan.slots.get(slot.index) for slot in self.live if slot.group == number]
            sources = sorted({group_of[index] for index in members if index is not None})
            self.plan.sources.append(sources)
            whole = len(sources) == 1 and set(members) == set(saved_groups[sources[0]]["params"])
            same_place = saved_groups[number] if number < len(saved_groups) else {"params": [None]}
            if not group["params"] and not same_place["params"]:  # both empty
                sources, whole = [number], True
            self.plan.whole.append(sources[0] if whole else None)
            if not whole:
                self.drop_other_structure(number, [saved_groups[source] for source in sources])
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

    def drop_other_structure(self, number: int, sources: list[Mapping[str, Any]]) -> None:
        """Moments that a group's own hyper-parameters have no use for, or that it would miss, begin fresh."""
        group = self.optimizer.param_groups[number]
        other = [
            name
            for name in _STRUCTURAL
            if name in group and any(bool(source.get(name)) != bool(group[name]) for source in sources)
        ]
        if other:
            for slot in self.live:
                if slot.group == number:
                    self.plan.slots.pop(slot.index, None)
            self.report.notes.append(
                f"group {number} has another {', '.join(other)} than was saved: its states begin fresh"
            )


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of a saved model's entries, by plain name."""
    if not isinstance(model, dict):
        return {}
    return {plain_name(name): tuple(value.shape) for name, value in model.items() if hasattr(value, "shape")}


def _has_tensor(value: Any) -> bool:
    return hasattr(value, "shape") or (isinstance(value, (list, tuple)) and any(map(_has_tensor, value)))


def _hyperparameter_changes(number: int, saved: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[Change]:
    for name in sorted((saved.keys() | here.keys()) - _NOT_HYPERPARAMETERS):
        old, new = saved.get(name), here.get(name)
        if not _has_tensor(old) and not _has_tensor(new) and old != new:
            texts = (repr(group[name]) if name in group else "nothing" for group in (saved, here))
            yield Change(f"group {number} {name}", *texts)


def _match_scheduler(plan: Plan, saved: Mapping[str, Any], scheduler: Any, optimizer: Any) -> None:
    state, report = saved["scheduler"], plan.report
    was, here = saved.get(SCHEDULER_CLASS), scheduler_class(scheduler)
    if not isinstance(state, dict):
        report.refused.append("scheduler is no state_dict in the checkpoint; load without it")
        return
    if was is not None and was != here:
        names = (_class_text(classes) for classes in (was, here))
        report.refused.append("the scheduler was {} when it was saved, and is {} here; load without it".format(*names))
        return
    live = scheduler.state_dict()
    try:
        if optimizer is None or plan.whole == list(range(len(optimizer.param_groups))):
            _check_lengths(state, live, "scheduler")
            plan.scheduler = state
            return
        if not plan.load_optimizer:
            return  # refused
        regrouped = _Regrouped(plan.sources, len(saved["optimizer"]["param_groups"]), here["class"])
        plan.scheduler = regrouped.state(state, live, "scheduler")
        report.notes.append("the scheduler's lists by group were rearranged for the groups that are here")
    except _CannotRegroup as error:
        report.refused.append(str(error))


def _class_text(classes: Mapping[str, Any]) -> str:
    parts = ", ".join(map(_class_text, classes["parts"]))
    return f"{classes['class']}({parts})" if parts else str(classes["class"])


class _CannotRegroup(Exception):
    pass


def _check_lengths(saved: Mapping[str, Any], live: Mapping[str, Any], path: str) -> None:
    """Whether lists by group, and lists of schedulers, are as long as those that are here."""
    for name, value in saved.items():
        here = live.get(name)
        if name not in _PER_GROUP and name != "_schedulers":
            continue
        if not isinstance(value, (list, tuple)) or not isinstance(here, (list, tuple)) or len(value) != len(here):
            raise _CannotRegroup(f"{path}.{name} is of another length than here; load without the scheduler")
        if name == "_schedulers":
            for number, (inner, inner_here) in enumerate(zip(value, here, strict=True)):
                _check_lengths(inner, inner_here, f"{path}.{number}")


class _Regrouped:
    """Rearranges a scheduler's lists that have an element for each group."""

    def __init__(self, sources: list[list[int]], saved_count: int, scheduler: str) -> None:
        self.sources = sources
        self.saved_count = saved_count
        self.is_torchs = scheduler.startswith("torch.optim.")

    def state(self, saved: Mapping[str, Any], live: Mapping[str, Any], path: str) -> dict[str, Any]:
        return {name: self.value(value, live.get(name), name, f"{path}.{name}") for name, value in saved.items()}

    def value(self, saved: Any, live: Any, name: str, path: str) -> Any:
        if not isinstance(saved, (list, tuple)):
            return saved
        if name == "_schedulers":
            if not isinstance(live, (list, tuple)) or len(live) != len(saved):
                raise _CannotRegroup(f"{path} is of another length than here; load without the scheduler")
            pairs = enumerate(zip(saved, live, strict=True))
            return [self.state(inner, here, f"{path}.{i}") for i, (inner, here) in pairs]
        fits = isinstance(live, (list, tuple)) and (len(saved), len(live)) == (self.saved_count, len(self.sources))
        if name not in _PER_GROUP and not (fits and self.saved_count != len(self.sources)):
            if fits and not self.is_torchs and any(_differ(value, saved[0]) for value in saved):
                raise _CannotRegroup(f"{path} may have an element for each group, or not; load without the scheduler")
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
        if any(_differ(value, values[0]) for value in values):
            raise _CannotRegroup(
                f"{path}: group {group} here has members of saved groups with the values "
                f"{', '.join(map(repr, values))}; load without the scheduler"
            )
        return values[0]


def _differ(a: Any, b: Any) -> bool:
    """Whether two values differ, as far as is known: the bytes of tensors may be still to come."""
    if any(getattr(value, "is_meta", False) for value in (a, b)):
        return False
    return bool(a != b)


def entries_to_load(plan: Plan, saved: Mapping[str, Any], live: Iterable[str]) -> dict[str, Any]:
    """The saved entries that go into the model, by the live names."""
    stored = {plain_name(name): value for name, value in saved.items()}
    return {name: stored[plain_name(name)] for name in live if plain_name(name) in plan.model}
