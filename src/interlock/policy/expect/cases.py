"""The tests of policies as their files have them, read strictly; nothing is decided here."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from interlock.domain.budget import UNLIMITED_MICROS
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.decision import Facts, Outcome
from interlock.domain.errors import InputError
from interlock.domain.ids import ToolName
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.record import from_json
from interlock.domain.tool import ENVIRONMENTS, Environment

Act: TypeAlias = Literal["read", "write", "destructive", "egress"]
_NOON_US = 1_767_268_800_000_000
"""The time of a test that names none: noon of 2026-01-01, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The tool that is called, and with which arguments."""

    tool: ToolName
    args: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What the server knows of the run; what is not named is as at the start of a run."""

    labels: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    untrusted: bool = False
    user: str | None = None
    calls_this_tool: int = 0
    calls_this_tool_1h: int = 0
    writes_this_run: int = 0
    same_key_count: int = 0
    failures_this_tool: int = 0
    done: frozenset[str] = frozenset()
    depth: int = 0
    budget_left_micros: int = UNLIMITED_MICROS
    now_us: int = _NOON_US

    @property
    def facts(self) -> Facts:
        """Return them as policies are told."""
        labels = Labels(names=self.labels, tenants=self.tenants, is_untrusted=self.untrusted)
        own = {name: getattr(self, name) for name in _SAME}
        return replace(Facts(labels=labels), **own)


_SAME = (
    "user",
    "calls_this_tool",
    "calls_this_tool_1h",
    "writes_this_run",
    "same_key_count",
    "failures_this_tool",
    "done",
    "depth",
    "budget_left_micros",
    "now_us",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """An answer: `outcome`, or the teams that it needs; `by` are policies that have to be named."""

    outcome: Outcome | None = None
    needs_approval: frozenset[str] = frozenset()
    by: frozenset[str] = frozenset()

    @property
    def answer(self) -> Outcome:
        """Return the outcome that is meant."""
        return self.outcome or Outcome.NEEDS_APPROVAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One call of one seat, and how it is to be answered; `approved` are teams that agreed."""

    name: str
    env: Environment
    seat: Seat
    call: Call
    expect: Expected
    run: RunFacts = field(default_factory=RunFacts)
    approved: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """Which calls a statement is about: of runs that read untrusted content, or such labels."""

    untrusted: bool | None = None
    labels: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Says of all calls of a kind that no seat can make them, or no other than these.

    `unattended` says that the ones that people agree to are not meant. What is absent is any.
    """

    is_only: bool
    act: Act
    seats: frozenset[Seat] = frozenset()
    tenant: str | None = None
    system: str | None = None
    tool: ToolName | None = None
    env: Environment | None = None
    unattended: bool = False
    when: When = field(default_factory=When)

    @property
    def name(self) -> str:
        """Return the statement in words."""
        who = ", ".join(sorted(map(str, self.seats)))
        head = f"only {who}" if self.is_only else f"never {who or 'anybody'}"
        what = [self.tool or self.act, *([f"of {self.system}"] if self.system else [])]
        rest = [f"in {self.env}"] if self.env else []
        rest += [f"of tenant {self.tenant}"] if self.tenant else []
        rest += ["unattended"] if self.unattended else []
        rest += ["from untrusted content"] if self.when.untrusted else []
        rest += [f"with {label}" for label in sorted(self.when.labels)]
        return " ".join([f"{head}:", *what, *rest])


Case: TypeAlias = Example | Statement


def read_case(value: Json) -> Case:
    """Read one test; raises `InputError` with what is wrong."""
    if not isinstance(value, dict):
        raise InputError("a test is a call with what is expected of it, or `never` or `only`")
    for word in ("never", "only"):
        if word in value:
            if len(value) != 1:
                raise InputError(f"beside `{word}` nothing is said: put it below")
            return _statement(value[word], is_only=word == "only")
    seat = value.get("as")
    if not isinstance(seat, str):
        raise InputError("`as` names the seat that calls, as `workflow/agent`")
    rest = {name: each for name, each in value.items() if name != "as"}
    expect = rest.get("expect")
    if isinstance(expect, str):
        rest["expect"] = {"outcome": expect}
    example = from_json(Example, {**rest, "seat": _seat_json(seat)})
    if (example.expect.outcome is None) != bool(example.expect.needs_approval):
        raise InputError("`expect` is allow, deny or draft, or has teams in `needs_approval`")
    return example


def _statement(value: Json, *, is_only: bool) -> Statement:
    if not isinstance(value, dict):
        raise InputError("a statement says at least what can be done: `{can: write}`")
    given = dict(value)
    who = given.pop("who", "any")
    names = [] if who == "any" else who if isinstance(who, list) else [who]
    if is_only and not names:
        raise InputError("`only` says by `who` alone it can be done")
    if "can" not in given:
        raise InputError("`can` says what: read, write, destructive or egress")
    given["act"] = given.pop("can")
    seats: list[Json] = [_seat_json(str(name)) for name in names]
    return from_json(Statement, {**given, "is_only": is_only, "seats": seats})


def _seat_json(text: str) -> Json:
    try:
        seat = Seat.parse(text)
    except ValueError as error:
        raise InputError(str(error)) from None
    return {"workflow": seat.workflow, "agent": seat.agent}


def environments_of(case: Case) -> tuple[Environment, ...]:
    """Return where a test is to hold."""
    return ENVIRONMENTS if case.env is None else (case.env,)
