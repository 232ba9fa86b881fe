"""From a file that people write to its models: read, expand, check, build; the same for scenario, plan and fleet."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from pydantic import PrivateAttr, ValidationError

from flags import lint
from flags.context import Contexts, further_types, with_further
from flags.document import DocumentError, Mistake, Path, Position
from flags.document import parse as parse_flags
from flags.inline import InlineValue
from sim.files.flag_values import AnyFlags, FlagFile, FlagSource, ServedFlags, source_of
from sim.files.fleet import Group, SandboxSpec, sandbox_specs
from sim.files.prometheus_query import put_answers
from sim.files.sources import Kind, Source, read_text, refuse_another_kind
from sim.files.strict import Strict, mistakes
from sim.files.yaml import Document, Origin, parse, scenario_text


class Written(Strict):
    """The contents of a file, with the file and the place of every part in it."""

    _source: Source = PrivateAttr(default_factory=Source)

    def model_post_init(self, context: Any, /) -> None:
        if isinstance(context, Source):
            self._source = context

    @property
    def path(self) -> pathlib.Path:
        """The file it was read from; `-` if it was made in code."""
        return self._source.path

    @property
    def source_text(self) -> str:
        """The file's text; if it extends a file, has a matrix or references, the text with all of these applied."""
        return self._source.text

    def with_source(self, **changes: Any) -> Self:
        """The same contents, with these fields of its source changed, such as the text to store."""
        made = self.model_copy()
        made.model_post_init(replace(self._source, **changes))
        return made

    @property
    def document(self) -> Document:
        """The file as data, with positions."""
        return self._source.document

    def where(self, path: Path) -> Position:
        """The place of a part, such as `("steps", 3)` or `("expect", 0, "max")`; else of its parent."""
        return self.document.where(path)

    def origin(self, path: Path) -> Origin:
        """The same, with the file that the part is written in if that is one which this file extends."""
        return self.document.origin(path)

    def place(self, path: Path) -> str:
        """`plan.yaml:12:5`."""
        line, column, file = self.origin(path)
        return f"{file or self.path}:{line}:{column}"


class Drilled(Written):
    """A fleet under flags: what a scenario and a plan have in common."""

    takes_flags_as_they_are: ClassVar[bool] = False
    """Whether a flag file only has to be readable by an SDK: lint reports its other mistakes elsewhere."""

    if TYPE_CHECKING:  # each declares them itself, in the order of its file
        fleet: tuple[Group, ...]
        flags: AnyFlags
        contexts: Contexts

    @property
    def flag_file(self) -> pathlib.Path | None:
        """The flag file, relative to the working directory; None where there is none."""
        return self.path.parent / self.flags.file if isinstance(self.flags, FlagFile) else None

    @property
    def flag_source(self) -> FlagSource:
        """Where the node gets its flags."""
        return source_of(self.flags)

    @property
    def flag_values(self) -> Mapping[str, InlineValue]:
        """The flag values that the file itself gives."""
        if isinstance(self.flags, FlagFile):
            return {}
        return self.flags.values if isinstance(self.flags, ServedFlags) else self.flags

    @property
    def asked_guest(self) -> str | None:
        """The kind of guest that `--guest` made of every sandbox; None where each is as the file says."""
        return self._source.guest

    def sandboxes(self) -> list[SandboxSpec]:
        """Every sandbox of the fleet, in order."""
        return sandbox_specs(self.fleet)

    def known_contexts(self) -> Contexts:
        """Its contexts with the further attributes of its sandboxes, for lint."""
        return with_further(self.contexts, further_types(each.attributes() for each in self.sandboxes()))


Model = TypeVar("Model", bound=Written)
Expanded = tuple[Sequence[Source], Sequence[Mistake]]


def _parsed(text: str, _path: pathlib.Path) -> Document:
    return parse(text)


def _as_written(source: Source, _given: Mapping[str, str]) -> Expanded:
    return [source], []


def _nothing(_document: Document) -> Sequence[Mistake]:
    return []


