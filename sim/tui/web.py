"""The screen in a browser on this machine: served on the loopback, to the browser that opens the one-time link."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from textual_serve.server import Server

LOOPBACK = "127.0.0.1"
PAGES = Path(__file__).with_name("browser")
FORBIDDEN = "Open the link that snapdrill printed. It opens once; to get another, start snapdrill again.\n"
ENDING = 90.0
"""Seconds that the run of a browser may take to be judged and torn down, once the server is stopped."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self' ws:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Doorkeeper:
    """Lets in the first request with `token`, and from then on the browser that made it, by a cookie of its session.

    Whatever names another host than the loopback is refused: a page of elsewhere may have its name resolved to it.
    """

    def __init__(self, port: int) -> None:
        self.host = f"{LOOPBACK}:{port}"
        self.token = secrets.token_urlsafe(32)
        self.cookie = f"snapdrill-{port}"
        self._session: str | None = None

    @property
    def link(self) -> str:
        """Opens once."""
        return f"http://{self.host}/?token={self.token}"

    @web.middleware
    async def check(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """403 for every request that is not of the one session."""
        if request.headers.get("Host") != self.host:
            raise web.HTTPForbidden(text=FORBIDDEN, headers=HEADERS)
        if self._is_session(request):
            response = await handler(request)
            if not response.prepared:
                response.headers.update(HEADERS)
            return response
        if self._session is None and request.path == "/" and _same(request.query.get("token"), self.token):
            self._session = secrets.token_urlsafe(32)
            entered = web.HTTPSeeOther("/", headers=HEADERS)
            entered.set_cookie(self.cookie, self._session, httponly=True, samesite="Lax")
            raise entered
        raise web.HTTPForbidden(text=FORBIDDEN, headers=HEADERS)

    def _is_session(self, request: web.Request) -> bool:
        """A page of another origin is refused though the browser may send the cookie along."""
        origin = request.headers.get("Origin", f"http://{self.host}")
        return _same(request.cookies.get(self.cookie), self._session) and origin == f"http://{self.host}"


def _same(given: str | None, secret: str | None) -> bool:
    return given is not None and secret is not None and hmac.compare_digest(given.encode(), secret.encode())


class Screens(Server):
    """Runs `command` once for each page that is opened, one after the other: a reload ends the run before it."""

    def __init__(self, command: Sequence[str], port: int) -> None:
        super().__init__(f"exec {shlex.join(command)}", LOOPBACK, port, "snapdrill", templates_path=str(PAGES))
        self.gate = Doorkeeper(port)
        self._one = asyncio.Lock()
        self._open: set[asyncio.Task[object]] = set()

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self.gate.check)
        app.router.add_static("/own", PAGES)
        return app

    async def site(self) -> web.Application:
        """The pages, behind the gate."""
        return await self._make_app()

    async def on_startup(self, app: web.Application) -> None:
        """What the base prints is of no use: its address lacks the token."""

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        """One browser's screen, until either side ends it."""
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        async with self._one:
            return await super().handle_websocket(request)

    async def end(self) -> None:
        """End what is shown; its run is judged and torn down."""
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=ENDING)


def listen(port: int) -> socket.socket:
    """On the loopback alone; 0 takes a free port. Raises OSError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
    except OSError:
        listener.close()
        raise
    return listener


async def serve(arguments: Sequence[str], listener: socket.socket, say: Callable[[str], object]) -> int:
    """Serve `snapdrill ARGUMENTS` until a signal comes; gives its number."""
    command = [sys.executable, "-c", "import sys; from sim.cli import main; sys.exit(main())", *arguments]
    screens = Screens(command, listener.getsockname()[1])
    stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _first, stopped, number)
    runner = web.AppRunner(await screens.site(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        say(screens.gate.link)
        return await stopped
    finally:
        await screens.end()
        await runner.cleanup()


def _first(stopped: asyncio.Future[int], number: int) -> None:
    if not stopped.done():
        stopped.set_result(number)
