"""Every wrong engine: what it does wrong, what must catch it, and the scenario that runs it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wrong:
    """One rule broken. `caught_by` is a judged subject (`invariant:X`, `metric:M`).

    `scenarios` are files of scenarios/self-test/, the clearest first: the first that the host can run is run.
    """

    name: str
    sentence: str
    caught_by: str
    scenarios: tuple[str, ...]


def _wrong(name: str, caught_by: str, sentence: str, *scenarios: str) -> Wrong:
    return Wrong(name, sentence, caught_by, scenarios or (f"{name}.yaml",))


def _by_name(*wrongs: Wrong) -> dict[str, Wrong]:
    return {each.name: each for each in wrongs}


MUTANTS: Mapping[str, Wrong] = _by_name(
    _wrong(
        "resume-after-punch",
        "invariant:never_resumed",
        "a failed copy wakes the guest up again, although its memory was punched",
    ),
    _wrong(
        "discard-skipped",
        "invariant:failed_copy_discards",
        "a failed copy leaves the condemned guest and its partial cache where they are",
    ),
    _wrong(
        "record-after-punch",
        "invariant:never_resumed",
        "the condemned record is written and reported after all punching: a crash forgets which guests were punched",
    ),
    _wrong(
        "woken-in-mid-copy",
        "invariant:never_resumed",
        "a punched guest is woken for a moment in the middle of its copy, and stopped again",
    ),
    _wrong(
        "record-retired-early",
        "invariant:never_resumed",
        "the condemned record is retired, and not reported, before the guest is dead: a crash in between lets it run",
    ),
    _wrong(
        "punch-before-publish",
        "invariant:no_unpublished",
        "a chunk is freed from the memfd before its readers may have it from the cache",
    ),
    _wrong(
        "unfinished-visible",
        "invariant:no_unpublished",
        "a build has its final name while it is still being written",
    ),
    _wrong(
        "clean-before-first-chunk",
        "invariant:rollback_intact",
        "clean pages are punched before chunk 0 is published, when the pause may still be rolled back",
    ),
    _wrong(
        "scan-rearms",
        "invariant:rollback_intact",
        "the scan of a pause re-arms, so that a roll-back forgets what was dirty",
    ),
    _wrong(
        "scan-misses",
        "invariant:dirty_agrees",
        "the tracker misses a block that was written with the bytes that it had: no byte is lost, this time",
    ),
    _wrong(
        "sub-page-punch",
        "invariant:peak_bounded",
        "parts of pages are punched: the kernel zeroes them and frees nothing",
        "sub-page-punch-hugetlb.yaml",
        "sub-page-punch.yaml",
    ),
    _wrong(
        "punch-borrowed",
        "invariant:never_resumed",
        "a checkpoint punches the memfd that it has only borrowed, and the guest goes on",
    ),
    _wrong(
        "clean-page-lost",
        "invariant:bytes_exact",
        "the header on disk says zero for pages that are as in the parent",
    ),
    _wrong(
        "background-failure-swallowed",
        "invariant:failed_copy_discards",
        "a background copy that fails after its pause has answered is not reported: the sandbox stays paused",
    ),
    _wrong(
        "background-rolled-back",
        "invariant:never_resumed",
        "a background copy that fails after its pause has answered lets the old guest run on",
    ),
    _wrong(
        "checkpoint-consumed",
        "invariant:decision_pinned",
        "a checkpoint that is recorded as in place consumes the memory: its guest ends, and a new one goes on",
    ),
    _wrong(
        "old-guest-runs-on",
        "invariant:never_resumed",
        "after a checkpoint with a new guest the old one is let run on beside it, though its memory was punched",
    ),
    _wrong(
        "punched-machine-runs",
        "invariant:never_resumed",
        "a virtual machine runs on although its memory, its program with it, was punched: it executes zeros and dies",
    ),
    _wrong(
        "flag-read-twice",
        "invariant:decision_pinned",
        "the copy reads the punch flag again while it runs, and obeys what it says by then",
    ),
    _wrong(
        "stranded-named-finished",
        "invariant:no_unpublished",
        "a stranded build gets its final name while a part of it is in the memory of its dead guest alone",
    ),
    _wrong(
        "punched-unrecorded",
        "invariant:bytes_exact",
        "with salvage, chunks are recorded when all are copied: after a crash what was punched is read as zeros",
    ),
    _wrong(
        "spill-forgotten",
        "invariant:failed_copy_discards",
        "a build that is given up is deleted without its spill",
    ),
    _wrong(
        "spill-unnamed",
        "invariant:bytes_exact",
        "the header of a build that lies in two files does not name the chunks in its spill",
    ),
    _wrong(
        "reader-looks-once",
        "invariant:bytes_exact",
        "a reader of a stranded build that has read memory does not look whether that was punched meanwhile",
    ),
    _wrong(
        "keeper-never-drops",
        "invariant:no_leaks",
        "the keeper is never asked to let go: the memory of a build that was given up stays with the zygote",
    ),
    _wrong(
        "keeper-not-asked",
        "invariant:failed_copy_discards",
        "a guest is condemned without a keeper of its memory, though salvage was decided: its node takes it along",
    ),
    _wrong(
        "killed-untold",
        "invariant:deaths_explained",
        "the guest of a checkpoint is killed once its build is finished, and no event says who did it",
    ),
    _wrong(
        "kill-after-punch",
        "invariant:never_resumed",
        "the condemned guest is killed with the last act of its pause: it is alive while its memory is freed",
    ),
    _wrong(
        "death-awaited-late",
        "invariant:never_resumed",
        "the first page is punched before the killed guest is seen dead",
    ),
    _wrong(
        "death-not-awaited",
        "invariant:never_resumed",
        "the death of a killed guest is not waited for before its memory is punched, and no event says that it died",
    ),
    _wrong(
        "looks-away",
        "invariant:never_resumed",
        "a last look that shows that the guest has run is ignored: it is punched, and its build is finished",
    ),
    _wrong(
        "one-thread-stopped",
        "invariant:never_resumed",
        "one stopped thread is taken for a stopped guest: the others run on until it is killed",
    ),
    _wrong(
        "torn-copy-kept",
        "invariant:bytes_exact",
        "a guest is not looked at again after its freeze, and it runs: a build with bytes of two moments is finished",
    ),
    _wrong(
        "hole-taken-for-clean",
        "invariant:bytes_exact",
        "a page that the guest freed is taken for clean: it comes back as it is in the parent build",
    ),
    _wrong(
        "resume-trusts-bytes",
        "invariant:bytes_exact",
        "a resume does not compare what it reads with its digest: a damaged snapshot becomes a guest",
    ),
    _wrong(
        "hash-untrue",
        "invariant:bytes_exact",
        "the outcome of a pause names another content than its build has",
    ),
    _wrong(
        "flags-evaluated-twice",
        "invariant:decision_pinned",
        "the flags are evaluated a second time within one pause, and that is what the pause obeys",
    ),
    _wrong(
        "off-ignored",
        "invariant:off_arrives",
        "the flags are evaluated once for each sandbox, at its first pause: off never arrives",
    ),
    _wrong(
        "memory-kept",
        "invariant:no_leaks",
        "the memory of a guest whose pause is finished is never closed",
    ),
    _wrong(
        "recovery-forgets-record",
        "invariant:never_resumed",
        "the next node forgets which guests were condemned, and lets them run",
    ),
    _wrong(
        "recovery-forgets-build",
        "invariant:failed_copy_discards",
        "the next node leaves the unfinished builds of the one before",
    ),
    _wrong(
        "recovery-takes-older-build",
        "invariant:legal_transitions",
        "a guest that was frozen when its node died is given up, and its sandbox paused by an older build",
    ),
    _wrong(
        "meter-under-reports",
        "invariant:peak_bounded",
        "half of a pause's peak is reported, and nothing is freed: memory and cache are there twice",
    ),
)

PR_2902 = "pr-2902"
SWITCHES: Mapping[str, Wrong] = _by_name(
    _wrong(
        "range-granular",
        "invariant:peak_bounded",
        "a run of dirty blocks is punched when all of it is copied: a contiguous dirty guest peaks at 2x",
        "pr-2902-range-granular.yaml",
    ),
    _wrong(
        "dirty-pages-only",
        "metric:punched_bytes",
        "clean pages stay in memory until the memfd is closed",
        "pr-2902-dirty-pages-only.yaml",
    ),
    _wrong(
        "two-mib-alignment",
        "metric:punched_bytes",
        "every dirty run must be aligned to 2 MiB, whatever the page size: guests with 4 KiB pages are never punched",
        "pr-2902-two-mib-alignment.yaml",
    ),
    _wrong(
        "failed-punch-fatal",
        "metric:pauses",
        "a failed punch fails the pause, although the bytes are safe: it costs a healthy sandbox",
        "pr-2902-failed-punch-fatal.yaml",
    ),
    _wrong(
        "no-preflight",
        "metric:pauses",
        "a lack of space is found when nearly everything is punched, not before anything is",
        "pr-2902-no-preflight.yaml",
    ),
    _wrong(
        "async-failure",
        "invariant:failed_copy_discards",
        "a copy that fails after success was answered leaves the sandbox paused, on a build that does not exist",
        "pr-2902-async-failure.yaml",
    ),
    _wrong(
        "not-gated",
        "invariant:never_resumed",
        "the flag alone decides: a checkpoint in place is punched too",
        "pr-2902-not-gated.yaml",
    ),
    _wrong(
        "resumed-by-convention",
        "invariant:never_resumed",
        "only convention keeps a failed pause from resuming its guest: no record stands against it",
        "pr-2902-resumed-by-convention.yaml",
    ),
    _wrong(
        "dedup-ignores-flag",
        "invariant:decision_pinned",
        "with dedup on the flag does nothing, and nothing says so",
        "pr-2902-dedup-ignores-flag.yaml",
    ),
)
"""Weaknesses of e2b-dev/infra pull request 2902, as written, that can bite on this side: each can be mended alone.

Not here because they cannot be shown: EACCES of a punch through a read-only mapping (Linux before 6.7 only), the
copy-on-write window (there is none), and missing telemetry. The wrong claim that hugetlb refuses to punch parts of
pages is the mutant `sub-page-punch`.
"""

WHOLE = _wrong(
    PR_2902, "invariant:never_resumed", "the pull request as written: all of its weaknesses at once", "pr-2902.yaml"
)


def wrong_engine(mutant: str | None, profile: str | None, mended: list[str]) -> str | None:
    """`pr-2902 (wrong on purpose), mended: not-gated`; None for the sound engine."""
    name = profile or mutant
    if name is None:
        return None
    return f"{name} (wrong on purpose)" + (f", mended: {', '.join(mended)}" if mended else "")
