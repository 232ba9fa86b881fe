"""Values that a plan or a fleet takes from Prometheus: each an instant query, asked once, when the file is read.

Read-only: a GET of `/api/v1/query`, without credentials, redirects or a proxy. An answer takes 10 seconds and 1 MiB at
most.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib import error, parse, request

from flags.document import Mistake, Path
from sim.files.units import format_duration, show
from sim.files.yaml import Document

SECONDS = 10.0
MOST_BYTES = 1 << 20
LONGEST = 4096
"""Characters of a query."""
KEY = "prometheus"
_READ = 1 << 16
_QUANTILES = {0.5: "p50", 0.95: "p95", 0.99: "p99", 1.0: "most"}
_PLACES: Mapping[Path, str] = {
    ("propagation",): "delays",
    ("pacing", "pausesPerMinute"): "number",
    ("pacing", "checkpointsPerMinute"): "number",
    ("production", "pausesPerMinute"): "number",
    ("production", "checkpointsPerMinute"): "number",
    ("groups", 0, "dirty"): "share",
    ("groups", 0, "pauses_per_hour", "median"): "number",
    ("groups", 0, "pauses_per_hour", "peak"): "number",
    ("groups", 0, "checkpoints_per_hour"): "number",
}
"""Where a query may stand, and what its answer has to be; 0 stands for any place of a list."""
Series = list[tuple[Mapping[str, str], float]]


class OrAsked:
    """In the schema: the value itself, or a query for it."""

    def __get_pydantic_json_schema__(self, core: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        text = {"type": "string", "minLength": 1, "maxLength": LONGEST}
        asked = {
            "type": "object",
            "description": "An instant query, asked when the file is read.",
            "properties": {"url": {"type": "string", "pattern": "^https?://"}, "query": text},
            "required": ["url", "query"],
            "additionalProperties": False,
        }
        one = {"type": "object", "properties": {KEY: asked}, "required": [KEY], "additionalProperties": False}
        return {"anyOf": [handler(core), one]}


def put_answers(document: Document) -> list[Mistake]:
    """Each query of the document is replaced by its answer, and listed in `document.asked`; the mistakes of the others.

    A query whose answer is no value is replaced by nothing, so that it is one mistake and not two.
    """
    wrong = []
    for path, kind in list(_queries(document.data, ())):
        holder = document.data
        for part in path[:-1]:
            holder = holder[part]
        settings = holder[path[-1]][KEY]
        try:
            value = _FORMS[kind](ask(*_settings(settings)))
        except ValueError as why:
            wrong.append(document.mistake((*path, KEY), str(why)))
            del holder[path[-1]]
            continue
        holder[path[-1]] = value
        document.asked.append((path, json.dumps(value), str(settings["query"])))
    return wrong


def _queries(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    kind = _PLACES.get(tuple(0 if isinstance(each, int) else each for each in path))
    if kind is not None and isinstance(value, dict) and set(value) == {KEY}:
        yield path, kind
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        if len(path) < max(map(len, _PLACES)):
            yield from _queries(each, (*path, key))


def _settings(settings: Any) -> tuple[str, str]:
    if not isinstance(settings, dict) or set(settings) != {"url", "query"}:
        raise ValueError('expected a url and a query: {url: "http://prometheus:9090", query: "..."}')
    url, query = settings["url"], settings["query"]
    if not isinstance(query, str) or not 0 < len(query) <= LONGEST:
        raise ValueError(f"expected a query of 1 to {LONGEST:,} characters, got {show(query)}")
    known = parse.urlsplit(url) if isinstance(url, str) else None
    if known is None or known.scheme not in {"http", "https"} or not known.hostname or known.query or known.fragment:
        raise ValueError(f"expected a url such as http://prometheus:9090, got {show(url)}")
    if known.username is not None:
        raise ValueError("a url in a file has no password; put a proxy that knows it before Prometheus")
    return str(url), query


class _NoRedirect(request.HTTPRedirectHandler):
    """An answer from elsewhere is none."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def ask(url: str, query: str, seconds: float = SECONDS) -> Series:
    """Labels and value of each series; ValueError where there is no answer, with what Prometheus says."""
    asked = f"{url.rstrip('/')}/api/v1/query?{parse.urlencode({'query': query, 'timeout': f'{seconds:g}s'})}"
    opener = request.build_opener(request.ProxyHandler({}), _NoRedirect)
    deadline = time.monotonic() + seconds
    try:
        with opener.open(asked, timeout=seconds) as answer:  # http or https, by _settings
            text = _read(answer, url, deadline)
    except error.HTTPError as failed:
        with failed:
            raise ValueError(f"{url} answered {failed.code}: {_reason(failed.read(_READ))}") from None
    except TimeoutError:
        raise ValueError(f"{url} did not answer within {format_duration(seconds)}") from None
    except (OSError, ValueError) as failed:
        reason = getattr(failed, "reason", failed)
        late = isinstance(reason, TimeoutError)
        what = f"did not answer within {format_duration(seconds)}" if late else f"cannot be asked: {reason}"
        raise ValueError(str(failed) if str(failed).startswith(url) else f"{url} {what}") from None
    return _series(text, url)


