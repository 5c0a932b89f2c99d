"""How a run looks in the terminal: its facts and steps, what changed, and its trace as a tree."""

from __future__ import annotations

from rich.text import Text
from rich.tree import Tree

from interlock.cli.output import cell, fact, money, note, out, part, rows_of, say, when
from interlock.domain.canonical import JsonObject
from interlock.domain.text import visible

_MARKS = {
    "done": "✓",
    "running": "▸",
    "waiting": "◷",
    "failed": "✗",
    "skipped": "-",
    "not_reached": "-",
    "to_come": "·",
}
SET_ASIDE = (
    "set aside since it kept losing its workers: `interlock run resume RUN` tries again,"
    " `interlock run cancel RUN` ends it and parks its calls of unknown outcome"
)
_UNTOLD = {"to_come", "not_reached"}


def print_run(run: JsonObject) -> None:
    """Print a run: what started it, how it stands, each step, and what it waits for."""
    request = run["request"]
    say(f"run {run['run_id']}", style="bold")
    error = f"{run['error_code']}: {run['error_message']}" if run["error_code"] else None
    facts = (
        ("workflow", f"{part(request, 'workflow')} v{part(request, 'workflow_version')}"),
        ("agent", part(request, "agent")),
        ("environment", part(request, "environment")),
        ("trigger", f"{part(request, 'trigger', 'source')} {part(request, 'trigger', 'key')}"),
        ("parent", part(request, "parent_id")),
        ("state", run["state"]),
        ("end state", run["end_state"]),
        ("reason", run["reason"]),
        ("error", error),
        ("started", when(run["created_us"])),
        ("ended", None if run["ended_us"] is None else when(run["ended_us"])),
        ("cost", money(run["cost_micro_usd"])),
    )
    for name, value in facts:
        if value is not None:
            fact(name, value)
    for step in rows_of(run, "steps"):
        out.print(_step(step))
    for plan in rows_of(run, "plans"):
        _print_plan(plan)
    for wait in rows_of(run, "waits"):
        until = f" until {when(wait['due_us'])}" if wait["due_us"] is not None else ""
        say(f"  waits for {wait['topic']}{until}", style="yellow")
    for gate in rows_of(run, "full_gates"):
        holders = gate["holders"] if isinstance(gate["holders"], list) else []
        held_by = ", ".join(f"run {run_id}" for run_id in holders)
        say(f"  {gate['key']} is held by {held_by}", style="yellow")
    if run["state"] == "dead_lettered":
        note(SET_ASIDE)
    children = run["children"]
    for child in children if isinstance(children, list) else []:
        fact("child run", child)


def print_changes(run: JsonObject, seen: dict[str, str], *, waits_for: str | None) -> None:
    """Print each step, and the run, whose state is not the one in `seen`; bring that up to date."""
    for step in rows_of(run, "steps"):
        name, state = str(step["name"]), str(step["state"])
        if seen.get(name) != state and state not in _UNTOLD:
            out.print(_step(step))
        seen[name] = state
    state = f"{run['state']}{f' for {waits_for}' if waits_for else ''}"
    if seen.get("") != state:
        out.print(Text("run ") + cell(state))
    seen[""] = state


def trace_tree(node: JsonObject) -> Tree:
    """Return the trace of a run as a tree: names, states, reasons, times and costs."""
    tree = Tree(_label(node))
    _grow(tree, node)
    return tree


def _grow(tree: Tree, node: JsonObject) -> None:
    # The first reason is the node's own line.
    for reason in rows_of(node, "reasons")[1:]:
        tree.add(cell(f"also {reason['message']} ({reason['policy_id'] or reason['code']})"))
    for child in rows_of(node, "children"):
        _grow(tree.add(_label(child)), child)


def _print_plan(plan: JsonObject) -> None:
    out.print(Text(f"  plan {plan['name']} of {plan['planner']}  ") + cell(plan["state"]))
    reasons = plan["reasons"]
    for reason in reasons if isinstance(reasons, list) else []:
        out.print(Text(f"      {visible(reason)}", style="dim"))
    for call in rows_of(plan, "calls"):
        line = Text(f"    {call['id']:<18} {call['tool']}  ") + cell(call["state"])
        if call["state"] in {"planned", "proposed"}:
            line += Text("  ") + cell(call["decision"])
        if call["code"] is not None:
            line += Text("  ") + cell(call["code"])
        needs = call["needs"]
        if isinstance(needs, list) and needs:
            line += Text(f"  after {', '.join(map(str, needs))}", style="dim")
        out.print(line)


def _step(step: JsonObject) -> Text:
    line = Text(f"  {_MARKS.get(str(step['state']), '?')} {step['name']:<20} ")
    line += cell(step["state"])
    for name in ("error_code", "fallback"):
        if step[name] is not None:
            line += Text("  ") + cell(step[name])
    if step["error_message"] is not None:
        line += Text(f"\n      {visible(step['error_message'])}", style="dim")
    return line


def _label(node: JsonObject) -> Text:
    label = Text("", style="bold" if node["parent_key"] is None else "") + cell(node["name"])
    for name in ("state", "detail"):
        if node[name]:
            label += Text("  ") + cell(node[name])
    duration = node["duration_us"]
    if isinstance(duration, int):
        label += Text(f"  {duration / 1000:.0f} ms", style="dim")
    if node["cost_micro_usd"]:
        label += Text(f"  {money(node['cost_micro_usd'])}", style="dim")
    return label
