"""What is written down of a build's chunks: read back as it was, and gone when nobody needs it."""

from __future__ import annotations

from pathlib import Path

from engine import chunk_records


def test_records_are_removed_where_they_are_and_their_lack_hinders_nothing(tmp_path: Path) -> None:
    (tmp_path / chunk_records.NAME).write_bytes(b"x")
    for _ in range(2):
        chunk_records.remove(tmp_path)
        assert list(tmp_path.iterdir()) == []
    chunk_records.remove(tmp_path / "nowhere")
