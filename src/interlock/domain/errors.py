"""Errors that callers handle differently, under one root.

```
InterlockError
├── InputError            bad input from a person or a program: says what, where and what to do
│   ├── JsonError         text that is not strict JSON
│   ├── ProblemsError     several problems found together, each with file and line
│   │   ├── ManifestError    a project folder that does not load
│   │   ├── ConfigError      settings that cannot be used
│   │   └── PolicyError      policies that do not parse, validate or pass the lint
│   └── ContractError     a value that breaks a JSON Schema contract
├── NotFoundError         no such thing, or not for this caller (the two look the same)
├── ConflictError         the thing changed or exists already; read it again
│   ├── DedupeConflictError  a delivery id that came before with another body
│   └── KeyTakenError        an agent's key that came before with another call
├── ForbiddenError        this caller may not do this
├── UnauthenticatedError  nobody is signed in, or a signature does not hold
├── UnavailableError      the store or an upstream is away; may be retried
│   ├── ModelBusyError       a model answered "later", broke off or not at all
│   ├── UnreachableError     a tool's server cannot be reached, or cannot answer now
│   └── VersionMissingError  what a newer version of this program wrote cannot be read here
├── IntakeFullError       too many runs of a workflow have yet to begin; says when to come back
├── BudgetSpentError      a session may ask nothing more of models
├── ModelFailedError      a model refused a request or answered nonsense; asking again is no use
├── FencedError           another worker owns this run now; stop and write nothing
├── CancelledRunError     the run was asked to stop
├── PausedRunError        the run is to pause
├── StepFailedError       a step failed for good; carries the recorded error
├── StepNameReusedError   two steps of one run have the same name
└── InvariantError        a bug of ours
```

A deny, a pending approval and the outcome of a call are results, not errors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar


class InterlockError(Exception):
    """Root of all our errors: a stable `code` and one sentence for people."""

    code: ClassVar[str] = "error"
    is_retryable: ClassVar[bool] = False

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InputError(InterlockError):
    """Input that cannot be accepted as it is."""

    code = "input.invalid"


class JsonError(InputError):
    """Text that is not strict JSON (duplicate keys, NaN, too deep, too large, trailing bytes)."""

    code = "json.invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong in a file: where it is, what it is and how to mend it."""

    path: str
    line: int | None
    message: str
    fix: str | None = None

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.message}" + (f" ({self.fix})" if self.fix else "")


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return the fix `did you mean ...` with the nearest known word, or None if none is near.

    >>> did_you_mean("effct", ["group", "effect"])
    'did you mean `effect`?'
    """
    near = get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else None


class ProblemsError(InputError):
    """Several problems found together, so that they can be mended together."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class ManifestError(ProblemsError):
    """A project folder that does not load; nothing of it was applied."""

    code = "manifest.invalid"


class ConfigError(ProblemsError):
    """Settings that cannot be used."""

    code = "config.invalid"


class PolicyError(ProblemsError):
    """Policies that do not parse, validate or pass the lint; the previous ones stay in force."""

    code = "policy.invalid"


class ContractError(InputError):
    """A value that breaks its contract: `pointer` names the place (RFC 6901)."""

    code = "contract.violated"

    def __init__(self, message: str, *, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer


class NotFoundError(InterlockError):
    """No such thing for this caller."""

    code = "not_found"


class ConflictError(InterlockError):
    """The state is not what the caller believed."""

    code = "conflict"


class DedupeConflictError(ConflictError):
    """The same delivery id came before with another body."""

    code = "trigger.body_changed"


class KeyTakenError(ConflictError):
    """The key by which an outside agent names a call is that of another call of its session."""

    code = "call.key_taken"


class ForbiddenError(InterlockError):
    """The caller is known and may not do this."""

    code = "forbidden"


class UnauthenticatedError(InterlockError):
    """The caller is not known, or a signature does not hold."""

    code = "unauthenticated"


class UnavailableError(InterlockError):
    """Something that we need is away for now."""

    code = "unavailable"
    is_retryable = True


class UnreachableError(UnavailableError):
    """A server could not be reached, or said that it cannot answer now."""

    code = "server.unreachable"


class IntakeFullError(InterlockError):
    """Too many runs of a workflow have yet to begin; none was added. Try after `retry_after_s`."""

    code = "intake.full"
    is_retryable = True

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelBusyError(UnavailableError):
    """A model is overloaded, limits our rate, or did not answer in time.

    `is_unpaid` if its provider answered and so billed nothing; nobody knows what silence costs.
    """

    code = "model.failed"

    def __init__(self, message: str, *, is_unpaid: bool = False) -> None:
        super().__init__(message)
        self.is_unpaid = is_unpaid


class VersionMissingError(UnavailableError):
    """A release was written in a format that this version of the program does not know."""

    code = "version.missing"


class ModelFailedError(InterlockError):
    """A model refused a request for good, or its answer cannot be read.

    `is_unpaid` if nothing was sent, or its provider refused it and so billed nothing.
    """

    code = "model.failed"

    def __init__(self, message: str, *, is_unpaid: bool = False) -> None:
        super().__init__(message)
        self.is_unpaid = is_unpaid


class BudgetSpentError(InterlockError):
    """A session may ask nothing more of models."""

    code = "budget.spent"


class FencedError(InterlockError):
    """The run has a newer epoch: another worker owns it."""

    code = "run.fenced"


class CancelledRunError(InterlockError):
    """The run was asked to stop; no further operation starts."""

    code = "run.cancelled"


class PausedRunError(InterlockError):
    """The run is to pause; no further operation starts until it is resumed."""

    code = "run.paused"


class StepFailedError(InterlockError):
    """A step failed for good; `error_code` is the recorded code of what went wrong."""

    code = "step.failed"

    def __init__(self, message: str, *, error_code: str, step_name: str) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.step_name = step_name


class StepNameReusedError(InterlockError):
    """Two operations of one run have the same name, so replay could not tell them apart."""

    code = "step.name_reused"


class InvariantError(InterlockError):
    """Something that cannot happen has happened."""

    code = "invariant"
