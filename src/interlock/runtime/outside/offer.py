"""Which tools an outside agent is told of: those that some arguments could let it call.

Hiding is a courtesy, not the control: every call is decided when it is made.
"""

from __future__ import annotations

from collections.abc import Iterator

from interlock.calls.propose import new_call
from interlock.calls.road import Live, Proposal, Road
from interlock.calls.validate import Foreseen, foresee
from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Outcome
from interlock.domain.ids import StepName, ToolName
from interlock.domain.pointer import escaped
from interlock.domain.release import Release
from interlock.domain.run import Run
from interlock.domain.tool import McpKind, ToolVersion
from interlock.store.tx import Tx

_STEP = StepName("#offer")


def offered(tx: Tx, road: Road, run: Run, *, kind: McpKind | None = None) -> list[ToolVersion]:
    """Return the tools, of one kind if named, that a session may call with some arguments."""
    live = road.live.at(tx)
    return [
        tool
        for tool in granted(live.release, run)
        if kind in {None, tool.mcp_kind} and _may_be_called(tx, road, live, run, tool)
    ]


def granted(release: Release, run: Run) -> Iterator[ToolVersion]:
    """Yield the tools of the seats' workflows that are bound here and can be reached, by name."""
    request = run.request
    names: set[ToolName] | None = None
    for seat in request.deciding:
        spec = release.workflows.get(seat.workflow)
        own = set() if spec is None else set(spec.tools_of(seat.agent))
        names = own if names is None else names & own
    for name in sorted(names or ()):
        tool = release.live(name, request.environment)
        binding = tool and release.bind(tool, request.environment, request.workflow)
        if tool and binding and not binding.lacks_credentials:
            yield tool


def _may_be_called(tx: Tx, road: Road, live: Live, run: Run, tool: ToolVersion) -> bool:
    properties = tool.input_schema.get("properties")
    names = list(properties) if isinstance(properties, dict) else []
    blanks: JsonObject = dict.fromkeys(names)
    unknown = frozenset(f"/{escaped(name)}" for name in names)
    proposal = Proposal(
        step_name=_STEP,
        tool=tool.name,
        arguments=blanks,
        seats=run.request.deciding,
        parent_span="",
    )
    call = new_call(road, live, run, proposal, now_us=tx.now_us, unknown=unknown)
    (lenient, *_), _ = foresee(tx, live, run, call, before=Foreseen(), unknown=unknown)
    return lenient.outcome is not Outcome.DENY
