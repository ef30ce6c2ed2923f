"""What goes wrong, as exceptions. Each says what happened and what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptd._report import LoadReport


# Control characters but for the end of a line, and halves of characters: names in a message may have any.
_UNPRINTABLE = re.compile("[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")


class Error(Exception):
    """What every exception of this package is.

    Attributes:
        reason: the machine-readable reason (``RUN_NOT_FOUND``; docs/errors.md lists them), or "".
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(_UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), message))
        self.reason = reason

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} [{self.reason}]" if self.reason else message


class NotFound(Error):
    """There is no such run, checkpoint, component or path."""


class Conflict(Error):
    """Something else was faster, or what was asked for cannot be done in the state that things are in."""


class InvalidState(Error):
    """The state, a name or an argument is not what can be saved or restored; the message has the path and the type."""


class OptimizerMismatch(InvalidState):
    """A checkpoint's optimizer does not fit the live one; nothing was loaded.

    Attributes:
        report: the ``LoadReport`` that says how they differ.
    """

    def __init__(self, message: str, report: LoadReport) -> None:
        super().__init__(message, "OPTIMIZER_MISMATCH")
        self.report = report


class Unavailable(Error):
    """No server could be reached for as long as the client retries. Nothing was lost: try again later."""


class DataLoss(Error):
    """Bytes are damaged; the message names run, epoch and tensor."""


class PermissionDenied(Error):
    """The server refused this client."""


# By the number of absl::StatusCode.
_BY_CODE: dict[int, type[Error]] = {
    3: InvalidState,  # INVALID_ARGUMENT
    4: Unavailable,  # DEADLINE_EXCEEDED
    5: NotFound,
    6: Conflict,  # ALREADY_EXISTS
    7: PermissionDenied,
    9: Conflict,  # FAILED_PRECONDITION
    10: Conflict,  # ABORTED
    14: Unavailable,
    15: DataLoss,
    16: PermissionDenied,  # UNAUTHENTICATED
}


def from_status(code: int, reason: str, message: str) -> Error:
    """The exception for an error of the C++ client."""
    return _BY_CODE.get(code, Error)(message, reason)
