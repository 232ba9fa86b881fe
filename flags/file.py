"""Flags in a JSON file that people and tools may rewrite in any way while it is being followed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from stat import S_ISREG
from threading import Event, RLock, Thread, current_thread
from typing import Any

from engine.errors import UserError
from flags.client import SourceStatus
from flags.document import Document
from flags.launchdarkly import CLOSE_SECONDS, Evaluator, InProcessSource, Items, refusal
from flags.lint import SECTIONS, Finding, check

POLL_SECONDS = 0.05


class FileFlags(Evaluator):
    """A FlagClient over a file: {"flags": {KEY: FLAG}, "segments": {...}}, each in LaunchDarkly's JSON form.

    Where it is missing or bad, the last good content stays in force until it is good again, and the status is
    INTERRUPTED, with every mistake on a line of its own. At the start, where there is none to stay, each flag has its
    safe value, and the status is INITIALIZING with those lines.
    """

    def __init__(self, path: Path, poll: float = POLL_SECONDS) -> None:
        """Follow the file by its name, looking every `poll` seconds."""
        self._path = path
        self._lock = RLock()  # a subscriber may refresh
        self._seen = _look(path)
        self._source = InProcessSource()
        super().__init__(self._source)
        self._take(self._seen)
        self._closed = Event()
        self._poller = Thread(target=self._follow, args=(poll,), name="flags.file", daemon=True)
        self._poller.start()

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
            self._poller.join(CLOSE_SECONDS)  # a subscriber may be at work on it, or the file system in no hurry
        super().close()

    def _take(self, look: bytes | str) -> None:
        try:
            sections = _load(self._path, look)
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


def read_as_served(path: Path) -> tuple[Items, Items]:
    """Flags and segments as LaunchDarkly serves them, whatever else lint finds; UserError where it refuses them."""
    document, findings = examine(path)
    if document is not None:
        refused = sorted(_refusals(document)) if _is_shaped(document.value) else findings
        if not refused:
            return document.value["flags"], document.value.get("segments", {})
        findings = refused
    raise UserError("\n".join(finding.text(str(path)) for finding in findings))


def _is_shaped(document: Any) -> bool:
    if not isinstance(document, dict) or "flags" not in document:
        return False
    sections = [document.get(section, {}) for section in SECTIONS]
    return all(isinstance(items, dict) and all(isinstance(item, dict) for item in items.values()) for items in sections)


def examine(path: Path) -> tuple[Document | None, list[Finding]]:
    """The file's document (None where it is not JSON) and what is wrong with it; UserError where it is unreadable."""
    return _examine(path, _look(path))


def _examine(path: Path, look: bytes | str) -> tuple[Document | None, list[Finding]]:
    if isinstance(look, str):
        raise UserError(f"{path}: error: cannot read the flag file: {look}; put a JSON file there")
    document, findings = check(_decode(path, look))
    if document is not None and not _errors(findings):
        findings = sorted([*findings, *_refusals(document)])
    return document, findings


def _load(path: Path, look: bytes | str) -> tuple[Items, Items]:
    """Flags and segments of what was read; UserError where it cannot be served. What is only odd is the linter's."""
    document, findings = _examine(path, look)
    if document is None or _errors(findings):
        raise UserError("\n".join(finding.text(str(path)) for finding in findings))
    return document.value["flags"], document.value.get("segments", {})


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
                message = f'LaunchDarkly refuses "{key}": {reason}'
                production = "the whole set of flags is refused, and the last one stays in force"
                yield Finding(*place, "error", message, "correct its type", production)
