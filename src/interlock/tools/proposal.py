"""Manifest files proposed and edited for review; what an upstream says becomes comments.

Nothing here is put into use. Whatever an upstream calls harmless is proposed as `write` + `blind`
all the same; a person says otherwise by editing the file.
"""

from __future__ import annotations

import io
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError
from interlock.domain.ids import ToolName
from interlock.domain.tool import Environment, Server, ToolVersion
from interlock.tools.contract import check_schema

_VERBS = frozenset(
    {
        *("add", "approve", "assign", "cancel", "close", "convert", "create", "delete"),
        *("download", "edit", "fetch", "find", "get", "link", "list", "move", "open", "post"),
        *("put", "read", "remove", "reply", "retire", "revoke", "run", "search", "send", "set"),
        *("show", "start", "status", "stop", "toggle", "trigger", "update", "upload", "write"),
    }
)
# Words for people and models; ours belong into the manifest, theirs nowhere near an agent.
_UPSTREAM_WORDS = frozenset({"$comment", "default", "description", "example", "examples", "title"})
_DROPPED = _UPSTREAM_WORDS | {"$anchor", "$id", "$schema"}
_NAMED = frozenset({"$defs", "dependentSchemas", "patternProperties", "properties"})
_DATA = frozenset({"const", "enum", "required", "type"})
_LONGEST_NAME = 61
"""As the manifest has it."""
_COMMENT_WIDTH = 96
_LINE_WIDTH = 4096
"""So wide that no line that a person wrote is broken anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Files by path below the project folder, and notes on what was left out or needs a look."""

    files: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def join(self, other: Proposal) -> Proposal:
        """Return both together; of two files with one path the first stays and a note is made."""
        taken = sorted(self.files.keys() & other.files.keys())
        notes = tuple(f"`{path}` was proposed twice; the second was left out" for path in taken)
        return Proposal(
            files={**other.files, **self.files}, notes=(*self.notes, *other.notes, *notes)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One tool to propose. `said` are the upstream's own words, for the reviewer only."""

    server: Server
    owner: str
    words: tuple[str, ...]
    upstream: str
    connector: Literal["http", "mcp", "python"]
    reach: JsonObject
    input_schema: JsonObject
    output_schema: JsonObject
    is_read: bool = False
    said: str = ""
    notes: tuple[str, ...] = field(default=())


def propose(draft: Draft) -> Proposal:
    """Return the manifest and the two schemas of one tool."""
    name = tool_name(draft.server.system, draft.words)
    arguments = as_contract(draft.input_schema, is_closed=True)
    output = as_contract(draft.output_schema, is_closed=False)
    manifest: JsonObject = {
        "interlock": "v1",
        "kind": "Tool",
        "name": name,
        "version": 1,
        "owner": draft.owner,
        "title": f"{draft.upstream} of {draft.server.system}",
        "description": f"{draft.upstream} of {draft.server.system}",
        "system": draft.server.system,
        "group": "read" if draft.is_read else "write",
        "connector": draft.connector,
        **draft.reach,
        "contract": {
            "input": f"schemas/{name}.in.json",
            "output": f"schemas/{name}.out.json",
        },
        "effect": {"class": "read" if draft.is_read else "blind"},
        "environments": {draft.server.environment: {"server": draft.server.name}},
    }
    open_points = check_schema(arguments, must_be_closed=not draft.is_read)
    notes = (*draft.notes, *(f"input: {point}" for point in open_points))
    return Proposal(
        files={
            f"tools/{name}.yaml": _comment(draft, notes) + _yaml(manifest),
            f"schemas/{name}.in.json": _json(arguments),
            f"schemas/{name}.out.json": _json(output),
        },
        notes=tuple(f"`{name}`: {note}" for note in notes),
    )


def repinned(files: Mapping[str, str], tool: ToolVersion, pin: str) -> tuple[str, str]:
    """Return the path and the new text of the file that declares a tool version.

    It becomes the next version; comments and order stay as they are. A `pin` of the file's own
    content goes, as it cannot fit any more.
    """
    for file in _declaring(files, tool.name):
        document = file.versions.get(tool.version)
        if document is not None:
            document["version"] = tool.version + 1
            document["upstream"]["pin"] = pin
            document.pop("pin", None)
            return file.path, file.text()
    raise InputError(f"no file declares `{tool.name}@{tool.version}`")


def released(
    files: Mapping[str, str], name: ToolName, version: int, environment: Environment
) -> dict[str, str]:
    """Return the new texts of the files that change so that a version is live in an environment.

    It goes where the version goes that is live there now, if it says nothing itself. Newer versions
    stay bound as past ones. Comments and order stay as they are. Raises `InputError`.
    """
    declaring = list(_declaring(files, name))
    every = {number: one for file in declaring for number, one in file.versions.items()}
    if version not in every:
        known = ", ".join(map(str, sorted(every))) or "none"
        raise InputError(f"the project has no `{name}@{version}`; it has the versions {known}")
    places = {number: every[number]["environments"] for number in sorted(every)}
    live = [
        number
        for number, place in places.items()
        if environment in place and not place[environment].get("past")
    ]
    changed = set[int]()
    if environment not in places[version]:
        if not live:
            hint = "add it to `environments`, with its server"
            raise InputError(f"no version of `{name}` is bound in `{environment}`; {hint}")
        places[version][environment] = deepcopy(places[live[-1]][environment])
        changed.add(version)
    if places[version][environment].pop("past", False):
        changed.add(version)
    for number in live:
        if number > version:
            places[number][environment]["past"] = True
            changed.add(number)
    return {file.path: file.text() for file in declaring if changed & file.versions.keys()}


def words_of(text: str) -> tuple[str, ...]:
    """Split an upstream's name into lower-case words.

    >>> words_of("getPetById-v2")
    ('get', 'pet', 'by', 'id', 'v2')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text)
    return tuple(word.lower() for word in re.findall(r"[A-Za-z0-9]+", spaced))


def tool_name(system: str, words: tuple[str, ...]) -> str:
    """Make `<system>.<noun>.<verb>` of an upstream's words, as well as a machine can.

    >>> tool_name("git", ("git", "create", "branch"))
    'git.branch.create'
    """
    rest = list(words[1:] if len(words) > 1 and words[0] == system else words)
    verb = "call"
    for index in (0, -1):
        if len(rest) > 1 and rest[index] in _VERBS:
            verb = rest.pop(index)
            break
    noun = "_".join(rest) or "thing"
    noun = noun if noun[0].isalpha() else f"n{noun}"
    room = _LONGEST_NAME - len(system) - len(verb) - 2
    return f"{system}.{noun[:room].rstrip('_')}.{verb}"


def as_contract(schema: JsonObject, *, is_closed: bool) -> JsonObject:
    """Return an upstream's schema without its words, and with its objects closed if asked."""
    kept: JsonObject = {}
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, dict):
            kept[key] = {name: _below(item, is_closed=is_closed) for name, item in value.items()}
        elif key not in _DROPPED:
            kept[key] = value if key in _DATA else _below(value, is_closed=is_closed)
    is_object = kept.get("type") == "object" or "properties" in kept
    if is_closed and is_object and not {"allOf", "unevaluatedProperties"} & kept.keys():
        kept.setdefault("additionalProperties", False)
    return kept


