"""What `snapdrill flags propagation` prints of the times that it measured."""

from __future__ import annotations

from sim.commands.flag.propagation import as_document, measured, report


def test_each_way_is_a_line_and_what_was_given_up_says_so() -> None:
    text = report({"stream": [0.001, None, 0.003], "half-open": [None, None]}, lease=0.5)
    head, stream, half_open, *note = [line.split() for line in text.splitlines()[2:]]
    assert head == ["way", "obeyed", "min", "median", "p95", "max", "note"]
    assert stream == ["stream", "2/3", "1.0", "ms", "2.0", "ms", "3.0", "ms", "3.0", "ms"]
    assert half_open[:6] == ["half-open", "0/2", "-", "-", "-", "-"]
    said = " ".join(word for line in [half_open[6:], *note] for word in line)
    assert said == "not while it lasts (1 s were waited): the SDK says VALID for 300 s (given)"


def test_the_document_has_every_round_and_null_where_it_was_given_up() -> None:
    document = as_document({"file": [0.25, None], "half-open": [None]})
    assert document["file"] == {"seconds": [0.25, None], "n": 1, "min": 0.25, "median": 0.25, "p95": 0.25, "max": 0.25}
    assert document["half-open"] == {"seconds": [None], "n": 0}


def test_every_way_is_measured_and_a_lease_bounds_half_open() -> None:
    times = measured(rounds=1, lease=0.3)
    assert list(times) == ["file", "stream", "half-open with lease", "half-open"]
    assert times["half-open"] == [None]
    assert all(times[way] != [None] for way in ("file", "stream", "half-open with lease"))
