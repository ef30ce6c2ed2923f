"""The client: runs, checkpoints, and states that go in and come back."""

from __future__ import annotations

import datetime
import os
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ckptd import _background, _native
from ckptd._background import Background, Copies, Job, SaveHandle
from ckptd._decode import decode
from ckptd._encode import encode
from ckptd._errors import Error, InvalidState
from ckptd._restore_into import restore_into

if TYPE_CHECKING:
    import torch

    from ckptd._match import Match
    from ckptd._report import LoadReport


@dataclass(frozen=True)
class Checkpoint:
    """A version of a run's state at an epoch.

    Attributes:
        run: the run's name.
        epoch: the epoch.
        version: 1 for the first save of this epoch, 2 for the next, …
        step: the global step, if the trainer gave one.
        metrics: by name.
        labels: by key.
        tags: names that point to it.
        components: the state's top-level keys; empty where it has none, or more than 64.
        tensor_count: how many tensors it has, views among them.
        logical_bytes: bytes of all its tensors, each counted once.
        new_bytes: bytes that this save added to the store.
        world_size: how many trainers saved it together.
        create_time: when it was committed, by the server's clock, in UTC.
        sent_bytes: bytes of tensors of 4 KiB and more that crossed the wire (smaller ones are part of the description);
            None unless this is what a save returned.
        cited_bytes: bytes of such tensors that the server had; None likewise.
        stats: what it took to find that out, in bytes of such tensors: ``fingerprinted_bytes`` (all that is sent, and
            of tensors that this process has saved or restored before) and ``hashed_bytes`` (of tensors that it does
            not know, when the server has a few that were tried); None likewise.
    """

    run: str
    epoch: int
    version: int
    step: int | None
    metrics: Mapping[str, float]
    labels: Mapping[str, str]
    tags: tuple[str, ...]
    components: tuple[str, ...]
    tensor_count: int
    logical_bytes: int
    new_bytes: int
    world_size: int
    create_time: datetime.datetime
    sent_bytes: int | None = None
    cited_bytes: int | None = None
    stats: Mapping[str, int] | None = None

    @property
    def reference(self) -> str:
        """What names exactly this version: ``RUN@EPOCH#VERSION``."""
        return f"{self.run}@{self.epoch}#{self.version}"


@dataclass(frozen=True)
class Best:
    """A run's best checkpoint by its primary metric."""

    metric: str
    value: float
    epoch: int
    version: int


@dataclass(frozen=True)
class Run:
    """A training run.

    Attributes:
        name: its name.
        checkpoint_count: how many checkpoints are visible.
        latest_epoch: the epoch of the checkpoint committed last.
        best: the best by the primary metric, if it has one.
        logical_bytes: sum of its checkpoints' ``logical_bytes``.
        stored_bytes: sum of its checkpoints' ``new_bytes``.
        create_time: when its first checkpoint was committed, in UTC.
        update_time: when its last one was, in UTC.
    """

    name: str
    checkpoint_count: int
    latest_epoch: int
    best: Best | None
    logical_bytes: int
    stored_bytes: int
    create_time: datetime.datetime
    update_time: datetime.datetime


