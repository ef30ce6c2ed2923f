"""Loading a checkpoint into a model, its optimizer and what goes with them."""

from __future__ import annotations

import random
import sys
from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any

from ckptd import _native
from ckptd._decode import decode, describe
from ckptd._errors import InvalidState, OptimizerMismatch
from ckptd._match import SCHEDULER_CLASS, SLOTS, Match, Parts, Plan, make_plan, plain_entries
from ckptd._report import LoadReport
from ckptd._slots import live_slots, plain_path, plain_state_dict

if TYPE_CHECKING:
    import torch

_PARTS = ("model", "optimizer", "scheduler", "scaler", "rng", SLOTS, SCHEDULER_CLASS)
_MAX_COMPONENTS = 64  # of a checkpoint whose components have names


def explain(connection: _native.Client, reference: str, parts: Parts, match: Match) -> LoadReport:
    """What ``load_into`` would find. Reads no payload and changes nothing."""
    return _plan(connection, reference, parts, match)[0].report


def load_into(connection: _native.Client, reference: str, parts: Parts, match: Match, allow_pickle: bool) -> LoadReport:
    """Loads what matches; see ``Client.load_into``."""
    plan, saved = _plan(connection, reference, parts, match)
    report = plan.report
    _refuse(report)
    wanted = [key for key in saved if _is_wanted(key, plan)]
    everything = len(wanted) == len(saved) or len(saved) > _MAX_COMPONENTS
    state = decode(connection.open_restore(report.reference, [] if everything else wanted, []), "cpu", allow_pickle)
    # From here on nothing is asked of the server, and all fits.
    if plan.report.model is not None:
        _load_model(plan, state["model"], parts.model)
    if plan.load_optimizer:
        _load_optimizer(plan, state["optimizer"], parts.optimizer)
    if plan.scheduler is not None:
        parts.scheduler.load_state_dict(plan.scheduler)
    if plan.load_scaler:
        parts.scaler.load_state_dict(state["scaler"])
    if plan.load_rng:
        report.notes += restore_rng(state["rng"])
    report.values = {key: value for key, value in state.items() if key not in _PARTS}
    return report


def _plan(connection: _native.Client, reference: str, parts: Parts, match: Match) -> tuple[Plan, Any]:
    restore = connection.open_restore(reference, [], [])
    found = restore.checkpoint()
    saved = describe(restore)
    return make_plan(f"{found['run']}@{found['epoch']}#{found['version']}", saved, parts, match), saved


def _is_wanted(key: Any, plan: Plan) -> bool:
    wanted = {
        "model": plan.report.model is not None,
        "optimizer": plan.load_optimizer,
        "scaler": plan.load_scaler,
        "rng": plan.load_rng,
    }
    return wanted.get(key, key not in _PARTS)


def _refuse(report: LoadReport) -> None:
    """Raises what keeps the load from being made."""
    if report.match == "by_name" and not report.refused:
        report.notes += [f"{part}: not in the checkpoint, left as it is" for part in report.absent]
        return
    if not report.optimizer_fits:
        advice = "" if report.refused else "\nmatch='by_name' puts each state where its parameter's name is"
        raise OptimizerMismatch(f"the optimizer differs; nothing was loaded:\n{report}{advice}", report)
    if not report.model_fits:
        raise InvalidState(
            f"the model differs; nothing was loaded:\n{report}\nmatch='by_name' loads what has the same name and shape",
            "STATE_DIFFERS",
        )
    if report.absent:
        raise InvalidState(f"the checkpoint lacks {', '.join(report.absent)}; nothing was loaded", "STATE_DIFFERS")


def _load_model(plan: Plan, saved: Any, model: Any) -> None:
    state: OrderedDict[str, Any] = OrderedDict(plain_entries(plan.model, saved))
    versions = getattr(plain_state_dict(saved), "_metadata", {})
    paths = getattr(model.state_dict(), "_metadata", {})
    state._metadata = OrderedDict(  # type: ignore[attr-defined]
        (path, versions[plain_path(path)]) for path in paths if plain_path(path) in versions
    )
    model.load_state_dict(state, strict=False)


def _load_optimizer(plan: Plan, saved: Any, optimizer: Any) -> None:
    """As ``Optimizer.load_state_dict``, but by the plan's slots, and without casting any state."""
    slots, parameters = live_slots(optimizer, None)
    state: defaultdict[Any, Any] = defaultdict(dict)
    for slot, parameter in zip(slots, parameters, strict=True):
        entry = saved["state"].get(plan.slots.get(slot.index))
        if entry is not None:
            group = optimizer.param_groups[slot.group]
            state[parameter] = {name: _to_device(value, name, parameter, group) for name, value in entry.items()}
    groups = []
    for number, live in enumerate(optimizer.param_groups):
        whole = plan.whole[number]
        if whole is not None:
            taken = saved["param_groups"][whole]
        else:
            sources = [saved["param_groups"][source] for source in plan.sources[number]]
            taken = {name: _agreed(name, sources) for name in ("lr", "initial_lr")}
            taken = {name: value for name, value in taken.items() if value is not None}
        kept = {name: live[name] for name in ("params", "param_names") if name in live}
        groups.append({**live, **taken, **kept})
        if "param_names" not in live:
            groups[-1].pop("param_names", None)
    optimizer.__setstate__({"state": state, "param_groups": groups})


def _agreed(name: str, groups: list[Any]) -> Any:
    """The value that all these groups have, or None."""
    values = [group.get(name) for group in groups]
    return values[0] if values and all(bool(value == values[0]) for value in values) else None


def _to_device(value: Any, name: str, parameter: torch.Tensor, group: Any) -> Any:
    """A slot's state where its parameter is; a step count stays on the CPU, where steps are counted unless it is said
    otherwise."""
    import torch

    if isinstance(value, torch.Tensor):
        stays = name == "step" and not (group.get("capturable") or group.get("fused"))
        return value if stays else value.to(parameter.device)
    if isinstance(value, dict):
        return {key: _to_device(member, "", parameter, group) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_device(member, "", parameter, group) for member in value)
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