@dataclass(frozen=True, slots=True)
class Form(Generic[Model]):
    """How files of one kind become models.

    `read` parses the text and merges in what the file extends; `expand` makes the sources of one or more models from
    it, with the command line's values for variables; `check` finds the mistakes that no single field shows. One that
    `asks` may take values from Prometheus.
    """

    kind: Kind
    model: type[Model]
    read: Callable[[str, pathlib.Path], Document] = _parsed
    expand: Callable[[Source, Mapping[str, str]], Expanded] = _as_written
    check: Callable[[Document], Sequence[Mistake]] = _nothing
    asks: bool = False

    def load(self, path: pathlib.Path, *, obey_unsafe: bool = False) -> Model:
        """Read and check a file of one model; DocumentError with every mistake."""
        return self.load_text(read_text(path), path, obey_unsafe=obey_unsafe)

    def load_text(self, text: str, path: pathlib.Path, *, obey_unsafe: bool = False) -> Model:
        """Check the text of one model; `path` names it in messages, and names in it start at its folder."""
        made = self.load_all_text(text, path, {}, obey_unsafe=obey_unsafe)
        if len(made) > 1:
            what = f"its matrix makes {len(made)} scenarios, here can be only one; run it, and use the scenario.yaml"
            at = Mistake(made[0].where(("matrix",)), "matrix", f"{what} of one of its run folders")
            raise DocumentError(path, [at])
        return made[0]

    def load_all(
        self, path: pathlib.Path, given: Mapping[str, str] | None = None, *, obey_unsafe: bool = False
    ) -> list[Model]:
        """Every model of a file, one for each combination of its matrix; DocumentError with every mistake.

        `given` are values for `vars` from the command line; names that the file does not declare are ignored. With
        `obey_unsafe` it is as if that were written under `flags`, where these come from a file or a service.
        """
        return self.load_all_text(read_text(path), path, given or {}, obey_unsafe=obey_unsafe)

    def load_all_text(
        self, text: str, path: pathlib.Path, given: Mapping[str, str], *, obey_unsafe: bool = False
    ) -> list[Model]:
        """The same of its text."""
        document = self.read(text, path)
        if not document.is_readable:
            raise DocumentError(path, document.mistakes)
        refuse_another_kind(self.kind, document, path)
        if obey_unsafe and _may_be_unsafe(document.data):
            document = _obeying(document)
            text = scenario_text(document.data, "As the file, with --obey-unsafe.")
        asked = put_answers(document) if self.asks else []
        sources, wrong = self.expand(Source(path, text, document, self.kind), given)
        found, made = [*document.mistakes, *asked, *wrong], []
        for source in sources:
            model, wrong = self._built(source)
            found += wrong
            made += [model] if model is not None else []
        if found := found or [each for model in made for each in _wrong_flags(model)]:
            raise DocumentError(path, found)
        return made

    def _built(self, source: Source) -> tuple[Model | None, list[Mistake]]:
        """The model of a source, and what is wrong with it except what follows from its broken places."""
        found, model = list(self.check(source.document)), None
        try:
            model = self.model.model_validate(source.document.data, context=source)
        except ValidationError as error:
            found += mistakes(error, source.document)
        if model is not None and source.slug is not None:
            model = model.model_copy(update={"name": source.slug})
        return model, [each for each in found if Origin(*each.position, each.file) not in source.broken]


def _may_be_unsafe(data: Any) -> bool:
    """Inline values make sound flags: there is nothing to obey."""
    flags = data.get("flags") if isinstance(data, Mapping) else None
    return isinstance(flags, Mapping) and ("file" in flags or flags.get("source") in {"relay", "launchdarkly"})


def _obeying(document: Document) -> Document:
    """With `obey_unsafe: true` under `flags`; every part keeps its place."""
    path = ("flags", "obey_unsafe")
    flags = {**document.data["flags"], "obey_unsafe": True}
    values = {**document.values, path: document.origin(path)}
    return replace(document, data={**document.data, "flags": flags}, values=values)


def _unreadable_flags(file: pathlib.Path) -> list[Mistake]:
    """What no SDK could take of it."""
    from flags.launchdarkly import refusal  # the SDK takes a while

    try:
        document = parse_flags(read_text(file))
    except json.JSONDecodeError as error:
        return [Mistake(Position(error.lineno, error.colno), "", f"not JSON: {error.msg}", "", str(file))]
    value = document.value if isinstance(document.value, dict) else {}
    sections, at = [(name, value.get(name)) for name in ("flags", "segments")], document.positions
    if not isinstance(value.get("flags"), dict):
        what = "it serves no flags"
        return [Mistake(Position(), "", what, 'write {"flags": {...}}; see snapdrill flags import', str(file))]
    return [
        Mistake(at.get((section, key), Position()), "", f"LaunchDarkly refuses {key}: {why}", "", str(file))
        for section, items in sections
        for key, item in (items.items() if isinstance(items, dict) else ())
        if (why := refusal(section, item, key) if isinstance(item, dict) else "it is no object")
    ]


def _wrong_flags(model: Written) -> list[Mistake]:
    """The errors of its flag file."""
    if not isinstance(model, Drilled) or (file := model.flag_file) is None:
        return []
    if model.takes_flags_as_they_are or (isinstance(model.flags, FlagFile) and model.flags.obey_unsafe):
        return _unreadable_flags(file)
    found = lint.check(read_text(file), model.known_contexts())
    return [replace(each, file=str(file)) for each in found if each.severity == "error"]
