"""The waterfall of a run: one row per agent, model request, tool call and wait, as geometry.

What belongs to one call (decisions, approvals, sends, probes) is drawn inside its row. Positions
are per cent texts for SVG attributes, so that no style has to be written inline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from interlock.domain.ids import EffectId, RunId
from interlock.domain.trace import SpanKind
from interlock.observe import semconv
from interlock.observe.trace import TraceNode, walk
from interlock.serve.console import words
from interlock.serve.console.timescale import WIDTH, Scale, scale

Shape = Literal["span", "decide", "person", "send", "probe", "wait"]

_INSIDE: Final[Mapping[SpanKind, Shape]] = {
    SpanKind.DECIDE: "decide",
    SpanKind.APPROVAL: "person",
    SpanKind.SEND: "send",
    SpanKind.PROBE: "probe",
}
_ICONS: Final[Mapping[SpanKind, str]] = {
    SpanKind.WORKFLOW: "flow",
    SpanKind.AGENT: "agent",
    SpanKind.MODEL: "model",
    SpanKind.TOOL: "tool",
    SpanKind.HANDOFF: "handoff",
    SpanKind.WAIT: "clock",
    SpanKind.STEP: "step",
    SpanKind.COMPENSATE: "undo",
    SpanKind.PLAN: "draft",
}
_WORDS: Final[Mapping[SpanKind, str]] = {
    SpanKind.WORKFLOW: "Workflow",
    SpanKind.AGENT: "Agent",
    SpanKind.MODEL: "Model request",
    SpanKind.TOOL: "Tool call",
    SpanKind.HANDOFF: "Hand-off",
    SpanKind.WAIT: "Wait",
    SpanKind.STEP: "Step",
    SpanKind.COMPENSATE: "Undo",
    SpanKind.DECIDE: "Decision",
    SpanKind.APPROVAL: "Approval",
    SpanKind.SEND: "Send",
    SpanKind.PROBE: "Probe",
    SpanKind.PLAN: "Plan",
}
_NOT_BUSY: Final = frozenset({SpanKind.APPROVAL, SpanKind.WAIT})
_QUIET: Final = frozenset({"ok", "open"})
_LEAST_TICK_GAP: Final = 8.0
_DEPTH_MOST: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One rectangle of a bar; `is_open` is still growing."""

    shape: Shape
    x: str
    width: str
    end: str
    tone: words.Tone
    is_open: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line: what it is, how it stands, and its bar with a text that says the same.

    `status` is None where there is nothing to say beyond "done". `effect_id` is set for tool calls,
    `child_id` for the run that a hand-off led to.
    """

    key: str
    depth: int
    kind: str
    icon: str
    title: str
    note: str
    status: words.Status | None
    start: str
    length: str
    cost_micro_usd: int
    segments: tuple[Segment, ...]
    text: str
    is_open: bool
    run_id: RunId
    node: TraceNode
    effect_id: EffectId | None = None
    child_id: RunId | None = None
    inside: tuple[TraceNode, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waterfall:
    """All rows in the order of the trace, with the axis: ticks, and the gaps that are cut short."""

    rows: tuple[Row, ...]
    ticks: tuple[tuple[str, str], ...]
    gaps: tuple[tuple[str, str, str, str], ...]


def draw(root: TraceNode, now_us: int) -> Waterfall:
    """Lay out a trace; open spans reach to now."""
    nodes = walk(root)
    end_us = max(_end(node, now_us) for node in nodes)
    start_us = min(node.start_us for node in nodes)
    busy = [
        (node.start_us, _end(node, now_us))
        for node in nodes
        if not node.children and node.kind not in _NOT_BUSY and node is not root
    ]
    axis = scale(start_us, end_us, busy)
    layout = _Layout(axis=axis, start_us=start_us, now_us=now_us)
    return Waterfall(
        rows=tuple(layout.rows(root, depth=0)), ticks=layout.ticks(), gaps=layout.gaps()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    axis: Scale
    start_us: int
    now_us: int

    def rows(self, node: TraceNode, *, depth: int) -> Iterator[Row]:
        inside = tuple(child for child in node.children if child.kind in _INSIDE)
        below = [child for child in node.children if child.kind not in _INSIDE]
        # A probe is made by a call of its own.
        below += [inner for child in inside for inner in child.children]
        child_id = None
        if node.kind is SpanKind.HANDOFF:
            child_id = next((c.run_id for c in below if c.run_id != node.run_id), None)
            below = [inner for child in below for inner in _unwrapped(node, child)]
        yield self._row(node, inside, depth=depth, child_id=child_id)
        for child in below:
            yield from self.rows(child, depth=depth + 1)

    def _row(
        self, node: TraceNode, inside: tuple[TraceNode, ...], *, depth: int, child_id: RunId | None
    ) -> Row:
        title, note = _names(node)
        segments = [self._segment(node, "wait" if node.kind is SpanKind.WAIT else "span")]
        segments += [self._segment(child, _INSIDE[child.kind]) for child in inside]
        status = _status(node, inside)
        length = words.duration(_end(node, self.now_us) - node.start_us)
        start = words.duration(node.start_us - self.start_us)
        said = "" if status is None else f", {status.text}"
        parts = "".join(f"; {segment.text}" for segment in segments[1:])
        return Row(
            key=f"{node.run_id}/{node.key}",
            depth=min(depth, _DEPTH_MOST),
            kind=_WORDS[node.kind],
            icon=_ICONS[node.kind],
            title=title,
            note=note,
            status=status,
            start=start,
            length=length,
            cost_micro_usd=node.total_micro_usd,
            segments=tuple(segments),
            text=f"{_WORDS[node.kind]} {title}{said}: starts at {start}, takes {length}{parts}",
            is_open=node.end_us is None,
            run_id=node.run_id,
            node=node,
            effect_id=node.effect_id if node.kind in {SpanKind.TOOL, SpanKind.COMPENSATE} else None,
            child_id=child_id,
            inside=inside,
        )

    def _segment(self, node: TraceNode, shape: Shape) -> Segment:
        x = self.axis.at(node.start_us)
        width = self.axis.at(_end(node, self.now_us)) - x
        shown = words.status(node.state)
        length = words.duration(_end(node, self.now_us) - node.start_us)
        return Segment(
            shape=shape,
            x=f"{x:.2f}%",
            width=f"{width:.2f}%",
            end=f"{x + width:.2f}%",
            tone=shown.tone,
            is_open=node.end_us is None,
            text=f"{_WORDS[node.kind]} {shown.text.lower()}, {length}",
        )

    def ticks(self) -> tuple[tuple[str, str], ...]:
        """Return position and label of each tick, none too near to the one before."""
        found: list[tuple[str, str]] = []
        taken = [edge for p in self.axis.pieces if p.is_gap for edge in (p.x, p.x + p.width)]
        for x, since_us in self.axis.ticks():
            is_free = all(abs(x - other) >= _LEAST_TICK_GAP for other in taken)
            if is_free and (since_us == 0 or x <= WIDTH - _LEAST_TICK_GAP / 2):
                found.append((f"{x:.2f}%", words.tick(since_us)))
                taken.append(x)
        return tuple(found)

    def gaps(self) -> tuple[tuple[str, str, str, str], ...]:
        """Return position, width, middle and label of each stretch that is drawn short."""
        return tuple(
            (
                f"{p.x:.2f}%",
                f"{p.width:.2f}%",
                f"{p.x + p.width / 2:.2f}%",
                words.duration(p.end_us - p.start_us),
            )
            for p in self.axis.pieces
            if p.is_gap
        )


def _end(node: TraceNode, now_us: int) -> int:
    return max(node.start_us, now_us if node.end_us is None else node.end_us)


def _unwrapped(handoff: TraceNode, child: TraceNode) -> tuple[TraceNode, ...]:
    """Return what a child run did, without its root and the agent that the hand-off names."""
    if child.run_id == handoff.run_id:
        return (child,)
    inner = child.children
    if len(inner) == 1 and inner[0].kind is SpanKind.AGENT:
        return inner[0].children
    return inner


def _names(node: TraceNode) -> tuple[str, str]:
    """Return what a row is called, and what is said beside it."""
    attributes = node.attributes
    match node.kind:
        case SpanKind.WORKFLOW:
            return str(attributes.get(semconv.WORKFLOW_NAME, node.name)), ""
        case SpanKind.AGENT | SpanKind.HANDOFF:
            step = str(attributes.get(semconv.STEP, ""))
            agent = str(attributes.get(semconv.AGENT_NAME, node.name))
            return agent, "" if step == agent else step
        case SpanKind.MODEL:
            model = attributes.get(semconv.RESPONSE_MODEL) or attributes.get(semconv.REQUEST_MODEL)
            return str(model or node.name), node.detail
        case SpanKind.TOOL | SpanKind.COMPENSATE:
            return str(attributes.get(semconv.TOOL_NAME, node.name)), ""
        case _:
            return node.name.removeprefix("interlock.").replace("_", " "), ""


def _status(node: TraceNode, inside: tuple[TraceNode, ...]) -> words.Status | None:
    """Return how a row stands; a call that waits for people says so."""
    if any(child.kind is SpanKind.APPROVAL and child.end_us is None for child in inside):
        return words.status("pending")
    if node.kind is SpanKind.WORKFLOW or (node.end_us is not None and node.state not in _QUIET):
        return words.status(node.state)
    if node.end_us is not None:
        return words.status("failed") if node.error_code else None
    open_leaves = [n for n in walk(node) if n.end_us is None and not n.children]
    only_waits = open_leaves and all(n.kind in _NOT_BUSY for n in open_leaves)
    return words.status("waiting" if only_waits else "running")
