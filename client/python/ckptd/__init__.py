"""ckptd: checkpoints on a server that stores every chunk once.

    import ckptd

    ckptd.save(state, "resnet@3", metrics={"val_acc": 0.91})
    state = ckptd.load("resnet:best")

The server's address is in the environment's CKPT_SERVER; ``ckptd.connect`` makes clients of others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ckptd._background import SaveHandle
from ckptd._client import Best, Checkpoint, Client, Run, connect, load, save
from ckptd._errors import (
    Conflict,
    DataLoss,
    Error,
    InvalidState,
    NotFound,
    OptimizerMismatch,
    PermissionDenied,
    Unavailable,
)
from ckptd._native import __version__

if TYPE_CHECKING:
    from ckptd import dcp as dcp
    from ckptd import torch as torch

__all__ = [
    "Best",
    "Checkpoint",
    "Client",
    "Conflict",
    "DataLoss",
    "Error",
    "InvalidState",
    "NotFound",
    "OptimizerMismatch",
    "PermissionDenied",
    "Run",
    "SaveHandle",
    "Unavailable",
    "__version__",
    "connect",
    "load",
    "save",
]


def __getattr__(name: str) -> Any:
    if name in ("dcp", "torch"):  # these import PyTorch
        try:
            return importlib.import_module(f"ckptd.{name}")
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ModuleNotFoundError(f"ckptd.{name} needs PyTorch: pip install torch", name="torch") from error
    raise AttributeError(f"module 'ckptd' has no attribute {name!r}")
