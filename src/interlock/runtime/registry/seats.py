"""Which seats a tool is granted to, and how policy answers a first call of each, if it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from interlock.calls.road import Live
from interlock.domain.approval import in_words
from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest
from interlock.domain.ids import TenantId
from interlock.domain.pointer import escaped
from interlock.domain.principal import Seat
from interlock.domain.release import Release
from interlock.domain.tool import Binding, ToolVersion
from interlock.policy.schema import seats_of

_WORDS: Mapping[Outcome, str] = MappingProxyType(
    {
        Outcome.ALLOW: "may call it",
        Outcome.NEEDS_APPROVAL: "may call it once approved",
        Outcome.DRAFT: "only drafts",
        Outcome.DENY: "is refused",
    }
)
_ABLE = frozenset({Outcome.ALLOW, Outcome.NEEDS_APPROVAL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a seat stands to a tool: the most lenient answer that is left, and why."""

    seat: str
    outcome: Outcome
    reason: str
    groups: tuple[str, ...] = ()

    @property
    def is_able(self) -> bool:
        """Whether a call would be sent, now or once people approve it."""
        return self.outcome in _ABLE

    @property
    def words(self) -> str:
        """Say it in a few words."""
        said = _WORDS[self.outcome]
        if self.outcome is Outcome.NEEDS_APPROVAL:
            return f"{said} by {', '.join(map(in_words, self.groups))}"
        return said if self.outcome is Outcome.ALLOW else f"{said}: {self.reason}"


def granted(release: Release, tool: ToolVersion, *, tenant: TenantId) -> Iterator[Seat]:
    """Yield the seats of a tenant's workflows that have a tool, by name."""
    for _, workflow in sorted(release.workflows.items()):
        if workflow.tenant == tenant:
            for seat in sorted(seats_of(workflow), key=str):
                if tool.name in workflow.tools_of(seat.agent):
                    yield seat


def standings(
    live: Live,
    binding: Binding,
    *,
    tenant: TenantId,
    arguments: JsonObject | None,
    now_us: int,
) -> tuple[Standing, ...]:
    """Ask policy about the first call of a fresh run of each seat; without arguments, about some.

    Nothing of it is kept: when a call is made it is decided anew.
    """
    return tuple(
        _standing(live, binding, seat, arguments, now_us=now_us)
        for seat in granted(live.release, binding.tool, tenant=tenant)
    )


def _standing(
    live: Live, binding: Binding, seat: Seat, arguments: JsonObject | None, *, now_us: int
) -> Standing:
    own = live.release.bind(binding.tool, binding.environment, seat.workflow)
    if own is not None and own.lacks_credentials:
        reason = "its workflow has no credentials here"
        return Standing(seat=str(seat), outcome=Outcome.DENY, reason=reason)
    world = live.worlds.get(binding.environment)
    if world is None:
        reason = "no policies are loaded for this environment"
        return Standing(seat=str(seat), outcome=Outcome.DENY, reason=reason)
    unknown = frozenset[str]()
    if arguments is None:
        properties = binding.tool.input_schema.get("properties")
        names = list(properties) if isinstance(properties, dict) else []
        unknown = frozenset(f"/{escaped(name)}" for name in names)
        arguments = dict.fromkeys(names)
    request = PolicyRequest(
        seats=(seat,),
        environment=binding.environment,
        tool=binding.tool.name,
        tool_version=binding.tool.version,
        arguments=arguments,
        facts=Facts(now_us=now_us),
    )
    lenient, *_ = world.bounds(request, unknown=unknown)
    return _answered(seat, lenient)


def _answered(seat: Seat, decision: Decision) -> Standing:
    reason = decision.reasons[0].message if decision.reasons else "policy gave no reason"
    return Standing(seat=str(seat), outcome=decision.outcome, reason=reason, groups=decision.groups)
