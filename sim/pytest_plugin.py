"""Scenario files as pytest items, each with its failure block: `pytest scenarios/`, or `pytest --snapdrill`.

Without that option (or `snapdrill = true` in the ini file) only files that the command line names, or that are in a
folder it names, are collected.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.reading import read_regular

if TYPE_CHECKING:
    from sim.files.scenario import Scenario
    from sim.record.folder import StoredRun
    from sim.report.junit import JunitFile

_JUNIT = pytest.StashKey["JunitFile"]()
_SCENARIO = tuple(
    re.compile(keys, re.MULTILINE)
    for keys in (rb"^name:", rb"^(version|extends):", rb"^(fleet|extends|flags):|^ *- +{?(tick|pause|resume|inject):")
)
_NO_SCENARIO = re.compile(rb"^kind:[ ]*(plan|fleet)\b", re.MULTILINE)
"""Keys by which a scenario is known among other YAML files, without loading it as one."""


class ScenarioFailedError(Exception):
    """A scenario that did not hold; its text is the failure block."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--snapdrill`, `--snapdrill-runs-dir`, `--snapdrill-junit` and the ini setting `snapdrill`."""
    group = parser.getgroup("snapdrill", "snapdrill scenarios")
    group.addoption(
        "--snapdrill", action="store_true", help="collect every scenario file, even if the command line names none"
    )
    group.addoption("--snapdrill-runs-dir", metavar="DIR", help="where run folders go (default: runs)")
    group.addoption("--snapdrill-junit", metavar="FILE", help="write what was judged in every scenario as a JUnit file")
    group.addoption(
        "--snapdrill-junit-family",
        choices=["xunit1", "xunit2"],
        default="xunit1",
        help="xunit2 leaves out file and line, for the strict schema of Jenkins",
    )
    parser.addini("snapdrill", "collect every scenario file, as --snapdrill does", type="bool", default=False)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    """A file of scenarios, if it is to be collected."""
    if file_path.suffix != ".yaml" or not _is_asked_for(file_path, parent.config):
        return None
    try:
        content = read_regular(file_path)
    except OSError:  # a FIFO or a device: no scenario
        return None
    if not all(each.search(content) for each in _SCENARIO) or _NO_SCENARIO.search(content):
        return None
    made: ScenarioFile = ScenarioFile.from_parent(parent, path=file_path)
    return made


def _is_asked_for(file: Path, config: pytest.Config) -> bool:
    if config.getoption("--snapdrill") or config.getini("snapdrill"):
        return True
    if config.args_source is not config.ArgsSource.ARGS:
        return False
    here = config.invocation_params.dir
    named = {(here / argument.partition("::")[0]).resolve() for argument in config.args}
    return not named.isdisjoint({file.resolve(), file.resolve().parent})


class ScenarioFile(pytest.File):
    """One item per scenario; a matrix makes several. A file with mistakes is a collection error that lists them all."""

    def collect(self) -> Iterator[ScenarioItem]:
        from engine.errors import UserError
        from sim.files.scenario import load_all

        try:
            scenarios = load_all(_as_written(self.path, self.config))
        except UserError as error:
            raise self.CollectError(str(error)) from None
        for each in scenarios:
            yield ScenarioItem.from_parent(self, name=each.title, scenario=each)


def _as_written(path: Path, config: pytest.Config) -> Path:
    """Relative to pytest's working directory if it is below, to keep messages and commands short."""
    here = config.invocation_params.dir
    return path.relative_to(here) if here == Path.cwd() and path.is_relative_to(here) else path


class ScenarioItem(pytest.Item):
    """Runs one scenario; seed, verdict, digest and run folder are properties of its report."""

    def __init__(self, *, scenario: Scenario, **given: Any) -> None:
        super().__init__(**given)
        self.scenario = scenario

    def runtest(self) -> None:
        from sim.report.failure import failure_block
        from sim.report.judgements import verdict_of, why
        from sim.run.needs import missing
        from sim.run.runner import RunOptions, run_scenario

        if reason := missing(self.scenario):
            self._note_skipped(reason)
            pytest.skip(reason)
        result = asyncio.run(run_scenario(self.scenario, RunOptions(runs_dir=self._runs_dir())))
        self._keep(result)
        if verdict_of(result.view) != "held":
            block = failure_block(result.view, result.folder, self.scenario.path, result.entries)
            raise ScenarioFailedError(block or f"{verdict_of(result.view)}: {why(result.view)}")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The block alone: a traceback through snapdrill would say nothing about the scenario."""
        from engine.errors import UserError

        if isinstance(excinfo.value, ScenarioFailedError | UserError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"scenario {self.name}"

    def _runs_dir(self) -> Path:
        given = self.config.getoption("--snapdrill-runs-dir")
        return self.config.invocation_params.dir / (given or "runs")

    def _note_skipped(self, reason: str) -> None:
        from sim.report.junit import without_result

        if (junit := _junit(self.config)) is not None:
            junit.add(without_result(self.scenario.title, self.scenario.path, skipped=reason))

    def _keep(self, result: StoredRun) -> None:
        from sim.report.document import scenario_document
        from sim.run.one_by_one import Outputs

        Outputs(junit=_junit(self.config)).add(result, self.scenario.path, scenario_document(result.view))
        run, ended = result.view.run, result.view.ended
        known = {"seed": run and run.seed, "verdict": ended and ended.verdict, "digest": ended and ended.digest}
        self.user_properties += [(name, value) for name, value in known.items() if value is not None]
        self.user_properties.append(("run_dir", str(result.folder)))


def _junit(config: pytest.Config) -> JunitFile | None:
    """The file of --snapdrill-junit, one for all scenarios of the session; None where none is asked for."""
    from sim.report.junit import JunitFile

    given = config.getoption("--snapdrill-junit")
    if given and _JUNIT not in config.stash:
        family = config.getoption("--snapdrill-junit-family")
        config.stash[_JUNIT] = JunitFile(config.invocation_params.dir / given, family)
    return config.stash.get(_JUNIT, None)
