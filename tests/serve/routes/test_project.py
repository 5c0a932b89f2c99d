"""Planning and applying over REST: every problem with file and line, and nothing half-applied."""

from __future__ import annotations

import json

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.principal import DEFAULT_TENANT, Role
from interlock.store import registry
from tests.serve.plane import API, Plane, body_of, error_of
from tests.serve.sample import files

BROKEN_POLICY = '@id("x") @owner("platform") @why("y")\npermit (principal, action, resource) when {'


def changed(path: str, text: str) -> dict[str, str]:
    """Return the sample project with one file of another text."""
    return {**files(), path: text}


def live(plane: Plane) -> int:
    """Return the number of the live release."""
    with plane.interlock.db.reading() as tx:
        return registry.live_number(tx)


async def test_apply_takes_exactly_the_difference_that_was_shown(plane: Plane) -> None:
    """The digest of the plan is accepted once; afterwards it is another difference."""
    token = plane.key(Role.OWNER)
    texts: JsonObject = {**files()}
    ask: JsonObject = {"files": texts}
    shown = body_of(await plane.send("POST", f"{API}/project/plan", token=token, body=ask))
    ask["diff"] = shown["digest"]

    done = await plane.send("POST", f"{API}/project/apply", token=token, body=ask)
    again = await plane.send("POST", f"{API}/project/apply", token=token, body=ask)

    assert (200, 1, False) == (
        done.status_code,
        body_of(done)["release"],
        shown["is_empty"],
    )
    assert (409, "conflict") == error_of(again)[:2]
    assert 1 == live(plane)


async def test_planning_changes_nothing(plane: Plane) -> None:
    """A viewer may look at what a change would do."""
    answer = await plane.send(
        "POST",
        f"{API}/project/plan",
        token=plane.key(Role.VIEWER),
        body={"files": {**files()}},
    )

    assert "+ workflow look" in str(body_of(answer)["text"])
    assert 0 == live(plane)


async def test_one_backtest_at_a_time(plane: Plane) -> None:
    """A second one is told so in its line, and the next one runs."""
    plane.apply(files())
    token = plane.key(Role.VIEWER)
    ask: JsonObject = {"files": {**files()}, "since": "1h"}
    first = plane.interlock.backtest(files(), tenant=DEFAULT_TENANT, span_us=1)
    report = next(first)

    async def lines() -> list[JsonObject]:
        answer = await plane.send("POST", f"{API}/project/backtest", token=token, body=ask)
        return [json.loads(line) for line in answer.text.splitlines()]

    (refused,) = await lines()
    first.close()
    (told,) = await lines()

    assert {"report"} == {*report} == {*told}
    assert "another back-test is running here" in str(refused["error"])


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        (
            changed("workflows/look.yaml", "interlock: v1\nkind: Workflow\nname: [look\n"),
            "workflows/look.yaml:4: is not YAML",
        ),
        (
            changed("project.yaml", files()["project.yaml"] + "teems: [a]\n"),
            "project.yaml:7: unknown key `teems`",
        ),
        (
            changed("policies/grants/x.cedar", BROKEN_POLICY),
            "policies/grants/x.cedar:1: not Cedar",
        ),
        (
            changed(
                "policies/grants/x.cedar",
                '@id("x") @owner("platform") @why("y")\n'
                'permit (principal, action == Action::"read", resource == Tool::"no.such.tool");',
            ),
            "policies/grants/x.cedar:",
        ),
        (
            changed(
                "policies/grants/x.cedar",
                '@id("x") @owner("platform") @why("y")\n'
                'permit (principal, action == Action::"model", resource == Model::"gone");',
            ),
            "policies/grants/x.cedar:1: there is no model `gone`",
        ),
        (
            changed(
                "tools/bare.yaml",
                "interlock: v1\nkind: Tool\nname: desk.a.find\nversion: 1\nowner: platform\n",
            ),
            "tools/bare.yaml:1: `contract` is missing",
        ),
        ({}, "project.yaml: "),
    ],
    ids=[
        "yaml",
        "unknown-key",
        "policy-syntax",
        "policy-unknown",
        "no-model",
        "no-contract",
        "empty",
    ],
)
async def test_a_broken_project_is_refused_whole(
    plane: Plane, texts: dict[str, str], problem: str
) -> None:
    """Plan and apply name file and line; what was live stays live."""
    token = plane.key(Role.OWNER)
    plane.apply(files())
    for door in ("plan", "apply"):
        answer = await plane.send(
            "POST", f"{API}/project/{door}", token=token, body={"files": {**texts}}
        )

        status, code, message = error_of(answer)
        assert (400, True) == (status, code in {"manifest.invalid", "policy.invalid"})
        assert problem in message
        error = body_of(answer)["error"]
        assert isinstance(error, dict)
        assert message.splitlines() == error["problems"]
    assert 1 == live(plane)
