from __future__ import annotations

import json
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from flags.document import DocumentError
from sim.files import fleet_file
from sim.files.plan import load_plan_text
from sim.files.prometheus_query import MOST_BYTES, ask

Answers = Callable[[BaseHTTPRequestHandler], None]
PLAN = """\
kind: plan
name: asked
pacing: {pausesPerMinute: {prometheus: {url: "URL", query: "rate"}}}
propagation: {prometheus: {url: "URL", query: "delays"}}
fleet: [{name: web, count: 4, memory: 1MiB}]
steps: [{setWeight: 5}]
"""
FLEET = """\
kind: fleet
name: asked
node: {memory: 1GiB, sandboxes: 10}
groups:
  - name: web
    count: 10
    memory: 8MiB
    dirty: {prometheus: {url: "URL", query: "dirty"}}
    pauses_per_hour: {median: {prometheus: {url: "URL", query: "rate"}}}
"""


class Fake:
    """A server on this machine whose next answers a test chooses, and the requests that it got."""

    def __init__(self) -> None:
        self.answers: Answers = lambda _: None
        self.asked: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.asked.append(self.path)
                fake.answers(self)

            def log_message(self, *_: Any) -> None:
                """Nothing is printed."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def vectors(self, **by_query: list[tuple[dict[str, str], str]]) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            (query,) = parse_qs(urlsplit(handler.path).query)["query"]
            result = [{"metric": labels, "value": [0, value]} for labels, value in by_query[query]]
            send(handler, 200, json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}))

        self.answers = answer

    def body(self, status: int, text: str, **headers: str) -> None:
        self.answers = lambda handler: send(handler, status, text, **headers)


def send(handler: BaseHTTPRequestHandler, status: int, text: str, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(text.encode())


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


def test_a_plan_takes_its_pause_rate_and_its_propagation(fake: Fake) -> None:
    delays = [({"quantile": share}, value) for share, value in (("0.5", "0.25"), ("0.99", "4"), ("1", "9.5"))]
    fake.vectors(rate=[({}, "12.5")], delays=delays)
    plan = load_plan_text(PLAN.replace("URL", fake.url), pathlib.Path("plan.yaml"))
    assert plan.pacing.pauses_per_minute == 12.5
    assert (plan.propagation.p50, plan.propagation.p99, plan.propagation.most) == (0.25, 4.0, 9.5)
    assert [(path, query) for path, _, query in plan.document.asked] == [
        (("pacing", "pausesPerMinute"), "rate"),
        (("propagation",), "delays"),
    ]
    assert all(urlsplit(each).path == "/api/v1/query" for each in fake.asked)


def test_series_without_a_quantile_are_measured_times(fake: Fake) -> None:
    fake.vectors(rate=[({}, "1")], delays=[({"node": "b"}, "3"), ({"node": "a"}, "0.5")])
    plan = load_plan_text(PLAN.replace("URL", fake.url), pathlib.Path("plan.yaml"))
    assert (plan.propagation.measured, plan.propagation.origin) == ((0.5, 3.0), "measured")


def test_a_fleet_takes_its_dirty_share_and_its_pause_rate(fake: Fake) -> None:
    fake.vectors(rate=[({}, "2.5")], dirty=[({}, "0.42")])
    (group,) = fleet_file.load_text(FLEET.replace("URL", fake.url), pathlib.Path("fleet.yaml")).groups
    assert (group.dirty, group.pauses_per_hour.median) == (42.0, 2.5)


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        ([], "the query gives nothing, and one value is needed"),
        ([({"a": "1"}, "1"), ({"a": "2"}, "2")], "the query gives 2 series, and one value is needed"),
        ([({}, "NaN")], "the query gives nan"),
        ([({}, "-1")], "the query gives -1"),
        ([({}, "0")], "pausesPerMinute"),
    ],
)
def test_an_answer_that_is_no_rate_is_one_mistake_at_its_place(
    rate: list[tuple[dict[str, str], str]], says: str, fake: Fake
) -> None:
    fake.vectors(rate=rate, delays=[({}, "1")])
    with pytest.raises(DocumentError) as raised:
        load_plan_text(PLAN.replace("URL", fake.url), pathlib.Path("plan.yaml"))
    (mistake,) = raised.value.mistakes
    assert mistake.position.line == 3
    assert says in str(mistake)


@pytest.mark.parametrize(
    ("status", "text", "headers", "says"),
    [
        (400, '{"status": "error", "error": "parse error"}', {}, 'answered 400: "parse error"'),
        (503, "<html>", {}, "answered 503: no reason given"),
        (302, "", {"Location": "http://127.0.0.1:1/"}, "answered 302"),
        (200, "<html>", {}, "gave no answer of Prometheus"),
        (200, '{"data": {"resultType": "matrix", "result": []}}', {}, 'gives a "matrix"'),
        (200, '{"data": {"resultType": "vector", "result": [1]}}', {}, "gave no answer of Prometheus"),
        (200, "[" * 100_000, {}, "gave no answer of Prometheus"),
        (200, " " * (MOST_BYTES + 1), {}, "answered more than 1 MiB"),
    ],
)
def test_what_is_no_answer_is_said_in_one_line(
    status: int, text: str, headers: dict[str, str], says: str, fake: Fake
) -> None:
    fake.body(status, text, **headers)
    with pytest.raises(ValueError, match=says) as raised:
        ask(fake.url, "up")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("drips", [False, True])
def test_a_server_that_is_late_is_waited_for_no_longer_than_asked(drips: bool, fake: Fake) -> None:
    done = threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        if drips:
            handler.send_response(200)
            handler.end_headers()
        while not done.wait(0.02):
            if drips:
                handler.wfile.write(b" ")

    fake.answers = slow
    began = time.monotonic()
    try:
        with pytest.raises(ValueError, match="did not answer within 300ms"):
            ask(fake.url, "up", seconds=0.3)
    finally:
        done.set()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://user:pass@host", "http://a?x=1", "file:///etc/passwd"])
def test_a_url_that_is_not_asked_is_a_mistake(url: str) -> None:
    with pytest.raises(DocumentError, match="url"):
        load_plan_text(PLAN.replace("URL", url), pathlib.Path("plan.yaml"))


def test_a_query_elsewhere_is_no_value_and_is_not_asked(fake: Fake) -> None:
    text = PLAN.replace("count: 4", 'count: {prometheus: {url: "URL", query: "rate"}}').replace("URL", fake.url)
    fake.vectors(rate=[({}, "1")], delays=[({}, "1")])
    with pytest.raises(DocumentError, match="count"):
        load_plan_text(text, pathlib.Path("plan.yaml"))
    assert len(fake.asked) == 2
