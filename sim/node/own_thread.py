"""Blocking work of the event loop, each piece in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from engine.errors import EngineError

Result = TypeVar("Result")


def in_own_thread(act: Callable[[], Result], name: str) -> asyncio.Future[Result]:
    """Begin `act` in a thread of its own; gives what it will return or raise.

    EngineError, with nothing begun, where no thread can be started. One of the loop's own is no way out: what `act`
    does to its thread, a system call filter for one, it would do to everything that comes there after it.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Result] = loop.create_future()

    def tell(result: Result | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = act()
        except BaseException as raised:  # noqa: BLE001 - handed to the task that awaits it
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: no task awaits it any more
            loop.call_soon_threadsafe(tell, result, error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        raise EngineError(f"no thread could be started for {name}: {error}") from error
    return future