def _below(value: Json, *, is_closed: bool) -> Json:
    if isinstance(value, dict):
        return as_contract(value, is_closed=is_closed)
    if isinstance(value, list):
        return [_below(item, is_closed=is_closed) for item in value]
    return value


def _comment(draft: Draft, notes: tuple[str, ...]) -> str:
    lines = ["Proposed for review: say what it does in words of your own, and what it really does."]
    if draft.said:
        said = "".join(char if char.isprintable() else " " for char in draft.said)
        lines.append(f"Upstream says, which is not to be trusted: {' '.join(said.split())}")
    lines += [f"Open: {note}" for note in notes]
    parts = (part for line in lines for part in textwrap.wrap(line, _COMMENT_WIDTH))
    return "".join(f"# {part}\n" for part in parts)


def _yaml(value: JsonObject) -> str:
    yaml = YAML(pure=True)
    yaml.default_flow_style = False
    yaml.width = 100
    text = io.StringIO()
    yaml.dump(value, text)
    return text.getvalue()


def _json(value: JsonObject) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file that declares versions of a tool; a change of one is a change of its text."""

    path: str
    yaml: YAML
    documents: list[CommentedMap]
    versions: Mapping[int, CommentedMap]

    def text(self) -> str:
        written = io.StringIO()
        self.yaml.dump_all(self.documents, written)
        return written.getvalue()


def _declaring(files: Mapping[str, str], name: ToolName) -> Iterator[_File]:
    for path, text in sorted(files.items()):
        if not path.endswith((".yaml", ".yml")):
            continue
        yaml = YAML()
        yaml.preserve_quotes, yaml.width = True, _LINE_WIDTH
        documents = list(yaml.load_all(text))
        versions = {
            document["version"]: document
            for document in documents
            if isinstance(document, CommentedMap)
            and (document.get("kind"), document.get("name")) == ("Tool", name)
        }
        if versions:
            yield _File(path=path, yaml=yaml, documents=documents, versions=versions)
