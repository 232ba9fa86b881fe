"""The units of a worker of the local pool: they come on its connection, one after the other, until it closes."""

from __future__ import annotations

import asyncio
import gc
from multiprocessing.connection import Connection

from sim.cluster import Unit, UnitResult
from sim.node_link import NodeStarter
from sim.node_server import NodeServer
from sim.unit_run import run_unit


def serve(connection: Connection[UnitResult | None, Unit], nodes: NodeServer) -> int:
    """Say that it can begin, then run what comes; the exit code."""
    gc.collect()
    gc.freeze()
    try:
        connection.send(None)
    except BrokenPipeError:  # it was closed before anything was to be done
        return 0
    with asyncio.Runner() as runner:
        while True:
            try:
                unit = connection.recv()
            except (EOFError, ConnectionResetError):  # the latter where it was closed before our readiness was read
                return 0
            result = runner.run(_run(unit, connection, nodes.node))
            if result is None:
                return 0
            connection.send(result)


async def _run(
    unit: Unit, connection: Connection[UnitResult | None, Unit], start_node: NodeStarter
) -> UnitResult | None:
    """None where the pool closed the connection, or died: then the run was torn down."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(run_unit(unit, start_node))

    def cancel_once() -> None:  # nothing is sent meanwhile: what can be read is the end
        loop.remove_reader(connection.fileno())
        task.cancel()

    loop.add_reader(connection.fileno(), cancel_once)
    try:
        return await task
    except asyncio.CancelledError:
        return None
    finally:
        loop.remove_reader(connection.fileno())
