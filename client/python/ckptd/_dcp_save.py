"""Saving with torch.distributed.checkpoint."""

from __future__ import annotations

import os
import re
import secrets
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.checkpoint import storage
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.staging import AsyncStager
from torch.futures import Future

from ckptd import _native
from ckptd._client import Checkpoint, _checkpoint, _What, _what, connect
from ckptd._dcp_encode import PartEncoder
from ckptd._dcp_plan import Ticket, source_of
from ckptd._dcp_stage import Stager
from ckptd._errors import Conflict, InvalidState

_RUN_AND_EPOCH = re.compile(r"([^@]+)@([+-]?[0-9]+)")
_sent: set[tuple[bytes, int]] = set()  # attempts, and the ranks whose parts of them this process has sent


class StorageWriter(storage.StorageWriter, AsyncStager):
    """Saves a state of several ranks as one checkpoint, with ``torch.distributed.checkpoint``.

    For ``async_save`` it is also the stager: it copies the state, once, into memory of the CPU that the next save uses
    again. So keep one writer and give each save its reference, as ``checkpoint_id`` or with ``reset``; ``async_save``
    waits for the one before. Plain values must be the same on all ranks; what belongs to one rank, such as its
    random state, goes under a key of its own. It can be pickled, connects when it is first needed, and holds no
    connection.

    Args:
        reference: RUN@EPOCH.
        address: HOST:PORT of the server; None: see ``ckptd.connect``.
        domain: the domain to work in; None: see ``ckptd.connect``.
        step: the global step.
        metrics: named numbers. All of this is taken from the coordinator, rank 0.
        labels: named texts.
        primary_metric: see ``Client.save``.

    Attributes:
        checkpoint: what the last save made, on rank 0; ``sent_bytes`` counts what rank 0 sent. None before, and when
            another process saves (``AsyncCheckpointerType.PROCESS``).
        sent_bytes: bytes of tensors that this rank sent in its last save.
        cited_bytes: bytes of tensors that this rank had to send and the server had.

    Raises:
        InvalidState: the reference is not RUN@EPOCH.
    """

    _synchronize_after_execute = False  # what stage returns is there already

    def __init__(
        self,
        reference: str,
        *,
        address: str | None = None,
        domain: str | None = None,
        step: int | None = None,
        metrics: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        primary_metric: str = "",
    ) -> None:
        self.address = address
        self.domain = domain
        self.labels = dict(labels or {})
        self.primary_metric = primary_metric
        self.checkpoint: Checkpoint | None = None
        self.sent_bytes = self.cited_bytes = 0
        self._stager = Stager()
        self._local_plan = SavePlan([])
        self._ticket: Ticket | None = None
        self._next: _What | None = None
        self._staged: _What | None = None  # what the save is that was staged and has not begun,
        self._staged_by: int | None = None  # by which thread
        self._saving: _What | None = None
        self._begun = threading.Event()  # the staged save
        self._worker: threading.Thread | None = None  # of the save in the background
        self.reset(reference, step=step, metrics=metrics)

    @property
    def checkpoint_id(self) -> str:
        """The reference, as torch calls it."""
        return _reference(self._next)

    def reset(
        self,
        checkpoint_id: str | os.PathLike[str] | None = None,
        *,
        step: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """What the next save is. ``torch.distributed.checkpoint.save`` calls it with its ``checkpoint_id``.

        Args:
            checkpoint_id: RUN@EPOCH; None changes nothing.
            step: see ``StorageWriter``. With another reference that of the last save is forgotten.
            metrics: see ``StorageWriter``; likewise.

        Raises:
            InvalidState: the reference is not RUN@EPOCH.
        """
        if checkpoint_id is None:
            return
        # torch says again, in the thread of a save that was staged, what async_save was told.
        caller = sys._getframe(1).f_globals.get("__name__", "")
        is_torch = caller.startswith("torch.distributed.checkpoint.") and self._bind()
        reference = os.fspath(checkpoint_id)
        found = _RUN_AND_EPOCH.fullmatch(reference)
        if found is None:
            raise InvalidState(f"'{reference}': a save goes to RUN@EPOCH", "BAD_REFERENCE")
        what = _what(found[1], None, int(found[2]), step, metrics, self.labels, self.primary_metric)
        if is_torch:
            if reference != _reference(self._staged):
                is_next = self._next is self._staged
                self._staged = what
                self._next = what if is_next else self._next
        elif reference != self.checkpoint_id or step is not None or metrics is not None:
            self._next = what

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it is RUN@EPOCH."""
        return _RUN_AND_EPOCH.fullmatch(os.fspath(checkpoint_id)) is not None

    # ---- What torch calls, in this order

    def stage(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Copies the state as it is now; called by ``async_save``, which then returns."""
        self._wait()
        staged = self._stager.stage(state_dict)
        # Its own facts: the caller may go on to the next save before this one begins.
        self._staged, self._staged_by = self._next, threading.get_ident()
        self._begun.clear()
        return staged

    def synchronize_staging(self) -> None:
        """Called by torch where stage returns before it has copied; this one does not."""

    def _bind(self) -> bool:
        """Whether this is the thread in which torch makes the save that was staged."""
        # None: it was pickled for another process.
        if self._staged is None or not (self._staged_by is None or _is_torchs_thread()):
            return False
        self._worker = threading.current_thread()
        self._begun.set()
        return True

    def _wait(self) -> None:
        """Waits for the save that is on its way: two at once would be told each other's facts."""
        if self._staged is not None:
            self._begun.wait(60)  # unless torch has failed before it came that far
        if self._worker not in (None, threading.main_thread(), threading.current_thread()):
            assert self._worker is not None
            self._worker.join()
        self._staged = self._worker = None

    def storage_meta(self) -> None:
        """Called on all ranks, first."""
        if self._bind():
            return
        if _is_torchs_thread():
            raise InvalidState(
                "async_save has not staged the state with this writer, so it cannot know which save this is: leave "
                "async_stager out, the writer is one",
                "NOT_STAGED",
            )
        self._wait()

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Called on all ranks."""
        if not kwargs.get("use_collectives", True):
            raise InvalidState(
                "with use_collectives=False ranks cannot meet, and a checkpoint here is one of all ranks: leave it out",
                "NO_COLLECTIVES",
            )
        self._ticket = None
        self._saving, self._staged = (self._staged if self._bind() else None) or self._next, None

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Called on all ranks."""
        self._local_plan = plan
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Called on the coordinator: draws the attempt's key, which goes to the ranks in their plans."""
        assert self._saving is not None
        key = secrets.token_bytes(16)
        tickets = [Ticket(key, rank, len(plans), self._saving) for rank in range(len(plans))]
        self._ticket = tickets[0]
        return [replace(plan, storage_data=ticket) for plan, ticket in zip(plans, tickets, strict=True)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[storage.WriteResult]]:
        """Called on all ranks: sends what this rank has to. When it returns that is durable, and not yet visible."""
        ticket = self._ticket_of(plan)
        local = self._local_plan
        # The planner has found that it is the last one again.
        if not local.usable and isinstance(planner, DefaultSavePlanner):
            local = planner._cached_save_plan.get(planner._cached_plans_key, local)
        planned = {item.index.fqn: item.tensor_data for item in local.items if item.tensor_data is not None}
        source = source_of(planner, plan)
        encoder = PartEncoder(source, plan, planner, planned, ticket.rank == 0)
        try:
            with torch.no_grad():
                part = encoder.run(source.tree)
            saved = self._connect().save_part(
                part.builder, *ticket.what, ticket.attempt_key, ticket.rank, ticket.world_size
            )
        finally:
            self._stager.give_back(encoder.memory)
        self.sent_bytes, self.cited_bytes = saved["sent_bytes"], saved["cited_bytes"]
        done: Future[list[storage.WriteResult]] = Future()
        done.set_result([storage.WriteResult(item.index, encoder.sent.get(id(item), 0), None) for item in plan.items])
        return done

    def finish(self, metadata: Metadata, results: list[list[storage.WriteResult]]) -> None:
        """Called on the coordinator, once all ranks' ``write_data`` have returned: makes the checkpoint visible."""
        ticket = self._ticket
        assert ticket is not None
        coordinator = ticket.world_size
        saved = self._connect().save_part(None, *ticket.what, ticket.attempt_key, coordinator, ticket.world_size)
        waiting = saved.pop("waiting")
        if waiting:
            raise Conflict(
                f"the save is not complete: ranks {', '.join(map(str, waiting))} have not finished their parts, or "
                "began them anew; save again",
                "RANKS_MISSING",
            )
        self.checkpoint = _checkpoint(saved | {"sent_bytes": self.sent_bytes, "cited_bytes": self.cited_bytes})

    def close(self) -> None:
        """Gives the memory of copies back."""
        self._stager = Stager()

    def _ticket_of(self, plan: SavePlan) -> Ticket:
        ticket = plan.storage_data
        if not isinstance(ticket, Ticket):
            raise InvalidState(
                "the planner has lost plan.storage_data, by which the ranks of a save meet: its create_global_plan and "
                "finish_plan must leave it in the plan",
                "NO_TICKET",
            )
        is_ours = self._ticket is None or self._ticket.attempt_key == ticket.attempt_key
        if not is_ours or (ticket.attempt_key, ticket.rank) in _sent:
            raise InvalidState(
                "the planner's cached plan belongs to an earlier save: torch's enable_plan_caching loses what the "
                "ranks of a save meet by; use ckptd.dcp.SavePlanner(enable_plan_caching=True), or no caching",
                "STALE_PLAN",
            )
        _sent.add((ticket.attempt_key, ticket.rank))
        return ticket

    def _connect(self) -> _native.Client:
        return connect(self.address, domain=self.domain)._connection()

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in vars(self).items() if name not in ("_begun", "_worker")}
        self._begun.set()  # it may go on in another process, which this one does not wait for
        return kept | {"_local_plan": SavePlan([]), "_ticket": None, "_staged_by": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begun, self._worker = threading.Event(), None


def _is_torchs_thread() -> bool:
    """Whether async_save has started this thread."""
    return threading.current_thread().name.startswith(("AsyncCheckpointExecutor", "ThreadPoolExecutor"))


def _reference(what: _What | None) -> str:
    return f"{what[0]}@{what[1]}" if what is not None else ""
