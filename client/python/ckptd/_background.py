"""Saves in the background: of a copy of the state, taken at the call."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ckptd import _native
from ckptd._errors import Conflict, Error

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


class SaveHandle(Generic[T]):
    """A save on its way. Thread-safe.

    An error that nobody asks for here is raised by the next call of the client.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._done = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None
        self._asked = False
        self._process = os.getpid()

    def done(self) -> bool:
        """True once it has succeeded or failed."""
        return self._done.is_set()

    def result(self, timeout: float | None = None) -> T:
        """Waits for the save and returns its checkpoint; raises what it failed with.

        Raises:
            TimeoutError: it takes longer than ``timeout`` seconds.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        return self._result  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Waits for the save and returns what it failed with, or None.

        Raises:
            TimeoutError: it takes longer than ``timeout`` seconds.
        """
        if self._process != os.getpid():
            raise Error("this save was begun before the process was forked: ask in the parent", "FORKED")
        if not self._done.wait(timeout):
            raise TimeoutError(f"the save of {self._what} takes longer than {timeout} s")
        self._asked = True
        return self._error

    def _end(self, result: T | None, error: BaseException | None) -> None:
        self._result, self._error = result, error
        self._done.set()

    def __repr__(self) -> str:
        state = "on its way" if not self.done() else "failed" if self._error else "done"
        return f"<save of {self._what}: {state}>"


class Copies:
    """Host memory for copies of a state's tensors, used again by the next copy of one like it. Used by one thread."""

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray[Any, Any]]] = {}
        self._used: list[np.ndarray[Any, Any]] = []
        self._todo: list[tuple[int, int, int]] = []

    def take(self, size: int) -> np.ndarray[Any, Any]:
        """Memory for a copy of so many bytes."""
        import numpy

        free = self._free.get(size)
        memory = free.pop() if free else numpy.empty(size, numpy.uint8)
        self._used.append(memory)
        return memory

    def place(self, address: int, size: int) -> int:
        """Where a copy of these bytes will be, once ``copy`` has returned."""
        to = int(self.take(size).ctypes.data)
        self._todo.append((to, address, size))
        return to

    def copy(self) -> None:
        """Copies, without the GIL."""
        self._free.clear()  # what the last state had, and this one has not
        _native.copy(self._todo)
        self._todo.clear()

    def give_back(self) -> None:
        """The copy is not needed any more."""
        self._todo.clear()
        for memory in self._used:
            self._free.setdefault(memory.nbytes, []).append(memory)
        self._used.clear()


class Job(Generic[T]):
    """A save that is to be made of a copy."""

    def __init__(self, what: str, copies: Copies, run: Callable[[], T]) -> None:
        self.handle: SaveHandle[T] = SaveHandle(what)
        self.copies = copies
        self.run = run


class Background(Generic[T]):
    """Makes one save after the other, in a thread that starts with the first one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running: Job[T] | None = None
        self._waiting: Job[T] | None = None
        self._ended: list[SaveHandle[T]] = []  # failed, and nobody was told yet
        self._spare: list[Copies] = []
        self._thread: threading.Thread | None = None

    def save(self, make: Callable[[Copies], Job[T]], latest_only: bool) -> SaveHandle[T]:
        """Takes the copy, once there is room for one, and returns while it is being saved."""
        with self._changed:
            while self._must_wait(latest_only):
                self._changed.wait()
            self.raise_failure()  # of one that was waited for
            copies = self._spare.pop() if self._spare else Copies()
            try:
                job = make(copies)
            except BaseException:  # the one that waits still does
                self._give_back(copies)
                raise
            if self._waiting is not None:
                self._drop_waiting()
            self._waiting = job
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="ckptd save", daemon=True)
                self._thread.start()
                _backgrounds.add(self)
            self._changed.notify_all()
            return job.handle

    def _must_wait(self, latest_only: bool) -> bool:
        if self._running is None:
            return self._waiting is not None  # which is about to run
        return not latest_only

    def _drop_waiting(self) -> None:
        dropped, self._waiting = self._waiting, None
        assert dropped is not None
        self._give_back(dropped.copies)
        dropped.handle._asked = True
        dropped.handle._end(
            None, Conflict(f"{dropped.handle._what} was not saved: a newer state took its place", "REPLACED")
        )

    def _give_back(self, copies: Copies) -> None:
        copies.give_back()
        if not self._spare:
            self._spare.append(copies)

    def _work(self) -> None:
        while True:
            with self._changed:
                while self._waiting is None:
                    self._changed.wait()
                job, self._waiting = self._waiting, None
                self._running = job
                self._changed.notify_all()
            result: T | None = None
            error: BaseException | None = None
            try:
                result = job.run()
            except BaseException as raised:
                error = raised
            with self._changed:
                self._give_back(job.copies)
                job.handle._end(result, error)
                if error is not None:
                    self._ended.append(job.handle)
                self._running = None
                del job
                self._changed.notify_all()

    def raise_failure(self) -> None:
        """Raises the first failure that nobody has asked for."""
        with self._changed:
            while self._ended:
                handle = self._ended.pop(0)
                if not handle._asked:
                    # Of its own kind, so that whoever waits out a server that is away catches this too.
                    kind = type(handle._error) if isinstance(handle._error, Error) else Error
                    raise kind(
                        f"an earlier save in the background, of {handle._what}, failed, and this call has done "
                        f"nothing: {handle._error}",
                        "BACKGROUND_SAVE",
                    ) from handle._error

    def wait(self) -> None:
        """Waits for what is on its way, at the end of the process."""
        with self._changed:
            for job in (self._running, self._waiting):
                if job is not None:
                    print(f"ckptd: waiting for the save of {job.handle._what}", file=sys.stderr, flush=True)
            while self._running is not None or self._waiting is not None:
                self._changed.wait()
            for handle in self._ended:
                if not handle._asked:
                    print(f"ckptd: the save of {handle._what} failed: {handle._error}", file=sys.stderr, flush=True)


_backgrounds: set[Background[Any]] = set()


def forget_in_child() -> None:
    """A forked process has none of the threads: nobody waits for them there."""
    _backgrounds.clear()


@atexit.register
def _wait_for_all() -> None:
    for background in list(_backgrounds):
        background.wait()
