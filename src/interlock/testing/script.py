r"""Scripts of the scripted model: which request is answered how. Pure: no server, no clock.

A script is a YAML file. Its rules are tried from the top, and the first that fits answers:

```yaml
model: scripted                       # the name that GET /v1/models lists
rules:
  - rule: look for similar tickets    # a name, for errors and for GET /requests
    # Conditions; all that are given must hold.
    system: You are the resolver      # regular expression, searched in the system messages
    prompt: 'ticket (?P<id>\d+)'      # ... in the first message of the user
    last: found nothing               # ... in the last message, often the result of a tool call
    turn: 2                           # the agent's answers so far, plus one
    results: {servicedesk.issue.search: 1}      # results so far of the named tools
    times: 1                          # the rule answers that many requests, then never again
    # The answer.
    text: I look for ticket {{match:id}}
    calls:
      - {tool: servicedesk.issue.search, arguments: {title: vpn}}
    usage: {input: 100, output: 20}   # tokens; without it, a quarter of the characters
    latency_s: 0.5
    fault: 429                        # or 500, or cut: half of the answer's JSON
```

`json` in place of `text` answers with a value as JSON. In `text`, `json` and `arguments`,
`{{reference}}` is replaced (quote it in YAML); a string that is one reference and nothing else
becomes the value itself:

| reference | value |
|---|---|
| `match:NAME` | named group of the rule's regular expressions |
| `prompt` | the first user message; `prompt/a/b`: a place in it, if it is JSON |
| `tool:NAME/a/0` | a place in the last result of the tool; `tool:NAME#1/a/0`: in its first one |
| `messages/2/content` | a place in the request's messages |

Tool names are written with dots; models see `__` in their place.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError, ManifestError, Problem
from interlock.domain.pointer import read
from interlock.manifest.files import parse

CHARACTERS_PER_TOKEN = 4
REFERENCE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
SOURCE = re.compile(r"(?P<kind>match|prompt|tool|messages)(?::(?P<name>[^/#]+))?(?:#(?P<nth>\d+))?")

Fault = Literal[429, 500, "cut"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Call(_Strict):
    """One tool call of an answer; the arguments may hold references."""

    tool: str
    arguments: dict[str, JsonValue] = {}


class Usage(_Strict):
    """Tokens that an answer claims to have cost."""

    input: Annotated[int, Field(ge=0)]
    output: Annotated[int, Field(ge=0)]


class Rule(_Strict):
    """One rule: the conditions that select it, and its answer."""

    rule: str
    system: re.Pattern[str] | None = None
    prompt: re.Pattern[str] | None = None
    last: re.Pattern[str] | None = None
    turn: Annotated[int, Field(ge=1)] | None = None
    results: dict[str, int] = {}
    times: Annotated[int, Field(ge=1)] | None = None
    text: str | None = None
    json_: Annotated[JsonValue, Field(alias="json")] = None
    calls: tuple[Call, ...] = ()
    usage: Usage | None = None
    latency_s: Annotated[float, Field(ge=0)] = 0.0
    fault: Fault | None = None


class _File(_Strict):
    model: str = "scripted"
    rules: Annotated[tuple[Rule, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The messages of one request, as the rules see them."""

    messages: Sequence[JsonObject]

    @property
    def system(self) -> str:
        """The system messages, one after the other."""
        roles = {"system", "developer"}
        return "\n".join(_text(m) for m in self.messages if m.get("role") in roles)

    @property
    def prompt(self) -> str:
        """The first message of the user, or nothing."""
        return next((_text(m) for m in self.messages if m.get("role") == "user"), "")

    @property
    def last(self) -> str:
        """The last message, whoever wrote it, or nothing."""
        return _text(self.messages[-1]) if self.messages else ""

    @property
    def turn(self) -> int:
        """The number of the answer that is asked for, from 1."""
        return 1 + sum(m.get("role") == "assistant" for m in self.messages)

    def results(self, tool: str) -> list[Json]:
        """Return the results of a tool so far, in order, as JSON where they are JSON."""
        names: dict[str, str] = {}
        found: list[Json] = []
        for message in self.messages:
            for call in _objects(message.get("tool_calls")):
                function = call.get("function")
                if isinstance(function, dict):
                    names[str(call.get("id"))] = str(function.get("name"))
            is_result = message.get("role") == "tool"
            if is_result and names.get(str(message.get("tool_call_id"))) == offered_name(tool):
                found.append(_json_or_text(_text(message)))
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model says to one request; `calls` are pairs of offered name and arguments."""

    rule: str
    text: str | None
    calls: tuple[tuple[str, JsonObject], ...]
    input_tokens: int
    output_tokens: int
    latency_s: float
    fault: Fault | None


class Script:
    """Rules and how often each has answered; not for several threads at once."""

    def __init__(self, rules: Sequence[Rule], *, model: str = "scripted") -> None:
        self.model = model
        self._rules = rules
        self._used: Counter[int] = Counter()

    @classmethod
    def load(cls, path: Path) -> Script:
        """Read a script; raises `ManifestError` with each problem and its line."""
        documents = parse(path.name, path.read_text(encoding="utf-8"))
        if len(documents) != 1:
            message = f"a script is one document, this file holds {len(documents)}"
            raise ManifestError((Problem(path=path.name, line=None, message=message),))
        try:
            file = _File.model_validate(documents[0].content)
        except ValidationError as error:
            raise ManifestError(
                tuple(documents[0].problem(e["loc"], e["msg"].lower()) for e in error.errors())
            ) from None
        return cls(file.rules, model=file.model)

    def answer(self, messages: Sequence[JsonObject]) -> Answer:
        """Return the answer of the first rule that fits.

        Raises `InputError` if none does, or if a reference of the rule leads nowhere.
        """
        talk = Conversation(messages=messages)
        for index, rule in enumerate(self._rules):
            groups = _fits(rule, talk)
            if groups is None or (rule.times is not None and self._used[index] >= rule.times):
                continue
            self._used[index] += 1
            try:
                return _fill(rule, talk, groups)
            except InputError as error:
                raise InputError(f"the rule `{rule.rule}` cannot answer: {error}") from None
        raise InputError(f"no rule fits turn {talk.turn}, whose last message is `{talk.last}`")


def offered_name(tool: str) -> str:
    """Return a tool's name as models see it, since theirs may not have dots.

    >>> offered_name("servicedesk.issue.search")
    'servicedesk__issue__search'
    """
    return tool.replace(".", "__")


def _fits(rule: Rule, talk: Conversation) -> dict[str, str] | None:
    """Return the named groups of the rule's expressions, or None if a condition does not hold."""
    if rule.turn not in {None, talk.turn}:
        return None
    if any(len(talk.results(tool)) != count for tool, count in rule.results.items()):
        return None
    groups: dict[str, str] = {}
    for pattern, text in (
        (rule.system, talk.system),
        (rule.prompt, talk.prompt),
        (rule.last, talk.last),
    ):
        if pattern is not None:
            found = pattern.search(text)
            if found is None:
                return None
            groups |= {name: value or "" for name, value in found.groupdict().items()}
    return groups


