"""How a run looks in the terminal: its facts and steps, what changed, and its trace as a tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.text import Text
from rich.tree import Tree

from interlock.cli.output import cell, fact, money, note, out, part, rows_of, say, table, when
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.text import visible

_MARKS = {
    "done": "✓",
    "undone": "↶",
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
    print_plans(rows_of(run, "plans"))
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


def print_plans(plans: list[JsonObject]) -> None:
    """Print plans: why one was refused, each call with what was said of it and how far it is."""
    for plan in plans:
        line = Text(f"  plan {plan['name']} of {plan['planner']}  ") + cell(plan["state"])
        line += Text(f"  {_counted(plan)}")
        if plan["cost_micro_usd"]:
            line += Text(f"  priced {money(plan['cost_micro_usd'])}", style="dim")
        out.print(line)
        for reason in _list(plan, "reasons"):
            out.print(Text(f"      {visible(reason)}", style="dim"))
        for call in rows_of(plan, "calls"):
            out.print(_planned(call))


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


def print_cost(node: JsonObject) -> None:
    """Print each model request and each call that has a price, and what all of them have cost."""
    priced = [each for each in _walk(node) if each["kind"] == "chat" or each["cost_micro_usd"]]
    table(
        ("what", "state", "input", "output", "cost"),
        [
            (
                each["name"],
                each["error_code"] or each["state"],
                part(each, "attributes", "gen_ai.usage.input_tokens"),
                part(each, "attributes", "gen_ai.usage.output_tokens"),
                money(each["cost_micro_usd"]) + _estimate(each),
            )
            for each in priced
        ],
        empty="nothing in this run has a price",
    )
    fact("total", money(node["total_micro_usd"]))


def _walk(node: JsonObject) -> Iterator[JsonObject]:
    yield node
    for child in rows_of(node, "children"):
        yield from _walk(child)


def _estimate(node: JsonObject) -> str:
    is_estimated = part(node, "attributes", "interlock.cost.estimated")
    return " (estimated)" if is_estimated else ""


def _grow(tree: Tree, node: JsonObject) -> None:
    # The first reason is the node's own line.
    for reason in rows_of(node, "reasons")[1:]:
        tree.add(cell(f"also {reason['message']} ({reason['policy_id'] or reason['code']})"))
    for child in rows_of(node, "children"):
        _grow(tree.add(_label(child)), child)


def _planned(call: JsonObject) -> Text:
    line = Text(f"    {_MARKS.get(str(call['stage']), '?')} {call['id']:<18} {call['tool']}  ")
    line += cell(call["state"])
    groups = ", ".join(map(str, _list(call, "groups")))
    if call["stage"] == "to_come" and call["decision"] == "when_known":
        asks = f", by {groups} at least" if groups else ""
        line += Text(f"  decided when known{asks}", style="yellow")
    elif call["stage"] == "to_come":
        line += Text("  ") + cell(call["decision"])
    elif call["state"] == "proposed" and groups:
        line += Text(f"  asks {groups}", style="yellow")
    if call["code"] is not None:
        line += Text("  ") + cell(call["code"])
    for word, names in (("after", "needs"), ("takes", "takes")):
        if told := ", ".join(map(str, _list(call, names))):
            line += Text(f"  {word} {told}", style="dim")
    if call["is_write"]:
        line += Text(f"  undone by {call['undo'] or 'nothing'}", style="dim")
    return line


def _counted(plan: JsonObject) -> str:
    """Return how many calls of a plan are how far: `1 done, 2 to come`."""
    stages = Counter(str(call["stage"]) for call in rows_of(plan, "calls"))
    return ", ".join(
        f"{stages[stage]} {stage.replace('_', ' ')}" for stage in _MARKS if stages[stage]
    )


def _list(row: JsonObject, name: str) -> list[Json]:
    value = row[name]
    return value if isinstance(value, list) else []


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
