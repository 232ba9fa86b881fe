"""Values of a plan from a real Prometheus: the distribution's package, unpacked into a folder of the test."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from sim.files.plan import load_plan_text
from sim.files.prometheus_query import ask

HISTORY = """\
# TYPE pauses counter
pauses_total{node="a"} 0 BEFORE
pauses_total{node="b"} 0 BEFORE
pauses_total{node="a"} 120 NOW
pauses_total{node="b"} 60 NOW
# TYPE off_seconds gauge
off_seconds{quantile="0.5"} 0.2 NOW
off_seconds{quantile="0.99"} 5 NOW
off_seconds{quantile="1"} 30 NOW
# EOF
"""
PLAN = """\
kind: plan
name: asked
pacing: {pausesPerMinute: {prometheus: {url: "URL", query: "sum(max_over_time(pauses_total[10m])) / 10"}}}
propagation: {prometheus: {url: "URL", query: "off_seconds"}}
fleet: [{name: web, count: 4, memory: 1MiB}]
steps: [{setWeight: 5}]
"""


def binaries(folder: Path) -> Path:
    """The folder of `prometheus` and `promtool`."""
    if (found := shutil.which("prometheus")) and shutil.which("promtool"):
        return Path(found).parent
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        pytest.skip("prometheus is not installed, and this distribution has no apt-get")
    got = subprocess.run(
        ["apt-get", "download", "prometheus"], cwd=folder, capture_output=True, timeout=60, check=False
    )
    package = next(folder.glob("prometheus_*.deb"), None)
    if got.returncode or package is None:
        pytest.skip("prometheus is not installed, and its package cannot be downloaded")
    subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=folder, check=True, timeout=60)
    return folder / "usr" / "bin"


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address, with a history of ten minutes."""
    folder = tmp_path_factory.mktemp("prometheus")
    programs, now = binaries(folder), int(time.time())
    (folder / "history").write_text(HISTORY.replace("NOW", str(now - 5)).replace("BEFORE", str(now - 300)))
    tool = [str(programs / "promtool"), "tsdb", "create-blocks-from", "openmetrics", "history", "data"]
    subprocess.run(tool, cwd=folder, check=True, capture_output=True, timeout=60)
    (folder / "none.yml").write_text("{}\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    paths = ["--config.file=none.yml", "--storage.tsdb.path=data", f"--web.listen-address={address}"]
    with subprocess.Popen([str(programs / "prometheus"), *paths], cwd=folder, stderr=subprocess.DEVNULL) as server:
        try:
            _until_ready(address, server)
            yield f"http://{address}"
        finally:
            server.terminate()
            server.wait(20)
    shutil.rmtree(folder)


def _until_ready(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        connection = HTTPConnection(address, timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/-/ready")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    pytest.fail("prometheus is not ready after 60 s")


def test_a_plan_has_its_rate_and_its_propagation_from_prometheus(prometheus: str) -> None:
    plan = load_plan_text(PLAN.replace("URL", prometheus), Path("plan.yaml"))
    assert plan.pacing.pauses_per_minute == 18.0
    assert (plan.propagation.p50, plan.propagation.p99, plan.propagation.most) == (0.2, 5.0, 30.0)


def test_prometheus_says_what_is_wrong_with_a_query(prometheus: str) -> None:
    with pytest.raises(ValueError, match=r"answered 400: .*parse error"):
        ask(prometheus, "sum(")
    with pytest.raises(ValueError, match="ask for values of now, not of a range"):
        ask(prometheus, "pauses_total[5m]")
    assert ask(prometheus, "nothing_of_that_name") == []
