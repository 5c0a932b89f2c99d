"""One tool as a page of the terminal: all that the registry knows of it, and who calls it."""

from __future__ import annotations

from collections.abc import Iterator

from interlock.cli.output import fact, part, rows_of, say, table
from interlock.domain.canonical import Json, JsonObject, canonical_text

_PROMISES = {
    "read": "changes nothing; may run twice",
    "keyed": "effectively once while the system honours our key",
    "conditional": "effectively once: the system refuses a second write; probed if in doubt",
    "probed": "effectively once if no pause outlasts the quiet time; looked up before a resend",
    "blind": "at most one call per authorisation; an unknown outcome needs a person",
}


def show(tool: JsonObject, usage: JsonObject) -> None:
    """Print the page: facts, where each version goes, and who has the tool or has called it."""
    say(f"{tool['name']} v{tool['version']}", style="bold")
    for label, value in _facts(tool):
        fact(label, value, width=14)
    say("where it goes", style="bold")
    _bindings(tool)
    say(f"who has it, and calls of the last {usage['days']} days", style="bold")
    columns = ("workflow", "owner", "has_it", "environment", "version", "calls")
    table(
        [column.replace("_", " ") for column in columns],
        [tuple(row[column] for column in columns) for row in rows_of(usage, "callers")],
        empty="nobody; give it to a seat in a workflow's `tools`",
    )


def _facts(tool: JsonObject) -> Iterator[tuple[str, Json]]:
    effect_class = str(part(tool, "effect", "effect_class"))
    yield "title", tool["title"]
    yield "for agents", tool["description"]
    yield "owner", tool["owner"]
    yield "system", f"{tool['system']} ({tool['kind']})"
    yield "group", tool["group"]
    yield "flags", _flags(tool)
    yield "risk", tool["risk"]
    yield "effect class", effect_class
    yield "promise", _PROMISES.get(effect_class)
    yield "probe", _reference(part(tool, "effect", "probe"))
    yield "undo", _reference(tool["compensation"])
    yield "business key", _whole(tool["business_key"])
    yield "records", _whole(tool["records"])
    yield "result", _labels(tool["source"], "labels", "is_trusted", "trusted", "untrusted")
    yield "takes", _labels(tool["sink"], "accepts", "is_external", "leaves us", "stays with us")
    yield "limits", _whole(tool["limits"])
    yield "request", f"{tool['connector']} {canonical_text(tool['request'])}"
    yield "seats", tool["seats"]
    yield "versions", tool["versions"]
    yield "deprecated", _deprecated(tool["deprecations"])
    yield "pin", tool["pin"]
    yield "quarantine", _quarantined(tool)
    yield "input", canonical_text(tool["input_schema"])
    yield "output", canonical_text(tool["output_schema"])


def _bindings(tool: JsonObject) -> None:
    bindings = rows_of(tool, "bindings")
    columns = ("environment", "version", "server", "protocol", "credentials", "quarantine")
    table(
        columns,
        [tuple(by_workflow(row[key]) for key in columns) for row in bindings],
        empty="nowhere; bind it in `environments` of its manifest",
    )


def by_workflow(value: Json) -> Json:
    """Return credentials that are given for each workflow as a list, others as they are."""
    if not isinstance(value, dict):
        return value
    return [f"{workflow}: {reference}" for workflow, reference in sorted(value.items())]


def _flags(tool: JsonObject) -> Json:
    flags = {"egress": tool["is_egress"], "irreversible": tool["is_irreversible"]}
    return [name for name, is_set in flags.items() if is_set]


def _reference(value: Json) -> str | None:
    return f"{value['tool']}@{value['version']}" if isinstance(value, dict) else None


def _whole(value: Json) -> str | None:
    return None if value is None else canonical_text(value)


def _labels(value: Json, names: str, flag: str, yes: str, no: str) -> str:
    listed = part(value, names)
    labels = ", ".join(map(str, listed)) if isinstance(listed, list) else ""
    return f"{yes if part(value, flag) else no}; labels: {labels or 'none'}"


def _deprecated(value: Json) -> str | None:
    found = value.items() if isinstance(value, dict) else ()
    return "; ".join(_words(version, one) for version, one in found) or None


def _words(version: str, one: Json) -> str:
    end = f" until {part(one, 'until')}" if part(one, "until") else ""
    use = f"; use {_reference(one)}" if part(one, "tool") else ""
    return f"v{version} since {part(one, 'since')}{end}: {part(one, 'reason')}{use}"


def _quarantined(tool: JsonObject) -> str | None:
    held = tool["quarantine"]
    reasons = held.items() if isinstance(held, dict) else ()
    return "; ".join(f"in {key.rpartition('@')[2]}: {why}" for key, why in reasons) or None