def _time(micros: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(microseconds=micros)


def _checkpoint(fields: dict[str, Any]) -> Checkpoint:
    return Checkpoint(create_time=_time(fields.pop("create_time_us")), **fields)


def _run(fields: dict[str, Any]) -> Run:
    best, created, updated = (fields.pop(name) for name in ("best", "create_time_us", "update_time_us"))
    return Run(best=Best(**best) if best else None, create_time=_time(created), update_time=_time(updated), **fields)


class Client:
    """A connection to a ckptd. Thread-safe; calls of several threads run at once.

    A process that was forked from one that has made a client (a DataLoader's worker) can use none: gRPC does not live
    through a fork. One that was spawned can.

    Args:
        address: HOST:PORT of the server.
        domain: the dedup, access and quota boundary to work in.
        retry_s: seconds for which a call is retried while the server cannot be reached, counted from its last progress.

    Raises:
        InvalidState: the address is malformed.
    """

    def __init__(self, address: str, domain: str = "default", retry_s: float = 30) -> None:
        _check_text("address", address)
        _check_text("domain", domain)
        _check_seconds(retry_s)
        if _alive.is_forked:
            raise _forked()
        self.address = address
        self._native: _native.Client | None = _native.Client(address, domain, retry_s)
        self._background: Background[Checkpoint] = Background()
        _alive.add(self)

    def _connection(self) -> _native.Client:
        if self._native is None:
            raise _forked()
        self._background.raise_failure()
        return self._native

    def save(
        self,
        run: str,
        state: Any,
        epoch: int | None = None,
        step: int | None = None,
        metrics: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        primary_metric: str = "",
        opaque: str | None = None,
    ) -> Checkpoint:
        """Saves a state as a checkpoint of the run; durable when it returns.

        Only what the server does not have crosses the wire. Tensors on the CPU are read where they are: nobody may
        change them until this returns.

        Args:
            run: the run's name; it is made if it is not there.
            state: any tree of dicts, lists, tuples, plain values, tensors and arrays.
            epoch: the epoch; None takes ``state["epoch"]``.
            step: the global step; None takes ``state["step"]`` or ``state["global_step"]``, if that is an int.
            metrics: named numbers.
            labels: named texts.
            primary_metric: what ``RUN:best`` goes by from now on: NAME, NAME:min or NAME:max. "": as before.
            opaque: "pickle" keeps values of other types as pickles, which only a restore that allows it reads; None
                refuses them.

        Raises:
            InvalidState: there is no epoch, or the state holds what cannot be saved (with its path and type).
            Unavailable: the server could not be reached for ``retry_s``.
        """
        connection = self._connection()
        what = _what(run, state, epoch, step, metrics, labels, primary_metric)
        encoded = encode(state, opaque=opaque)
        return _checkpoint(connection.save(encoded.builder, *what))

    def save_async(
        self,
        run: str,
        state: Any,
        epoch: int | None = None,
        step: int | None = None,
        metrics: Mapping[str, float] | None = None,
        labels: Mapping[str, str] | None = None,
        primary_metric: str = "",
        opaque: str | None = None,
        latest_only: bool = False,
    ) -> SaveHandle[Checkpoint]:
        """Saves a copy of the state, as it is now, in the background; returns when the copy is taken.

        The memory of the copy is kept for the next one. While a save is on its way another one waits before it copies,
        so there is one copy at most. An error is raised by the handle's ``result``, or else by the next call of this
        client. When the process ends the last save is waited for.

        Args:
            run: see ``save``, also for the others.
            state: see ``save``.
            epoch: see ``save``.
            step: see ``save``.
            metrics: see ``save``.
            labels: see ``save``.
            primary_metric: see ``save``.
            opaque: see ``save``.
            latest_only: while a save is on its way, copy at once (a second copy) and take the place of a save that
                waits: that one then fails with Conflict (REPLACED). The newest is never dropped.
        """
        connection = self._connection()
        what = _what(run, state, epoch, step, metrics, labels, primary_metric)

        def make(copies: Copies) -> Job[Checkpoint]:
            encoded = encode(state, copies.place, opaque)
            copies.copy()
            return Job(f"{run}@{what[1]}", copies, lambda: _checkpoint(connection.save(encoded.builder, *what)))

        return self._background.save(make, latest_only)

    def restore(
        self,
        reference: str,
        components: Sequence[str] = (),
        include: Sequence[str] = (),
        map_location: Any = None,
        allow_pickle: bool = False,
    ) -> Any:
        """Restores a checkpoint: the same tree, with exactly the types that were saved.

        Args:
            reference: RUN@EPOCH, RUN@EPOCH#VERSION, RUN:latest, RUN:best, RUN:best:METRIC, with :min or :max, or
                RUN:TAG.
            components: top-level keys to restore; none: all.
            include: globs over the paths of leaves ("model.*.weight"); none: all.
            map_location: where tensors go, as ``torch.load`` takes it; None: to the devices that they were on.
            allow_pickle: whether to read values that were saved with ``opaque="pickle"``. That runs code of whoever
                saved them.

        Raises:
            InvalidState: there are such values, and they are not allowed.
            NotFound: there is no such checkpoint or component, or nothing matches.
            DataLoss: stored bytes are damaged.
        """
        _check_reference(reference)
        texts = _texts("components", components), _texts("include", include)
        restore = self._connection().open_restore(reference, *texts)
        return decode(restore, map_location, allow_pickle)

    def restore_into(self, reference: str, state: Any, components: Sequence[str] = ()) -> Checkpoint:
        """Restores a checkpoint into the tensors and arrays of ``state``, which keep their places and devices.

        Leaves of other types stay as they are. Bytes go straight to where they are wanted, if that is memory of the CPU
        with the layout that was saved; other tensors are read aside, 128 MiB at a time (one of which there are views of
        other shapes, whole), and copied. What holds the right bytes already is not fetched, unless none of the chunks
        does that are looked at first: one in 16, and no fewer than 64, of what goes straight and of each 128 MiB.

        Args:
            reference: see ``restore``.
            state: a tree like the one that was saved, such as ``{"model": model.state_dict()}``.
            components: top-level keys to restore; none: all.

        Raises:
            InvalidState: a tensor is on one side only, or its shape or dtype differs. The message lists all such
                differences; nothing was written.
            Error: the restore failed in the middle: the message says that the state is torn.
        """
        _check_reference(reference)
        wanted = _texts("components", components)
        restore = self._connection().open_restore(reference, wanted, [], compare=True)
        restore_into(restore, state, wanted)
        return _checkpoint(restore.checkpoint())

    def load_into(
        self,
        reference: str,
        *,
        model: torch.nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: Any = None,
        scaler: Any = None,
        rng: bool = False,
        match: Match = "strict",
        allow_pickle: bool = False,
    ) -> LoadReport:
        """Loads a checkpoint of ``ckptd.torch.capture`` into live objects; an optimizer by its parameters' names.

        Everything is compared before anything is touched. Optimizer states keep the dtype that they were saved with.

        Args:
            reference: see ``restore``.
            model: gets the saved entries of the same names.
            optimizer: gets the saved state of each of its parameters.
            scheduler: gets its state; lists by parameter group are rearranged when groups differ.
            scaler: gets its state, unless that is empty.
            rng: whether to set the random generators' states.
            match: "strict": all must be as it was, or nothing is loaded; hyper-parameters are restored. "by_name": what
                has the same name and shape is loaded, the rest is left as it is, and begins fresh in the optimizer; a
                group with exactly a saved one's members gets its hyper-parameters, another ``lr`` and ``initial_lr``
                where its members' saved groups agree. "model_only": the model must be as it was; the rest is left.
            allow_pickle: see ``restore``.

        Returns:
            What matched and what did not; ``values`` has the rest of the checkpoint, such as the epoch.

        Raises:
            OptimizerMismatch: the optimizer does not fit; the message is the report. Nothing was changed.
            InvalidState: the model does not, or a part is not in the checkpoint. Nothing was changed.
        """
        from ckptd._load_into import load_into
        from ckptd._match import Parts

        _check_reference(reference)
        parts = Parts(model, optimizer, scheduler, scaler, rng)
        return load_into(self._connection(), reference, parts, match, allow_pickle)

    def explain(
        self,
        reference: str,
        *,
        model: torch.nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: Any = None,
        scaler: Any = None,
        rng: bool = False,
        match: Match = "strict",
    ) -> LoadReport:
        """What ``load_into`` would find, for printing. Changes nothing, and reads no tensor's bytes.

        Args:
            reference: see ``load_into``, also for the others.
            model: see ``load_into``.
            optimizer: see ``load_into``.
            scheduler: see ``load_into``.
            scaler: see ``load_into``.
            rng: see ``load_into``.
            match: see ``load_into``.
        """
        from ckptd._load_into import explain
        from ckptd._match import Parts

        _check_reference(reference)
        return explain(self._connection(), reference, Parts(model, optimizer, scheduler, scaler, rng), match)

    def runs(self) -> list[Run]:
        """All runs, by name."""
        return [_run(fields) for fields in _pages(self._connection().list_runs)]

    def checkpoints(self, run: str) -> list[Checkpoint]:
        """All checkpoints of a run, by epoch and version."""
        _check_text("run", run)
        connection = self._connection()
        return [_checkpoint(fields) for fields in _pages(lambda page: connection.list_checkpoints(run, page))]

    def checkpoint(self, reference: str) -> Checkpoint:
        """The checkpoint that a reference names."""
        _check_reference(reference)
        return _checkpoint(self._connection().get_checkpoint(reference))

    def __repr__(self) -> str:
        return f"ckptd.Client({self.address!r})"


def _pages(fetch: Any) -> Iterator[dict[str, Any]]:
    page = b""
    while True:
        items, page = fetch(page)
        yield from items
        if not page:
            return


def _check_text(name: str, text: Any, what: str = "a str") -> None:
    if not isinstance(text, str):
        raise InvalidState(f"{name} must be {what}, not {text!r}", "BAD_ARGUMENT")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidState(f"{name} has half a character, which UTF-8 cannot have: {text!r}", "BAD_ARGUMENT") from None


def _check_seconds(retry_s: Any) -> None:
    if not isinstance(retry_s, (int, float)) or not 0 <= retry_s <= 86400:  # nan is not, either
        raise InvalidState(f"retry_s must be between 0 and 86400 seconds, not {retry_s!r}", "BAD_ARGUMENT")


def _check_reference(reference: Any) -> None:
    _check_text("reference", reference, "a str such as 'RUN:latest'")


def _texts(name: str, texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        raise InvalidState(f"{name} must be a list of str, not {texts!r}", "BAD_ARGUMENT")
    checked = list(texts)
    for text in checked:
        _check_text(f"each of {name}", text)
    return checked


_What = tuple[str, int, int | None, list[tuple[str, float]], list[tuple[str, str]], str]


def _what(
    run: str,
    state: Any,
    epoch: int | None,
    step: int | None,
    metrics: Mapping[str, float] | None,
    labels: Mapping[str, str] | None,
    primary_metric: str,
) -> _What:
    """What a save is told besides the state."""
    _check_text("run", run)
    _check_text("primary_metric", primary_metric)
    numbers = [(name, _number(name, value)) for name, value in _items("metrics", metrics)]
    texts = list(_items("labels", labels))
    for name, value in texts:
        _check_text(f"labels[{name!r}]", value)
    return run, _epoch_of(state, epoch), _step_of(state, step), numbers, texts, primary_metric


def _items(where: str, named: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    if named is not None and not isinstance(named, Mapping):
        raise InvalidState(f"{where} must be a dict, not {named!r}", "BAD_ARGUMENT")
    for name, value in (named or {}).items():
        _check_text(f"a name in {where}", name)
        yield name, value


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, str | bytes):
            return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # of a tensor that has several elements, too
        pass
    raise InvalidState(f"metrics[{name!r}] must be a number, not {value!r}", "BAD_ARGUMENT")


def _int64(name: str, value: Any) -> int:
    found = _int(value)
    if found in _INT64:
        return found
    raise InvalidState(f"{name} must be an int of 64 bits, and is beyond", "BAD_ARGUMENT")


_INT64 = range(-(1 << 63), 1 << 63)


def _is_whole(value: Any) -> bool:
    """An int of Python's or numpy's, or a tensor or array of one; a bool is none."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return False
    dtype = str(getattr(value, "dtype", "int"))
    return "int" in dtype and all(extent == 1 for extent in getattr(value, "shape", ()))


def _epoch_of(state: Any, epoch: int | None) -> int:
    found = epoch if epoch is not None else state.get("epoch") if isinstance(state, dict) else None
    if _is_whole(found):
        return _int64("epoch", found)
    if epoch is not None:
        raise InvalidState(f"epoch must be an int, not {epoch!r}", "BAD_ARGUMENT")
    raise InvalidState("the state has no int under 'epoch'; say which epoch it is: epoch=N", "NO_EPOCH")


def _step_of(state: Any, step: int | None) -> int | None:
    if step is not None:
        if not _is_whole(step):
            raise InvalidState(f"step must be an int, not {step!r}", "BAD_ARGUMENT")
        return _int64("step", step)
    for name in ("step", "global_step"):
        found = state.get(name) if isinstance(state, dict) else None
        if _is_whole(found) and _int(found) in _INT64:
            return _int(found)
    return None


def _int(value: Any) -> int:
    return int(value.item() if hasattr(value, "item") else value)


# ---- One client for each address, for connect and for the functions of the module

_connections: dict[tuple[str, str, float], Client] = {}
_lock = threading.Lock()


def _forked() -> Error:
    return Error(
        "this process was forked from one that has used ckptd, which gRPC does not live through: use ckptd in the "
        "parent only, or start workers with 'spawn' (multiprocessing_context='spawn' for a DataLoader)",
        "FORKED",
    )


class _Alive:
    """The clients of this process, to be let go of in a child: gRPC does not live through a fork."""

    def __init__(self) -> None:
        import weakref

        self.clients: weakref.WeakSet[Client] = weakref.WeakSet()
        self.is_used = False
        self.is_forked = False

    def add(self, client: Client) -> None:
        self.is_used = True
        self.clients.add(client)

    def forget_in_child(self) -> None:
        global _lock
        self.is_forked = self.is_used
        _lock = threading.Lock()
        clients = list(self.clients)  # before the last reference to one goes, and with it the connection
        _connections.clear()
        _background.forget_in_child()
        for client in clients:
            if client._native is not None:
                _native.leak(client._native)  # destroying it would wait for threads that are not here
                client._native = None


_alive = _Alive()
os.register_at_fork(after_in_child=_alive.forget_in_child)


def connect(address: str | None = None, *, domain: str | None = None, retry_s: float = 30) -> Client:
    """A client of the server at ``address``; calls with the same arguments share one.

    Args:
        address: HOST:PORT; None takes the environment's CKPT_SERVER, else 127.0.0.1:7070.
        domain: the domain to work in; None takes the environment's CKPT_DOMAIN, else "default".
        retry_s: see ``Client``.
    """
    for name, text in (("address", address), ("domain", domain)):
        if text is not None:
            _check_text(name, text)
    _check_seconds(retry_s)
    key = (
        address or os.environ.get("CKPT_SERVER") or "127.0.0.1:7070",
        domain or os.environ.get("CKPT_DOMAIN") or "default",
        retry_s,
    )
    with _lock:
        if key not in _connections:
            _connections[key] = Client(*key)
        return _connections[key]


def save(state: Any, reference: str, **options: Any) -> Checkpoint:
    """Saves a state as ``RUN@EPOCH``, or as ``RUN`` where ``state["epoch"]`` has the epoch; see ``Client.save``.

    As ``torch.save(state, file)`` does, on the server that ``connect()`` finds.
    """
    _check_text("reference", reference, "a str, RUN@EPOCH or RUN")
    run, mark, epoch = reference.partition("@")
    if mark:
        if not re.fullmatch(r"[+-]?[0-9]{1,19}", epoch) or "epoch" in options:
            raise InvalidState(f"'{reference}': a save goes to RUN@EPOCH, or to RUN", "BAD_REFERENCE")
        options["epoch"] = int(epoch)
    return connect().save(run, state, **options)


def load(reference: str, map_location: Any = None, allow_pickle: bool = False) -> Any:
    """Restores a checkpoint from the server that ``connect()`` finds; see ``Client.restore``.

    As ``torch.load(file)`` does.
    """
    return connect().restore(reference, map_location=map_location, allow_pickle=allow_pickle)
