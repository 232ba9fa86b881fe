from __future__ import annotations

import io

from textual.drivers._writer_thread import MAX_QUEUED_WRITES, WriterThread

from sim.tui.terminal import MortalTerminal


def test_writing_to_a_terminal_that_is_gone_never_blocks() -> None:
    driver = MortalTerminal.__new__(MortalTerminal)
    dead = driver._writer_thread = WriterThread(io.StringIO())  # never started: as dead as one whose terminal is gone
    for _ in range(MAX_QUEUED_WRITES + 1):
        driver.write("frame")
    assert dead._queue.empty()


def test_a_living_terminal_gets_everything() -> None:
    driver = MortalTerminal.__new__(MortalTerminal)
    terminal = io.StringIO()
    thread = driver._writer_thread = WriterThread(terminal)
    thread.start()
    driver.write("frame")
    thread.stop()
    assert terminal.getvalue() == "frame"
