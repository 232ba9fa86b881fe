"""The last boundary out: streams that a command prints to, and hostile values through each kind of output."""

from __future__ import annotations

import io
import pathlib
import re

import pytest

from flags.document import Mistake, Position
from sim.record import events
from sim.record.ledger import Entry
from sim.record.view import View
from sim.report import github, html
from sim.report.junit import suite, write_junit
from sim.report.outlet import Outlet, Outlets, say_commands
from sim.report.prometheus import Metrics
from sim.report.table import Code, Paragraph, Section, Table, markdown, text
from tests.story import Story, created, run_ended, run_started, view_of

HOSTILE = {
    "newline": "a\n::error::b",
    "escape": "\x1b[2J\x1b]0;owned\a",
    "bidi": "\u202egnp.\u2066exe\u2069",
    "long": "x" * (1 << 20),
    "nul": "\0\ud800\x85",
}
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@pytest.fixture(params=HOSTILE, ids=str)
def hostile(request: pytest.FixtureRequest) -> str:
    return HOSTILE[request.param]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_stream_gets_nothing_that_is_obeyed(hostile: str) -> None:
    stream = io.StringIO()
    Outlet(stream, "standard output").write(f"said: {hostile}\n")
    assert not OBEYED.search(stream.getvalue())
    assert not any(line.startswith("::") for line in stream.getvalue().splitlines())


def test_a_terminal_gets_our_colours_and_progress_and_no_other_sequence() -> None:
    stream = Terminal()
    Outlet(stream, "standard error").write("\r\x1b[K1/2 \x1b[32mok\x1b[0m \x1b[2J\x1b]0;owned\a")
    assert stream.getvalue() == "\r\x1b[K1/2 \x1b[32mok\x1b[0m \\x1b[2J\\x1b]0;owned\\x07"


def test_only_our_own_commands_reach_github(capsys: pytest.CaptureFixture[str]) -> None:
    with Outlets() as outlets:
        outlets.err.write("::error::theirs\n")
        say_commands(["::error::ours"])
    assert capsys.readouterr().err == "\\x3a:error::theirs\n::error::ours\n"


def test_a_full_stream_loses_what_is_written_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    outlet = Outlet(Full(), "standard output")
    assert outlet.write("a\n") == 2
    outlet.flush()
    assert outlet.lost == "No space left on device"
    assert Outlet(None, "standard output").write("a") == 1


def test_a_character_that_the_stream_cannot_encode_is_shown_by_its_code() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    outlet = Outlet(stream, "standard output")
    outlet.write("é")
    outlet.flush()
    assert raw.getvalue() == b"\\xe9"


def test_a_mistake_is_one_line_of_a_bounded_length(hostile: str) -> None:
    line = str(Mistake(Position(3, 1), hostile, hostile, hostile, f"{hostile}.yaml"))
    assert len(line.splitlines()) == 1
    assert len(line) < 4 * 500
    assert not OBEYED.search(line)


def test_text_and_markdown_show_a_value_and_obey_nothing(hostile: str) -> None:
    parts = (Paragraph(hostile), Table(("head",), [(hostile,)]), Code(hostile))
    for said in (text(list(parts)), markdown(Section(hostile, parts), level=3)):
        assert not OBEYED.search(said)


def test_an_annotation_is_one_line(hostile: str) -> None:
    line = github.Annotation("error", hostile, hostile, f"{hostile}.yaml", 1, 1).command()
    assert len(line.splitlines()) == 1
    assert not OBEYED.search(line)


FOLDER = pathlib.Path("runs/told/1")
PAGES = ("html", "junit", "github", "prometheus")


def written(page: str, view: View, entries: list[Entry], folder: pathlib.Path) -> str:
    scenario = pathlib.Path("told.yaml")
    match page:
        case "html":
            return html.report(entries, view, FOLDER, scenario_file=scenario)
        case "junit":
            write_junit(folder / "junit.xml", [suite(view, FOLDER, scenario, entries)])
            return (folder / "junit.xml").read_text()
        case "github":
            return github.section(view, FOLDER, scenario, entries)
    metrics = Metrics()
    metrics.add(entries, view)
    metrics.write(folder / "metrics.prom")
    return (folder / "metrics.prom").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_every_report_shortens_and_escapes_each_value_that_it_quotes(
    hostile: str, page: str, tmp_path: pathlib.Path
) -> None:
    quoted = f"<script>{hostile}</script>"
    judged = events.Judged(f"state:{quoted}", "violated", 1, [{"sandbox": quoted, "reason": quoted, "pause": quoted}])
    story = Story().tell(run_started(name=quoted), None).tell(created(template=quoted, team=quoted))
    story.spawn(tracker_why=quoted, tracker=quoted).begin_pause().copy().finish(
        error=quoted, punch_error=quoted, punch_reason=quoted
    )
    story.tell(events.RequestRefused("pause", quoted), "web-0").tell(judged, None)
    story.tell(run_ended("violated", 1), None)
    said = written(page, view_of(story.entries), story.entries, tmp_path)
    assert not OBEYED.search(said)
    assert not any(line.startswith("::") for line in said.splitlines())
    assert "x" * ((64 << 10) + 1) not in said
    if page in {"html", "junit"}:
        assert "<script>" not in said.replace("<script></script>", "")
