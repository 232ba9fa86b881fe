"""A browser gets in by the link, once; nobody else does, and nothing listens beyond the loopback."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import AsyncIterator
from unittest.mock import Mock

import pytest
from aiohttp import ClientSession, CookieJar, WSServerHandshakeError
from aiohttp.test_utils import unused_port
from aiohttp.web import AppRunner, SockSite
from textual.app import App

from sim.cli import main
from sim.record.verdict import ExitCode
from sim.tui.terminal import Browser
from sim.tui.web import LOOPBACK, Screens, listen

SAYS = "import os, sys; print('__GANGLION__', flush=True); data = os.environ['COLUMNS'].encode()\n"
SAYS += "sys.stdout.buffer.write(b'D' + len(data).to_bytes(4, 'big') + data); sys.stdout.flush(); sys.stdin.read()"


@pytest.fixture
async def screens() -> AsyncIterator[Screens]:
    listener = listen(0)
    made = Screens([sys.executable, "-c", SAYS], listener.getsockname()[1])
    runner = AppRunner(await made.site(), shutdown_timeout=0.1)
    await runner.setup()
    await SockSite(runner, listener).start()
    yield made
    await made.end()
    await runner.cleanup()


@pytest.fixture
async def browser() -> AsyncIterator[ClientSession]:
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:  # of an address, not of a name
        yield session


def at(screens: Screens, path: str) -> str:
    return f"http://{screens.gate.host}{path}"


async def status(browser: ClientSession, url: str, **headers: str) -> int:
    async with browser.get(url, headers=headers) as answer:
        return answer.status


@pytest.mark.parametrize("path", ["/", "/?token=", "/?token=guessed", "/ws", "/static/js/textual.js", "/download/x"])
async def test_without_the_token_everything_is_refused(screens: Screens, browser: ClientSession, path: str) -> None:
    assert await status(browser, at(screens, path)) == 403


async def test_the_link_opens_once_and_its_browser_stays_in(screens: Screens, browser: ClientSession) -> None:
    async with browser.get(screens.gate.link) as page:
        assert page.status == 200
        assert page.url.query_string == "", "the token is not kept in the address"
        assert "https:" not in await page.text(), "the page asks no other host for anything"
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert await status(browser, at(screens, "/static/js/textual.js")) == 200
    async with ClientSession() as another:
        assert await status(another, screens.gate.link) == 403
        assert await status(another, at(screens, "/")) == 403
    assert await status(browser, at(screens, "/")) == 200


async def test_only_the_loopback_by_its_own_name_is_answered(screens: Screens, browser: ClientSession) -> None:
    assert await status(browser, screens.gate.link, Host="rebound.example") == 403
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
    with listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


async def test_a_page_of_another_origin_gets_no_screen(screens: Screens, browser: ClientSession) -> None:
    assert await status(browser, screens.gate.link) == 200
    with pytest.raises(WSServerHandshakeError) as refused:
        await browser.ws_connect(at(screens, "/ws"), origin="http://elsewhere.example")
    assert refused.value.status == 403
    async with browser.ws_connect(
        at(screens, "/ws?width=97&height=30"), origin=f"http://{screens.gate.host}"
    ) as screen:
        assert await screen.receive_bytes() == b"97", "what the process draws, in the browser's size"


@pytest.mark.parametrize("arguments", [["--web-control"], ["--web-port", "8000"], ["--web", "--stage"]])
def test_options_that_contradict_each_other_are_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tui", *arguments]) == ExitCode.USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with listen(0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["tui", "--web", "--web-port", str(port)]) == ExitCode.USAGE
    assert capsys.readouterr().err == (
        f"snapdrill: --web-port {port}: Address already in use; take another, or 0 for a free one\n"
    )


def test_without_the_extra_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "sim.tui.web")
    monkeypatch.setitem(sys.modules, "textual_serve.server", None)
    assert main(["tui", "--web", "--web-port", str(unused_port())]) == ExitCode.USAGE
    assert capsys.readouterr().err == "snapdrill: --web needs textual-serve: pip install 'snapdrill[web]'\n"


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["--web", "--seed", "7", "some.yaml"], ["--read-only", "--seed", "7", "--", "some.yaml"]),
        (["--web", "--web-control", "--relay", "--lease", "2s"], ["--relay", "--lease", "2s"]),
        (["--web", "--web-control", "--read-only"], ["--read-only"]),
        (["--web", "--attach", "runs/x"], ["--read-only", "--attach", "runs/x"]),
    ],
)
def test_the_screen_in_a_browser_is_read_only_unless_it_may_control(
    arguments: list[str], asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[list[str]] = []

    async def serve(arguments: list[str], listener: socket.socket, _: object) -> int:
        listener.close()
        served.append(arguments)
        return 2

    monkeypatch.setattr("sim.tui.web.serve", serve)
    assert main(["tui", *arguments]) == 130
    assert served == [["tui", *asked]]


async def test_a_browser_that_reads_no_more_hangs_up_and_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hung_up = threading.Event()
    monkeypatch.setattr("sim.tui.terminal.os.kill", lambda _pid, _number: hung_up.set())
    monkeypatch.setattr("textual.drivers.web_driver.InputReader", Mock)
    monkeypatch.setattr("sim.tui.terminal.MOST_UNREAD", 1 << 20)
    monkeypatch.setattr("sim.tui.terminal.LAST_WORDS", 0.1)
    reads, writes = os.pipe()
    driver = Browser(App())
    driver.fileno = writes
    for _ in range(20):
        driver.write("x" * (64 << 10))
    assert hung_up.is_set()
    driver.stop_application_mode()
    os.close(reads)
    os.close(writes)
