"""What belongs to PyTorch: a trainer's whole state as one, to be loaded by the names of its parameters.

state = ckptd.torch.capture(model=model, optimizer=optimizer, scheduler=scheduler, epoch=3)
client.save("resnet", state)
report = client.load_into("resnet:latest", model=model, optimizer=optimizer, scheduler=scheduler)
"""

from __future__ import annotations

from typing import Any

import torch

from ckptd._errors import InvalidState
from ckptd._load_into import _PARTS, capture_rng
from ckptd._match import SCHEDULER_CLASS, SLOTS
from ckptd._report import Change, Differences, LoadReport
from ckptd._slots import plain_state_dict, record, scheduler_class

__all__ = ["Change", "Differences", "LoadReport", "capture"]


def capture(
    *,
    model: torch.nn.Module | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: Any = None,
    scaler: Any = None,
    rng: bool = True,
    **values: Any,
) -> dict[str, Any]:
    """A trainer's state as one dict, to be saved, and loaded with ``Client.load_into``.

    It holds the objects' own state_dicts under their arguments' names, so that each can also be restored and loaded
    without ckptd, and besides, under "optimizer_slots", the name, shape and dtype of the parameter of each slot of the
    optimizer, and its class. Names are those of ``model.named_parameters``, without what wrappers
    (DistributedDataParallel, ``torch.compile``, activation checkpointing) put into them; the model's entries have the
    same names. Tensors are the objects' own, not copies.

    Args:
        model: the model.
        optimizer: its optimizer; names come from the model, for parameters outside it from ``param_names``.
        scheduler: anything with ``state_dict`` and ``load_state_dict``.
        scaler: a ``torch.amp.GradScaler``.
        rng: whether to take the states of Python's, numpy's (if it is imported) and PyTorch's random generators.
        **values: what else to keep: ``epoch=3, best_accuracy=0.91``.

    Raises:
        InvalidState: two parameters have the same name; a value has the name of a part.
    """
    state: dict[str, Any] = {}
    if model is not None:
        state["model"] = plain_state_dict(model.state_dict())
    if optimizer is not None:
        state["optimizer"] = optimizer.state_dict()
        state[SLOTS] = record(optimizer, model)
    if scheduler is not None:
        state["scheduler"] = scheduler.state_dict()
        state[SCHEDULER_CLASS] = scheduler_class(scheduler)
    if scaler is not None:
        state["scaler"] = scaler.state_dict()
    if rng:
        state["rng"] = capture_rng()
    for name, value in values.items():
        if name in _PARTS:
            raise InvalidState(f"{name} is the name of a part; give the value another", "BAD_ARGUMENT")
        state[name] = value
    return state
