"""Rules of scripts: which one answers, and what references become."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError, ManifestError
from interlock.testing.script import Script


def load(tmp_path: Path, text: str) -> Script:
    """Load a script from its text."""
    path = tmp_path / "script.yaml"
    path.write_text(text)
    return Script.load(path)


def asked(prompt: str = "hello", *, system: str = "You help.") -> list[JsonObject]:
    """Return the messages of a first turn."""
    return [{"role": "system", "content": system}, {"role": "user", "content": prompt}]


def called(messages: list[JsonObject], tool: str, result: Json) -> list[JsonObject]:
    """Add a tool call and its result to a conversation."""
    identity = f"c{len(messages)}"
    call: Json = {"id": identity, "function": {"name": tool, "arguments": "{}"}}
    return [
        *messages,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": identity, "content": json.dumps(result)},
    ]


def test_first_rule_that_fits_answers(tmp_path: Path) -> None:
    """Rules are tried from the top, whatever comes later fits too."""
    script = load(
        tmp_path,
        """
        rules:
          - {rule: other agent, system: classifier, text: no}
          - {rule: mine, system: resolver, text: yes it is}
          - {rule: rest, text: no}
        """,
    )

    answer = script.answer(asked(system="You are the resolver."))

    assert ("mine", "yes it is") == (answer.rule, answer.text)


def test_rules_follow_results_turn_and_last_message(tmp_path: Path) -> None:
    """A rule may ask for counts of results, for the turn and for words of the last message."""
    script = load(
        tmp_path,
        """
        rules:
          - {rule: search, turn: 1, calls: [{tool: desk.issue.search, arguments: {title: vpn}}]}
          - {rule: denied, results: {desk.issue.search: 1}, last: denied, text: I stop}
          - {rule: found, results: {desk.issue.search: 1}, text: done}
        """,
    )
    start = asked()

    first = script.answer(start)
    second = script.answer(called(start, "desk__issue__search", {"id": "3"}))
    third = script.answer(called(start, "desk__issue__search", "denied by policy"))

    assert (("desk__issue__search", {"title": "vpn"}),) == first.calls
    assert ["done", "I stop"] == [second.text, third.text]


def test_references_become_values(tmp_path: Path) -> None:
    """A whole reference keeps its type, one inside a text becomes text."""
    script = load(
        tmp_path,
        r"""
        rules:
          - rule: all
            prompt: '"ticket": (?P<number>\d+)'
            text: "ticket {{match:number}} has {{tool:desk.search/count}}"
            calls:
              - tool: desk.update
                arguments:
                  id: "{{match:number}}"
                  ticket: "{{prompt/ticket}}"
                  first: "{{tool:desk.search#1/items/0}}"
                  last: "{{tool:desk.search/items}}"
                  nested: [{system: "{{ messages/0/content }}"}]
        """,
    )
    messages = called(asked('{"ticket": 17}'), "desk__search", {"items": ["a"], "count": 1})
    messages = called(messages, "desk__search", {"items": ["b"], "count": 2})

    answer = script.answer(messages)

    expected = {
        "id": "17",
        "ticket": 17,
        "first": "a",
        "last": ["b"],
        "nested": [{"system": "You help."}],
    }
    assert "ticket 17 has 2" == answer.text
    assert (("desk__update", expected),) == answer.calls


def test_json_answer_is_text(tmp_path: Path) -> None:
    """An answer given as a value is sent as JSON text."""
    script = load(tmp_path, 'rules: [{rule: r, prompt: "(?P<x>h.*)", json: {said: "{{match:x}}"}}]')

    answer = script.answer(asked())

    assert '{"said": "hello"}' == answer.text


def test_rule_with_times_answers_that_often(tmp_path: Path) -> None:
    """After its number of answers a rule is passed over."""
    script = load(
        tmp_path, "rules: [{rule: busy, times: 2, fault: 429}, {rule: fine, text: hello}]"
    )

    answers = [script.answer(asked()).rule for _ in range(3)]

    assert ["busy", "busy", "fine"] == answers


def test_usage_follows_the_lengths_unless_given(tmp_path: Path) -> None:
    """Equal requests cost equal tokens, longer ones more; a script may fix the numbers."""
    script = load(
        tmp_path,
        """
        rules:
          - {rule: fixed, prompt: fixed, text: a, usage: {input: 7, output: 3}}
          - {rule: counted, text: a}
        """,
    )

    short, again = script.answer(asked("x")), script.answer(asked("x"))
    long, fixed = script.answer(asked("x" * 400)), script.answer(asked("fixed"))

    assert short == again
    assert long.input_tokens - short.input_tokens in range(99, 101)
    assert (7, 3) == (fixed.input_tokens, fixed.output_tokens)


def test_message_of_parts_is_read(tmp_path: Path) -> None:
    """A content may be a list of parts; their texts count."""
    script = load(tmp_path, "rules: [{rule: r, prompt: vpn, text: ok}]")
    parts: Json = [{"type": "text", "text": "my"}, {"type": "text", "text": "vpn"}]

    answer = script.answer([{"role": "user", "content": parts}])

    assert "ok" == answer.text


def test_no_rule_names_the_last_message(tmp_path: Path) -> None:
    """The error says which message found no rule."""
    script = load(tmp_path, "rules: [{rule: r, prompt: vpn, text: ok}]")

    with pytest.raises(InputError, match="no rule fits turn 1, whose last message is `printer`"):
        script.answer(asked("printer"))


@pytest.mark.parametrize(
    "reference",
    ["match:nobody", "tool:desk.search/id", "prompt/a", "messages/9", "nonsense", "tool:x#2"],
)
def test_reference_that_leads_nowhere_is_an_error(tmp_path: Path, reference: str) -> None:
    """The error names the rule and the reference."""
    script = load(tmp_path, f'rules: [{{rule: r, text: "{{{{{reference}}}}}"}}]')

    with pytest.raises(InputError, match=f"the rule `r` cannot answer: `{reference}`"):
        script.answer(asked())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("rules:\n  - rule: a\n    txet: b\n", 3),
        ("rules: []\n", 1),
        ("rules:\n  - rule: a\n    prompt: '('\n", 3),
        ("rules:\n  - rule: a\n    fault: 418\n", 3),
        ("rules:\n  - text: a\n", 2),
    ],
)
def test_broken_script_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    """Unknown keys, broken expressions and missing names are found at loading."""
    with pytest.raises(ManifestError) as refused:
        load(tmp_path, text)

    assert line == refused.value.problems[0].line


def test_script_is_one_document(tmp_path: Path) -> None:
    """An empty file and a file of two documents are refused."""
    for text in ("", "rules: [{rule: a}]\n---\nrules: [{rule: a}]\n"):
        with pytest.raises(ManifestError, match="one document"):
            load(tmp_path, text)
