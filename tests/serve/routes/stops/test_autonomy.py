"""Autonomy over REST: owners raise it, operators lower it, approvers judge what was done."""

from __future__ import annotations

import re

from interlock.domain.canonical import JsonObject
from interlock.domain.ids import TenantId
from interlock.domain.principal import Role
from interlock.testing.recorder_project import WORKFLOW_OF, files
from tests.serve.plane import API, Plane, body_of, error_of, rows

NAME = WORKFLOW_OF["keyed"]
AT = f"{API}/autonomy/{NAME}/prod"
WHY: JsonObject = {"reason": "it does well"}


def apply(plane: Plane) -> None:
    """Apply the project of the recording server, whose tools are in `prod` only."""
    texts = files("http://127.0.0.1:9", level=0)
    plane.apply({path: re.sub(r"\bdev\b", "prod", text) for path, text in texts.items()})


async def test_levels_are_listed_and_shown_with_what_is_missing(plane: Plane) -> None:
    """One that has shown nothing is told what it takes."""
    apply(plane)
    token = plane.key(Role.VIEWER)

    listed = rows(body_of(await plane.send("GET", f"{API}/autonomy", token=token)), "levels")
    shown = body_of(await plane.send("GET", f"{API}/autonomy/{NAME}", token=token))
    found = body_of(await plane.send("GET", f"{AT}/evidence", token=token))

    mine = [row for row in listed if row["workflow"] == NAME]
    assert [("dev", 0, None), ("prod", 0, 1)] == [
        (row["environment"], row["level"], row["since"]) for row in mine
    ]
    assert [[], None] == [rows(shown, "levels")[1][name] for name in ("history", "asked")]
    assert (0, 1, "drafts") == (found["level"], found["step"], found["kind"])
    assert {"count": 20, "agreement": 0.75, "days": 0} == found["bar"]


async def test_who_may_raise_lower_and_review_are_three(plane: Plane) -> None:
    """Each is refused what the others may; who may is told what stands in the way."""
    apply(plane)
    owner, operator = plane.key(Role.OWNER, name="ann"), plane.key(Role.OPERATOR, name="oli")
    approver = plane.key(Role.APPROVER, name="rob", groups=("platform",))
    lower: JsonObject = {**WHY, "level": 0}
    said: JsonObject = {"effect_id": "none", "is_agreed": True}

    raised = {
        token: await plane.send("POST", f"{AT}/promote", token=token, body=WHY)
        for token in (owner, operator, approver)
    }
    lowered = {
        token: await plane.send("POST", f"{AT}/demote", token=token, body=lower)
        for token in (owner, operator, approver)
    }
    reviewed = {
        token: await plane.send("POST", f"{API}/autonomy/reviews", token=token, body=said)
        for token in (owner, operator, approver)
    }

    assert [409, 403, 403] == [answer.status_code for answer in raised.values()]
    assert "level 1 is not earned: 0 of 20 drafts are there" in error_of(raised[owner])[2]
    assert [409, 409, 403] == [answer.status_code for answer in lowered.values()]
    assert "is not above level 0 in `prod`" in error_of(lowered[operator])[2]
    assert [403, 403, 404] == [answer.status_code for answer in reviewed.values()]


async def test_another_tenant_finds_no_such_workflow(plane: Plane) -> None:
    """Neither to look at nor to change."""
    apply(plane)
    owner = plane.key(Role.OWNER, Role.VIEWER, name="eve", tenant=TenantId("other"))

    answers = [
        await plane.send("GET", f"{API}/autonomy/{NAME}", token=owner),
        await plane.send("GET", f"{AT}/evidence", token=owner),
        await plane.send("POST", f"{AT}/promote", token=owner, body=WHY),
        await plane.send("POST", f"{AT}/demote", token=owner, body={**WHY, "level": 0}),
    ]

    assert {404} == {answer.status_code for answer in answers}
    assert [] == rows(body_of(await plane.send("GET", f"{API}/autonomy", token=owner)), "levels")
