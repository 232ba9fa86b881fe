"""Flags in a JSON file that people and tools may rewrite in any way while it is being followed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from threading import Event, RLock, Thread, current_thread

from engine.errors import UserError
from flags.client import SourceStatus
from flags.document import Document
from flags.launchdarkly import Evaluator, InProcessSource, Items, refusal
from flags.lint import SECTIONS, Finding, check

POLL_SECONDS = 0.05


class FileFlags(Evaluator):
    """A FlagClient over a file: {"flags": {KEY: FLAG}, "segments": {...}}, each in LaunchDarkly's JSON form.

    A file that is missing or bad at start raises UserError, every mistake on a line of its own. Later the last
    good content stays in force, and the status is INTERRUPTED with the same lines, until the file is good again.
    """

    def __init__(self, path: Path, poll: float = POLL_SECONDS) -> None:
        """Follow the file by its name, looking every `poll` seconds."""
        self._path = path
        self._lock = RLock()  # a subscriber may refresh
        self._seen = _look(path)
        sections, self._warnings = _load(path, self._seen)
        self._source = InProcessSource(*sections)
        super().__init__(self._source)
        self._closed = Event()
        self._poller = Thread(target=self._follow, args=(poll,), name="flags.file", daemon=True)
        self._poller.start()

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the content in force, but served."""
        return self._warnings

    def refresh(self) -> SourceStatus:
        """Look at the file now: what was written before is in force, or refused, when this returns."""
        with self._lock:
            look = _look(self._path)
            if look != self._seen:
                self._seen = look
                self._take(look)
        return self.status()

    def close(self) -> None:
        self._closed.set()
        if self._poller is not current_thread():
            self._poller.join()
        super().close()

    def _take(self, look: bytes | str) -> None:
        try:
            sections, self._warnings = _load(self._path, look)
        except UserError as error:
            self._source.interrupt(str(error))
        else:
            self._source.put(*sections)

    def _follow(self, poll: float) -> None:
        while not self._closed.wait(poll):
            self.refresh()


def _look(path: Path) -> bytes | str:
    """The file's bytes, or why there are none. Bytes tell a change: size and times can miss a quick rewrite."""
    try:
        return path.read_bytes() if S_ISREG(path.stat().st_mode) else "it is not a regular file"
    except OSError as error:
        return error.strerror or str(error)


def _load(path: Path, look: bytes | str) -> tuple[tuple[Items, Items], tuple[str, ...]]:
    """Flags, segments and warnings of what was read; UserError where it cannot be served."""
    if isinstance(look, str):
        raise UserError(f"{path}: error: cannot read the flag file: {look}; put a JSON file there")
    document, findings = check(_decode(path, look))
    if document is not None and not _errors(findings):
        findings = sorted([*findings, *_refusals(document)])
    if document is None or _errors(findings):
        raise UserError("\n".join(finding.text(str(path)) for finding in findings))
    sections = document.value["flags"], document.value.get("segments", {})
    return sections, tuple(finding.text(str(path)) for finding in findings)


def _decode(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise UserError(f"{path}:{line}:{column}: error: not UTF-8; save the file as UTF-8") from None


def _errors(findings: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


def _refusals(document: Document) -> Iterator[Finding]:
    """What only LaunchDarkly's own parser finds; unfound, it would stop the whole set from being served."""
    for section in SECTIONS:
        for key, item in document.value.get(section, {}).items():
            reason = refusal(section, item)
            if reason:
                place = document.positions[section, key]
                yield Finding(*place, "error", f'LaunchDarkly refuses "{key}": {reason}', "correct its type")
