"""What can go wrong, in few kinds; each message says what happened and what to do."""

from __future__ import annotations

import errno as _errno
from collections.abc import Iterator


class UserError(Exception):
    """Bad input from a person: one clear line (or one a finding), with where and what to do; exit code 2."""


class HostError(UserError):
    """This host does not give what a run needs: no defect of the engine, of a file, or of snapdrill."""


class EngineError(Exception):
    """Something the engine refused or could not do."""


class NotAMemfdError(EngineError):
    """A received file descriptor is not a memfd that can be trusted: wrong kind, size or seals."""


class TruncatedError(EngineError):
    """A file ended before the bytes that it must hold."""


class PunchRefusedError(EngineError):
    """A punch would break a rule (no permit, wrong memfd, outside the file, not aligned, sealed): nothing was freed."""


class CondemnedError(EngineError):
    """An incarnation that is condemned was asked to run: it may never run again."""


class FreezeError(EngineError):
    """A guest did not stop, or did not stay stopped, in time."""


class GuestRanError(FreezeError):
    """A guest ran since its freeze, or died by another's hand: what is copied of its memory is not of one moment.

    `code`: ran, not-stopped, dead, or unseen where it cannot be known.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class BuildFailedError(EngineError):
    """A build will never be finished; readers and waiters get this with its cause."""


class CorruptBuildError(EngineError):
    """A header or a cache does not hold what was written: refused as a whole. `build` is the one that is damaged.

    Never for what the host could not read just now: that is an OSError, and says nothing of the build.
    """

    def __init__(self, build: str, what: str) -> None:
        super().__init__(f"build {build}{what}")
        self.build = build


class PinnedBuildError(EngineError):
    """A build that others stand on was to be deleted: nothing was."""


class CancelledPauseError(EngineError):
    """The caller cancelled the pause before it was condemned."""


HOST_ERRORS = frozenset(
    {"ENOSPC", "EDQUOT", "ENOMEM", "EMFILE", "ENFILE", "EAGAIN", "EFBIG", "EPERM", "EACCES", "EROFS", "ENOSYS", "EIO"}
)
"""What a system call says where the host is at fault."""


_DEFECTS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)


def behind(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what caused it, what caused that.

    What was being handled as it was raised counts as its cause where it has none, but never as that of a defect.
    """
    while error is not None:
        yield error
        error = error.__cause__ or (None if isinstance(error, _DEFECTS) else error.__context__)


def host_error(error: BaseException | None) -> BaseException | None:
    """The error, or one behind it, that is the host's: no memory, no space, a refused system call."""
    return next((each for each in behind(error) if is_of_host(each)), None)


def is_of_host(error: BaseException) -> bool:
    """The error itself is the host's, whatever it was raised in the handling of."""
    return isinstance(error, MemoryError | HostError) or errno_name(error) in HOST_ERRORS


def words_of(error: BaseException) -> str:
    """Its message; the name of its type where it has none, as an interrupt."""
    return str(error) or type(error).__name__


def errno_name(error: BaseException) -> str | None:
    """`ENOSPC` for an OSError with that errno; None for anything else."""
    number = getattr(error, "errno", None)
    return _errno.errorcode.get(number, str(number)) if isinstance(number, int) else None