def _fill(rule: Rule, talk: Conversation, groups: Mapping[str, str]) -> Answer:
    resolve = partial(_resolve, talk=talk, groups=groups)
    text: str | None = None
    if rule.json_ is not None:
        text = json.dumps(_replace(rule.json_, resolve), ensure_ascii=False)
    elif rule.text is not None:
        text = REFERENCE.sub(lambda found: _as_text(resolve(found[1])), rule.text)
    calls: list[tuple[str, JsonObject]] = []
    for call in rule.calls:
        arguments = {name: _replace(value, resolve) for name, value in call.arguments.items()}
        calls.append((offered_name(call.tool), arguments))
    usage = rule.usage or Usage(input=_tokens(list(talk.messages)), output=_tokens([text, calls]))
    return Answer(
        rule=rule.rule,
        text=text,
        calls=tuple(calls),
        input_tokens=usage.input,
        output_tokens=usage.output,
        latency_s=rule.latency_s,
        fault=rule.fault,
    )


def _replace(template: JsonValue, resolve: partial[Json]) -> Json:
    if isinstance(template, str):
        whole = REFERENCE.fullmatch(template)
        if whole:
            return resolve(whole[1])
        return REFERENCE.sub(lambda found: _as_text(resolve(found[1])), template)
    if isinstance(template, list):
        return [_replace(item, resolve) for item in template]
    if isinstance(template, dict):
        return {key: _replace(item, resolve) for key, item in template.items()}
    return template


def _resolve(reference: str, *, talk: Conversation, groups: Mapping[str, str]) -> Json:
    """Return the value of a reference; raises `InputError` if it has none."""
    source, slash, rest = reference.partition("/")
    parts = SOURCE.fullmatch(source)
    if parts is None:
        raise InputError(f"`{reference}` is no reference: use match:, prompt, tool: or messages")
    document: Json
    match parts["kind"]:
        case "match":
            if parts["name"] not in groups:
                raise InputError(f"`{reference}` names no group of the rule's expressions")
            document = groups[parts["name"]]
        case "prompt":
            document = _json_or_text(talk.prompt) if slash else talk.prompt
        case "tool":
            results = talk.results(parts["name"] or "")
            nth = int(parts["nth"] or len(results))
            if not 1 <= nth <= len(results):
                raise InputError(f"`{reference}`: the tool has {len(results)} results so far")
            document = results[nth - 1]
        case _:
            document = list(talk.messages)
    try:
        return read(document, slash + rest)
    except InputError as error:
        raise InputError(f"`{reference}`: {error}") from None


def _text(message: JsonObject) -> str:
    """Return the text of a message, whose content is a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(str(part.get("text", "")) for part in _objects(content))


def _objects(value: Json) -> list[JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _json_or_text(text: str) -> Json:
    try:
        value: Json = json.loads(text)
    except ValueError:
        return text
    return value


def _as_text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tokens(value: object) -> int:
    return math.ceil(len(json.dumps(value, ensure_ascii=False)) / CHARACTERS_PER_TOKEN)
