"""Loading a checkpoint into a model, its optimizer and what goes with them."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ckptd import _native
from ckptd._decode import decode, describe
from ckptd._errors import Error, InvalidState, OptimizerMismatch
from ckptd._match import SCHEDULER_CLASS, SLOTS, Match, Parts, Plan, entries_to_load, make_plan
from ckptd._report import LoadReport
from ckptd._slots import live_slots, plain_path, plain_state_dict

if TYPE_CHECKING:
    import torch

_PARTS = ("model", "optimizer", "scheduler", "scaler", "rng", SLOTS, SCHEDULER_CLASS)
_BY_NAME = "match='by_name' loads what has the same name and shape"
_MAX_COMPONENTS = 64  # of a checkpoint whose components have names


def explain(connection: _native.Client, reference: str, parts: Parts, match: Match) -> LoadReport:
    """What ``load_into`` would find. Reads no payload and changes nothing."""
    return _plan(connection, reference, parts, match)[0].report


def load_into(connection: _native.Client, reference: str, parts: Parts, match: Match, allow_pickle: bool) -> LoadReport:
    """Loads what matches; see ``Client.load_into``."""
    plan, described = _plan(connection, reference, parts, match)
    _refuse(plan.report)
    wanted = [key for key in described if _is_wanted(key, plan)]
    everything = (
        len(wanted) == len(described)
        or len(described) > _MAX_COMPONENTS
        or not all(isinstance(key, str) for key in described)
    )
    exact = plan.report.reference
    saved = decode(connection.open_restore(exact, [] if everything else wanted, []), "cpu", allow_pickle)
    # Once more, with the values of what was only described: a scheduler's, a learning rate that is a tensor.
    plan = make_plan(exact, {**described, **saved}, parts, match)
    report = plan.report
    _refuse(report)
    _apply(plan, saved, parts)
    report.values = {key: value for key, value in saved.items() if key not in _PARTS}
    return report


def _apply(plan: Plan, saved: Any, parts: Parts) -> None:
    """Loads everything. What fails is put back as it was, but for the model."""
    undo = _Undo(plan, parts)
    try:
        if plan.load_optimizer:
            _load_optimizer(plan, saved["optimizer"], parts.optimizer)
        if plan.scheduler is not None:
            parts.scheduler.load_state_dict(plan.scheduler)
        if plan.load_scaler:
            parts.scaler.load_state_dict(saved["scaler"])
    except BaseException:
        undo()
        raise
    if plan.report.model is not None:
        try:
            _load_model(plan, saved["model"], parts.model)
        except BaseException as error:
            undo()
            raise Error(f"the model could not be loaded, and is torn: part of it may have been ({error})") from error
    if plan.load_rng:
        plan.report.notes += restore_rng(saved["rng"])


class _Undo:
    """Puts the optimizer, the scheduler and the scaler back as they were."""

    def __init__(self, plan: Plan, parts: Parts) -> None:
        self.parts = parts
        self.optimizer = None
        if plan.load_optimizer:
            optimizer: Any = parts.optimizer
            self.optimizer = dict(optimizer.state), [dict(group) for group in optimizer.param_groups]
        self.schedulers = list(_members(parts.scheduler)) if plan.scheduler is not None else []
        self.attributes = [dict(vars(scheduler)) for scheduler in self.schedulers]
        self.scaler = parts.scaler.state_dict() if plan.load_scaler else None

    def __call__(self) -> None:
        if self.optimizer is not None:
            optimizer: Any = self.parts.optimizer
            state, groups = self.optimizer
            optimizer.state.clear()
            optimizer.state.update(state)
            optimizer.param_groups[:] = groups
        for scheduler, attributes in zip(self.schedulers, self.attributes, strict=True):
            vars(scheduler).clear()
            vars(scheduler).update(attributes)
        if self.scaler is not None:
            self.parts.scaler.load_state_dict(self.scaler)


def _members(scheduler: Any) -> Iterator[Any]:
    yield scheduler
    for inner in getattr(scheduler, "_schedulers", ()):
        yield from _members(inner)


def _plan(connection: _native.Client, reference: str, parts: Parts, match: Match) -> tuple[Plan, Any]:
    restore = connection.open_restore(reference, [], [])
    restore.pause()  # no more is read than the description
    found = restore.checkpoint()
    saved = describe(restore)
    return make_plan(f"{found['run']}@{found['epoch']}#{found['version']}", saved, parts, match), saved


def _is_wanted(key: Any, plan: Plan) -> bool:
    wanted = {
        "model": plan.report.model is not None,
        "optimizer": plan.load_optimizer,
        "scheduler": plan.scheduler is not None,
        "scaler": plan.load_scaler,
        "rng": plan.load_rng,
    }
    return wanted.get(key, key not in _PARTS)


def _refuse(report: LoadReport) -> None:
    """Raises what keeps the load from being made."""
    nothing_fits = report.model is not None and not report.model.matched and not report.model.exact
    if report.match == "by_name" and not (report.refused or nothing_fits or "model" in report.absent):
        report.notes += [f"{part}: not in the checkpoint, left as it is" for part in report.absent]
        return
    if not report.optimizer_fits and not (report.match == "by_name" and not report.refused):
        advice = "" if report.refused else "\nmatch='by_name' puts each state where its parameter's name is"
        raise OptimizerMismatch(f"the optimizer differs; nothing was loaded:\n{report}{advice}", report)
    if not report.model_fits:
        raise InvalidState(
            f"the model differs; nothing was loaded:\n{report}\n{'' if nothing_fits else _BY_NAME}",
            "STATE_DIFFERS",
        )
    if report.absent:
        raise InvalidState(f"the checkpoint lacks {', '.join(report.absent)}; nothing was loaded", "STATE_DIFFERS")


def _load_model(plan: Plan, saved: Any, model: Any) -> None:
    live = model.state_dict()
    state: OrderedDict[str, Any] = OrderedDict(entries_to_load(plan, saved, live))
    versions = getattr(plain_state_dict(saved), "_metadata", {})
    paths = getattr(live, "_metadata", {})
    state._metadata = OrderedDict(  # type: ignore[attr-defined]
        (path, versions[plain_path(path)]) for path in paths if plain_path(path) in versions
    )
    model.load_state_dict(state, strict=plan.report.match != "by_name")


def _load_optimizer(plan: Plan, saved: Any, optimizer: Any) -> None:
    """As ``Optimizer.load_state_dict``, but by the plan's slots, and without casting any state."""
    import torch

    slots, parameters = live_slots(optimizer, None)
    groups = [_group(plan, saved, number, live) for number, live in enumerate(optimizer.param_groups)]
    states: dict[int, Any] = {}
    for slot, parameter in zip(slots, parameters, strict=True):
        entry = saved["state"].get(plan.slots[slot.index]) if slot.index in plan.slots else None
        if entry is not None:
            cast = plan.casts.get(slot.index, "")
            place = _Place(parameter, groups[slot.group], getattr(torch, cast) if cast else None)
            states[slot.index] = {name: place.put(value, name) for name, value in entry.items()}
    indices = {index for group in saved["param_groups"] for index in group["params"]}
    others = {key: value for key, value in saved["state"].items() if key not in indices}  # of no parameter
    if _is_plain(optimizer):
        state: defaultdict[Any, Any] = defaultdict(dict, others)
        state.update((parameters[index], entry) for index, entry in states.items())
        optimizer.__setstate__({"state": state, "param_groups": groups})
        return
    # Its own load_state_dict knows better what there is, but casts states.
    numbers = iter(range(len(slots)))
    numbered = [{**group, "params": [next(numbers) for _ in group["params"]]} for group in groups]
    optimizer.load_state_dict({**saved, "state": {**others, **states}, "param_groups": numbered})
    for index, entry in states.items():
        optimizer.state[parameters[index]].update(entry)


