"""Suites: what `suite.yaml` may say, checked as it is read; running one is for `runner`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from interlock.domain.canonical import Json, JsonObject, digest, digest_bytes
from interlock.domain.effect import EffectState
from interlock.domain.errors import InputError, ManifestError, Problem
from interlock.domain.run import RunState
from interlock.domain.tool import Environment

SUITE_FILE = "suite.yaml"

T = TypeVar("T")

_STRICT = ConfigDict(extra="forbid")
Trait = Literal["read", "write", "destructive", "egress", "irreversible"]
Place = tuple[str | int, ...]
Complain = Callable[[Place, str], Problem]
"""Makes a problem of a place in the suite's document and what is wrong there."""


def _is_inside(path: str) -> str:
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise ValueError("must be a path inside the suite's folder")
    return path


def _is_filled(items: tuple[T, ...]) -> tuple[T, ...]:
    if not items:
        raise ValueError("must not be empty")
    return items


def _has_source(pointer: str) -> str:
    if not all(pointer.partition(":/")):
        raise ValueError("must be <program>:/<pointer>, as tracker:/issues")
    return pointer


# Not a minimal length: pydantic also finds a list too short that holds nothing but misfits.
NotEmpty = AfterValidator(_is_filled)
Words = Annotated[tuple[str, ...], NotEmpty]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Inside = Annotated[str, AfterValidator(_is_inside)]
Source = Annotated[str, AfterValidator(_has_source)]
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A secret that a program invented: `prefix` and the text of a file in its home."""

    __pydantic_config__ = _STRICT

    reference: str
    file: Inside
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """An outside program: commands as lists of words, in which `{name}` stands for a path.

    `prepare` fills an empty `{home}` once; each repeat gets a copy. `serve` is started with
    `--port 0 --port-file FILE` after it, and writes the port once it listens. `export` prints what
    the program holds as JSON. `server` is the manifest whose address it takes.
    """

    __pydantic_config__ = _STRICT

    serve: Words
    prepare: tuple[str, ...] = ()
    export: tuple[str, ...] = ()
    server: str | None = None
    secrets: tuple[Secret, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one repeat of a case may take: model requests and calls, money, seconds."""

    __pydantic_config__ = _STRICT

    steps: Count
    cost_micro_usd: Count
    wall_s: Annotated[float, Field(gt=0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What starts the case: a webhook (`body` is a file), some times, or an input by hand."""

    __pydantic_config__ = _STRICT

    webhook: str | None = None
    body: Inside | None = None
    deliver: Annotated[int, Field(ge=1, le=10)] = 1
    input: Json = None
    environment: Environment = "dev"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """How a group answers what it is asked; the first entry that fits counts."""

    __pydantic_config__ = _STRICT

    group: str
    answer: Literal["approve", "reject"]
    tool: str = "*"
    reason: str = "the case says so"


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How many runs deliveries start (without hand-offs), and how each of them ends."""

    __pydantic_config__ = _STRICT

    runs: Count = 1
    run: RunState = RunState.SUCCEEDED
    outcome: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate:
    """Something that holds in the world: items of the list `at` that have the members `where`.

    `at` is `<program>:/<pointer>` into its export, in which `*` is every member. Exactly `count`
    items are selected, and each of them has the members `has`.
    """

    __pydantic_config__ = _STRICT

    at: Source
    where: JsonObject = field(default_factory=dict)
    count: Count = 1
    has: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedWrite:
    """One write that was sent: tool, how its effect ended, and some of its arguments."""

    __pydantic_config__ = _STRICT

    tool: str
    state: EffectState = EffectState.SUCCEEDED
    args: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedRefusal:
    """One call that was refused: tool, code, and the policy that refused it, if one did."""

    __pydantic_config__ = _STRICT

    tool: str
    code: str
    policy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forbidden:
    """Calls that must never be sent: `*` in `tool` is any text, `group` a trait of the tool."""

    __pydantic_config__ = _STRICT

    tool: str = "*"
    group: Trait | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approvals:
    """How many approvals are asked for, and how many of them are given."""

    __pydantic_config__ = _STRICT

    asked: Count = 0
    given: Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """What has to hold at the end; `writes` and `refused` are complete lists, in any order."""

    __pydantic_config__ = _STRICT

    end: End = field(default_factory=End)
    writes: tuple[ExpectedWrite, ...] = ()
    refused: tuple[ExpectedRefusal, ...] = ()
    approvals: Approvals = field(default_factory=Approvals)
    world: tuple[Predicate, ...] = ()
    forbid: tuple[Forbidden, ...] = ()
    labels_at_most: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One example: what arrives, how the model and people answer, and what is expected."""

    __pydantic_config__ = _STRICT

    id: Name
    title: str
    trigger: Delivery
    expect: Expect
    script: Inside | None = None
    people: tuple[Person, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A golden set for one workflow of a project.

    `model` answers in place of every model of the project; `{script}` is the case's. `references`
    point at what the world noted of calls (`tracker:/issues/*/external_ref`): each text there must
    be the id of one recorded write.
    """

    __pydantic_config__ = _STRICT

    suite: Name
    project: str
    workflow: str
    mode: Literal["deterministic"]
    repeats: Annotated[int, Field(ge=1, le=20)]
    limits: Limits
    model: Program
    cases: Annotated[tuple[Case, ...], NotEmpty]
    world: Mapping[Name, Program] = field(default_factory=dict)
    references: tuple[Source, ...] = ()


def read(content: JsonObject, folder: Path, *, complain: Complain) -> Suite:
    """Check the content of `suite.yaml` in `folder` and return the suite.

    Raises:
        ManifestError: carries every problem found.
    """
    try:
        suite = TypeAdapter(Suite).validate_python(content)
    except ValidationError as error:
        # Only places that the document has: pydantic also names types and missing keys.
        raise ManifestError(
            tuple(
                complain(e["loc"], _sentence(e["loc"], e["type"], e["msg"])) for e in error.errors()
            )
        ) from None
    problems = tuple(complain(place, message) for place, message in _misfits(suite, folder))
    if problems:
        raise ManifestError(problems)
    return suite


def digest_of(folder: Path) -> str:
    """Return the digest of a suite: over each file of its folder, by path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): digest_bytes(path.read_bytes()) for path in files}
    return digest({name: value for name, value in named.items() if not name.startswith(".")})


def chosen(suite: Suite, case_ids: tuple[str, ...]) -> tuple[Case, ...]:
    """Return the named cases in the suite's order, all if none is named; raises `InputError`."""
    unknown = sorted(set(case_ids) - {case.id for case in suite.cases})
    if unknown:
        raise InputError(f"the suite `{suite.suite}` has no case `{unknown[0]}`")
    return tuple(case for case in suite.cases if not case_ids or case.id in case_ids)


def _sentence(place: Place, kind: str, message: str) -> str:
    match kind:
        case "unexpected_keyword_argument":
            return f"unknown key `{place[-1]}`"
        case "missing" | "missing_keyword_only_argument" | "missing_argument":
            return f"`{place[-1]}` is missing"
        case _:
            return message.removeprefix("Value error, ").removeprefix("Input ").lower()


def _misfits(suite: Suite, folder: Path) -> list[tuple[Place, str]]:
    found: list[tuple[Place, str]] = []
    seen: set[str] = set()
    for index, case in enumerate(suite.cases):
        place: Place = ("cases", index)
        if case.id in seen:
            found.append(((*place, "id"), f"the case `{case.id}` is there twice"))
        seen.add(case.id)
        if (case.trigger.webhook is None) != (case.trigger.body is None):
            found.append(((*place, "trigger"), "a webhook has a `body`, and nothing else has"))
        for key, path in (("script", case.script), ("trigger", case.trigger.body)):
            if path is not None and not (folder / path).is_file():
                found.append(((*place, key), f"there is no file `{path}`"))
        pointers = [predicate.at for predicate in case.expect.world]
        found += [((*place, "expect", "world"), m) for m in _unknown(suite, pointers)]
    found += [(("references",), m) for m in _unknown(suite, list(suite.references))]
    return found


def _unknown(suite: Suite, pointers: list[str]) -> list[str]:
    exporting = {name for name, program in suite.world.items() if program.export}
    sources = (pointer.partition(":")[0] for pointer in pointers)
    return [
        f"no program of the world exports as `{name}`" for name in sources if name not in exporting
    ]
