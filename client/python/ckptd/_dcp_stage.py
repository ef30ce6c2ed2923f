"""Copies of states for saves in the background, into memory that is used again."""

from __future__ import annotations

import argparse
import sys
import threading
from collections import Counter, OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.tensor import DTensor

from ckptd._background import Copies
from ckptd._dcp_encode import TENSOR_TYPES, local_refusal_of
from ckptd._errors import InvalidState

if TYPE_CHECKING:
    import numpy as np

_MAPPINGS = frozenset((dict, OrderedDict, defaultdict, Counter))


class Stager:
    """Copies states. Thread-safe; pickled it is a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spare: list[_State] = []
        self._used: list[_State] = []

    def stage(self, state: dict[str, Any]) -> dict[str, Any]:
        """A copy of the state as it is now, on the CPU: the same types, and what shares memory still does."""
        with self._lock:
            copies = self._spare.pop() if self._spare else _State()
        staged = copies.state(state)
        with self._lock:
            self._used.append(copies)
            del self._used[:-2]  # of saves that failed: their memory goes when nothing shows it any more
        return staged

    def give_back(self, addresses: set[int]) -> None:
        """The copy that has memory at these addresses is not needed any more."""
        with self._lock:
            for copies in self._used:
                if copies.is_at(addresses):
                    self._used.remove(copies)
                    copies.give_back()
                    self._spare = [copies]
                    return

    def __reduce__(self) -> Any:
        return Stager, ()


class _State(Copies):
    """One copy."""

    def __init__(self) -> None:
        super().__init__()
        self._memory: dict[int, torch.UntypedStorage] = {}  # by what it is a copy of

    def state(self, state: dict[str, Any]) -> dict[str, Any]:
        self._memory.clear()
        try:
            staged: dict[str, Any] = self._copied(state, {})
        except RecursionError as error:
            raise InvalidState(
                "the state contains itself, or is nested too deeply to be copied", "UNSUPPORTED_VALUE"
            ) from error
        self.copy()
        return staged

    def _copied(self, value: Any, made: dict[int, Any]) -> Any:
        """A copy of all that can change. Values of types that no state can have stay, for the save to refuse them."""
        kind = type(value)
        if kind in _MAPPINGS:
            out = value.copy()
            for key, member in value.items():
                out[key] = self._copied(member, made)
            for name, member in getattr(value, "__dict__", {}).items():
                setattr(out, name, self._copied(member, made))
            return out
        if kind is list or kind is tuple:
            return kind([self._copied(member, made) for member in value])
        if kind is argparse.Namespace:
            return kind(**{name: self._copied(member, made) for name, member in vars(value).items()})
        if kind is set or kind is bytearray:
            return kind(value)
        if _is_plain(value) or _is_array(value):
            if id(value) not in made:
                made[id(value)] = self._tensor(value) if isinstance(value, torch.Tensor) else value.copy(order="K")
            return made[id(value)]
        return value

    def is_at(self, addresses: set[int]) -> bool:
        return any(memory.data_ptr() in addresses for memory in self._memory.values() if memory.nbytes())

    def give_back(self) -> None:
        self._memory.clear()
        super().give_back()

    def _tensor(self, value: torch.Tensor) -> torch.Tensor:
        local = value._local_tensor if isinstance(value, DTensor) else value
        memory = self._copy_of(local.untyped_storage())
        out = torch.empty(0, dtype=local.dtype, device="cpu")
        out.set_(memory, local.storage_offset(), local.shape, local.stride())
        out = out.conj() if local.is_conj() else out
        out = torch._neg_view(out) if local.is_neg() else out
        if isinstance(value, DTensor):
            out = DTensor(out, value._spec, requires_grad=False)  # type: ignore[no-untyped-call]
        if isinstance(value, torch.nn.Parameter):
            return torch.nn.Parameter(out, value.requires_grad)
        out.requires_grad_(value.requires_grad)
        return out

    def _copy_of(self, memory: torch.UntypedStorage) -> torch.UntypedStorage:
        made = self._memory.get(memory._cdata)
        if made is None:
            size = memory.nbytes()
            if size == 0:
                made = torch.UntypedStorage(0)  # type: ignore[no-untyped-call]
            elif memory.device.type == "cpu":
                self.place(memory.data_ptr(), size)
                made = _storage(self._used[-1])
            else:
                made = _storage(self.take(size))
                _bytes(made).copy_(_bytes(memory))
            self._memory[memory._cdata] = made
        return made


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def _is_plain(value: Any) -> bool:
    """Whether it is a tensor that shows memory, and no more than that."""
    if type(value) not in TENSOR_TYPES:
        return False
    local = value._local_tensor if isinstance(value, DTensor) else value
    return local_refusal_of(local) is None


def _storage(memory: np.ndarray[Any, Any]) -> torch.UntypedStorage:
    return torch.from_numpy(memory).untyped_storage()


def _bytes(memory: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=memory.device).set_(memory)