def _is_plain(optimizer: Any) -> bool:
    """Whether torch's own load_state_dict is what loads it."""
    import torch

    own, kind = torch.optim.Optimizer, type(optimizer)
    hooks = (*optimizer._optimizer_load_state_dict_pre_hooks, *optimizer._optimizer_load_state_dict_post_hooks)
    properties = [isinstance(getattr(kind, name, None), property) for name in ("state", "param_groups")]
    return kind.load_state_dict is own.load_state_dict and not hooks and not any(properties)


def _group(plan: Plan, saved: Any, number: int, live: Any) -> dict[str, Any]:
    """A live group with the hyper-parameters that it takes."""
    whole = plan.whole[number]
    if whole is not None:
        taken = saved["param_groups"][whole]
    else:
        sources = [saved["param_groups"][source] for source in plan.sources[number]]
        taken = {name: _agreed(name, sources) for name in ("lr", "initial_lr")}
        taken = {name: value for name, value in taken.items() if value is not None}
    # A tensor goes where the live one is, each group's by itself.
    taken = {name: _like(value, live.get(name)) for name, value in taken.items()}
    kept = {name: live[name] for name in ("params", "param_names") if name in live}
    group = {**live, **taken, **kept}
    if "param_names" not in live:
        group.pop("param_names", None)
    return group


def _like(value: Any, live: Any) -> Any:
    import torch

    if not isinstance(value, torch.Tensor):
        return value
    return value.clone().to(live.device) if isinstance(live, torch.Tensor) else value.clone()


def _agreed(name: str, groups: list[Any]) -> Any:
    """The value that all these groups have, or None."""
    values = [group.get(name) for group in groups]
    return values[0] if values and all(bool(value == values[0]) for value in values) else None


class _Place:
    """Where a slot's state goes: to its parameter."""

    def __init__(self, parameter: torch.Tensor, group: Any, saved_dtype: torch.dtype | None) -> None:
        self.parameter = parameter
        self.keeps_steps_here = not (group.get("capturable") or group.get("fused"))
        self.saved_dtype = saved_dtype  # the saved parameter's, if the live one has another

    def put(self, value: Any, name: str = "") -> Any:
        import torch

        if isinstance(value, torch.Tensor):
            if name == "step":  # counted on the CPU, unless it is said otherwise
                return value if self.keeps_steps_here else value.to(self.parameter.device)
            # A moment of its parameter's dtype and layout goes on so; one of another dtype was meant to have it.
            dtype = self.parameter.dtype if value.dtype == self.saved_dtype else value.dtype
            if value.shape == self.parameter.shape and value.stride() != self.parameter.stride():
                return torch.empty_like(self.parameter, dtype=dtype, requires_grad=False).copy_(value)
            return value.to(self.parameter.device, dtype)
        if isinstance(value, dict):
            return {key: self.put(member) for key, member in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(self.put(member) for member in value)
        return value


def capture_rng() -> dict[str, Any]:
    """The states of the random generators that the process has: Python's, numpy's, PyTorch's, CUDA's."""
    import torch

    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        state["numpy"] = sys.modules["numpy"].random.get_state()
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_rng(state: dict[str, Any]) -> list[str]:
    """Sets them again; returns what was left alone, and why."""
    import torch

    notes = []
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        import numpy

        numpy.random.set_state(state["numpy"])
    if "cuda" in state:
        if len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
        else:
            notes.append(
                f"rng: CUDA's is left alone: {len(state['cuda'])} devices saved, {torch.cuda.device_count()} here"
            )
    return notes
