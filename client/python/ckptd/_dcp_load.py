"""Loading with torch.distributed.checkpoint."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any

from torch.distributed.checkpoint import storage
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.futures import Future

from ckptd._client import connect
from ckptd._dcp_read import OpenCheckpoint
from ckptd._errors import Error, InvalidState


class StorageReader(storage.StorageReader):
    """Loads a checkpoint with ``torch.distributed.checkpoint``, whoever saved it and on however many ranks.

    Bytes go from the network straight into the tensors where they are on the CPU, of the dtype that was saved and with
    elements in the same order; else they are copied there. Ranks read only what they need, and all the same version. It
    connects when it is first needed.

    Args:
        reference: see ``Client.restore``.
        address: HOST:PORT of the server; None: see ``ckptd.connect``.
        domain: the domain to work in; None: see ``ckptd.connect``.
    """

    def __init__(self, reference: str, *, address: str | None = None, domain: str | None = None) -> None:
        self.address = address
        self.domain = domain
        self.checkpoint_id = reference
        self._open: OpenCheckpoint | None = None
        self._failure: Error | None = None

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """What is loaded next. ``torch.distributed.checkpoint.load`` calls it with its ``checkpoint_id``.

        Args:
            checkpoint_id: a reference; None changes nothing.
        """
        if checkpoint_id is not None:
            self.checkpoint_id = os.fspath(checkpoint_id)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it looks like a reference: RUN@EPOCH, RUN:latest, …"""
        return re.fullmatch(r"[^@:]+[@:].+", os.fspath(checkpoint_id)) is not None

    # ---- What torch calls, in this order

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The checkpoint's description, as torch's default planner would have made it of the same state.

        Raises:
            NotFound: there is no such checkpoint.
            InvalidState: torch cannot address what is in it.
        """
        if "rank" in kwargs and self._failure is not None:
            return Metadata({})  # torch has only logged it, and asks for a description of this rank's own
        self._failure = None
        try:
            self._open = self._opened(self.checkpoint_id)
            return self._open.metadata()
        except Error as error:
            self._failure = error
            raise

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Called on all ranks."""
        if self._failure is not None:
            raise self._failure

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Called on all ranks."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Called on the coordinator: all ranks load the version that it has found."""
        assert self._open is not None
        return [replace(plan, storage_data=self._open.reference) for plan in plans]

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Called on all ranks: everything is loaded when it returns."""
        opened, self._open = self._open, None
        reference = plan.storage_data
        if not isinstance(reference, str):
            raise InvalidState(
                "the planner has lost plan.storage_data, by which all ranks load one version: its create_global_plan "
                "and finish_plan must leave it in the plan",
                "NO_TICKET",
            )
        if opened is None or opened.reference != reference:
            opened = self._opened(reference)
        opened.read(plan, planner)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _opened(self, reference: str) -> OpenCheckpoint:
        return OpenCheckpoint(
            connect(self.address, domain=self.domain)._connection().open_restore(reference, [], [], compare=True)
        )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_open": None, "_failure": None}
