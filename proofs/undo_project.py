"""Adds to the project of the recording tool server what can be undone, and runs that undo it.

Each write declares a compensation of its own class. `undo_failed` writes in four classes and then
fails, so that it undoes all; `undo_ended` ends well, and is undone by a run of its own.
"""

from __future__ import annotations

from interlock.domain.ids import WorkflowName
from interlock.testing.recorder_project import TOOL_OF

UNDO_FAILED, UNDO_ENDED = WorkflowName("undo_failed"), WorkflowName("undo_ended")
WRITES = ("blind", "keyed", "conditional", "probed")
"""In the order of their calls: the blind one is undone last, as only people can unblock others."""
UNDO_OF = {effect_class: f"recorder.item.undo_{effect_class}" for effect_class in WRITES}
REFUSED = "recorder.item.refuse"


def with_undo(texts: dict[str, str]) -> dict[str, str]:
    """Return the project with compensations of its writes, and both workflows."""
    added = dict(texts)
    for effect_class, undo in UNDO_OF.items():
        create = TOOL_OF[effect_class]
        text = texts[f"tools/{create}.yaml"]
        added[f"tools/{undo}.yaml"] = text.replace(f"name: {create}", f"name: {undo}")
        added[f"tools/{create}.yaml"] = (
            f"{text}compensation: {{tool: {undo}@1, args: {{text: 'out:/id'}}}}\n"
        )
        for path, workflow in added.items():
            if path.startswith("workflows/") and create in workflow:
                added[path] = workflow.replace("tools: [", f"tools: [{undo}, ")
    keyed = texts[f"tools/{TOOL_OF['keyed']}.yaml"].replace(TOOL_OF["keyed"], REFUSED)
    # A request without the key that the tool server needs is refused by 400, each time.
    added[f"tools/{REFUSED}.yaml"] = (
        keyed.replace("key_header: Idempotency-Key, ", "")
        .replace("class: keyed, key_ttl_s: 3600, ", "class: blind, ")
        .replace(", key_reused: [409]", "")
    )
    for name, failing, then in ((UNDO_FAILED, [REFUSED], "compensate"), (UNDO_ENDED, [], "stop")):
        writes = [TOOL_OF[effect_class] for effect_class in WRITES]
        called = [*(writes if name == UNDO_FAILED else writes[1:]), *failing]
        text = texts["workflows/call_keyed.yaml"].replace("call_keyed", name)
        text = text.replace('{code: "*", then: stop}', f'{{code: "*", then: {then}}}')
        tools = sorted({*called, *UNDO_OF.values(), TOOL_OF["read"]})
        added[f"workflows/{name}.yaml"] = with_steps(text, called, tools)
    return added


def with_steps(workflow: str, called: list[str], tools: list[str]) -> str:
    """Return a workflow's text with these calls as its steps, and these tools."""
    steps = [
        f"  - {{name: s{n}, tool: {tool}, args: {{text: 'input:/text'}}}}"
        for n, tool in enumerate(called)
    ]
    changed: list[str] = []
    for line in workflow.splitlines():
        if line.startswith("tools:"):
            changed.append(f"tools: [{', '.join(tools)}]")
        elif line.startswith("  - {name: call,"):
            changed += steps
        else:
            changed.append(line)
    return "\n".join(changed) + "\n"
