"""Which outside records a call touched, read from the pointers of its contract, never from text."""

from __future__ import annotations

from interlock.domain.canonical import Json, digest
from interlock.domain.effect import Effect
from interlock.domain.errors import InputError
from interlock.domain.pointer import fill, read
from interlock.domain.tool import RecordPointer, ToolVersion
from interlock.domain.touch import Touch


def touches_of(effect: Effect, tool: ToolVersion, *, output: Json, at_us: int) -> tuple[Touch, ...]:
    """Return one touch per record that the contract's pointers find, in their order, no doubles.

    A pointer that finds nothing, or something that is no id (text or integer), yields none.
    `after` is the digest of what was seen: of the item for a list, of the output for a read, of
    the arguments for a write; a deleted record has none.
    """
    documents: dict[str, Json] = {"in": effect.arguments, "out": output}
    touches: dict[Touch, None] = {}
    for pointer in tool.records:
        for external_id, seen in _records(pointer, documents):
            touch = Touch(
                tenant=effect.tenant,
                run_id=effect.run_id,
                effect_id=effect.effect_id,
                system=tool.system,
                type=pointer.type,
                external_id=external_id,
                mode=pointer.mode,
                at_us=at_us,
                after=None if pointer.mode == "delete" else digest(seen),
            )
            touches[touch] = None
    return tuple(touches)


def _records(pointer: RecordPointer, documents: dict[str, Json]) -> list[tuple[str, Json]]:
    try:
        found = fill(pointer.id, documents)
    except InputError:
        return []
    whole = documents["out"] if pointer.mode == "read" else documents["in"]
    if not isinstance(found, list):
        return [(name, whole) for name in _ids(found)]
    records: list[tuple[str, Json]] = []
    for item in found:
        try:
            inner = read(item, pointer.item)
        except InputError:
            continue
        records.extend((name, item) for name in _ids(inner))
    return records


def _ids(value: Json) -> list[str]:
    if isinstance(value, str) and value:
        return [value]
    if isinstance(value, int) and not isinstance(value, bool):
        return [str(value)]
    return []
