"""Work that wants a thread which nobody had before and nobody gets after: what it does to the thread ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def in_own_thread(act: Callable[[], Result], name: str) -> Result:
    """What `act` returns or raises. Where no thread can be started, one of the loop's own does it."""
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
        except BaseException as raised:  # noqa: BLE001 - handed to whoever awaits it
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody awaits it any more
            loop.call_soon_threadsafe(tell, result, error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:
        return await asyncio.to_thread(act)
    return await future