def _read(answer: Any, url: str, deadline: float) -> bytes:
    """A server that sends a byte now and then is late too."""
    parts, size = [], 0
    while part := answer.read1(_READ):
        parts.append(part)
        size += len(part)
        if size > MOST_BYTES:
            raise ValueError(f"{url} answered more than {MOST_BYTES >> 20} MiB; ask for fewer series")
        if time.monotonic() > deadline:
            raise TimeoutError
    return b"".join(parts)


def _reason(body: bytes) -> str:
    """Prometheus says why; anything else is not printed."""
    try:
        said = json.loads(body).get("error")
    except (ValueError, AttributeError):
        return "no reason given"
    return show(said)[:300] if isinstance(said, str) else "no reason given"


def _series(text: bytes, url: str) -> Series:
    try:
        data = json.loads(text)["data"]
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        if data["resultType"] != "vector":
            raise ValueError(f"the query gives a {show(data['resultType'])}; ask for values of now, not of a range")
        return [(each["metric"], float(each["value"][1])) for each in data["result"]]
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError, json.JSONDecodeError):
        raise ValueError(f"{url} gave no answer of Prometheus") from None


def _number(series: Series) -> float:
    if len(series) != 1:
        many = "nothing" if not series else f"{len(series):,} series"
        raise ValueError(f"the query gives {many}, and one value is needed; aggregate it, such as with sum()")
    value = series[0][1]
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"the query gives {value:g}; expected a number from 0 on")
    return value


def _share(series: Series) -> str:
    value = _number(series)
    if value > 1:
        raise ValueError(f"the query gives {value:g}; expected a share from 0 to 1")
    return f"{value * 100:.6g}%"


def _delays(series: Series) -> dict[str, Any]:
    """Percentiles, where every series has a label `quantile`; else each is one measured time."""
    if not series:
        raise ValueError("the query gives nothing; expected seconds")
    if bad := [value for _, value in series if not math.isfinite(value) or not 0 <= value < 1e6]:
        raise ValueError(f"the query gives {bad[0]:g}; expected seconds")
    if not any("quantile" in labels for labels, _ in series):
        return {"measured": [_duration(value) for _, value in sorted(series, key=lambda each: each[1])]}
    made: dict[str, Any] = {}
    for labels, value in series:
        name = _QUANTILES.get(_quantile(labels))
        if name is None or name in made:
            said = show(labels.get("quantile"))
            raise ValueError(f"a series has quantile {said}; expected 0.5, 0.95, 0.99 and 1, each once")
        made[name] = _duration(value)
    return made


def _quantile(labels: Mapping[str, str]) -> float:
    try:
        return float(labels.get("quantile", ""))
    except ValueError:
        return math.nan


def _duration(seconds: float) -> str:
    return f"{max(seconds, 0.001) * 1000:.0f}ms"


_FORMS: Mapping[str, Callable[[Series], Any]] = {"number": _number, "share": _share, "delays": _delays}
