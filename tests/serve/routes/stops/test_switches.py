"""Kill switches over REST: what is stopped has to be meant, and shows wherever somebody looks."""

from __future__ import annotations

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.ids import TenantId
from interlock.domain.principal import Role
from interlock.serve import doctor
from interlock.testing.recorder_project import TOOL_OF, files
from tests.serve.plane import API, Plane, body_of, error_of, rows

KILL = f"{API}/kill-switches"
WRITES: JsonObject = {"environment": "dev", "system": "recorder", "writes_only": True}
BODY: JsonObject = {"scope": WRITES, "reason": "it doubles"}


async def test_an_operator_stops_calls_and_lets_them_go_on(plane: Plane) -> None:
    """It says what it stops; the doctor and who-can say so too, until it is lifted."""
    plane.apply(files("http://127.0.0.1:9"))
    token = plane.key(Role.OPERATOR, Role.VIEWER, name="dana")
    done = body_of(await plane.send("POST", KILL, token=token, body=BODY))
    switch = done["kill_switch"]
    assert isinstance(switch, dict)
    listed = rows(body_of(await plane.send("GET", KILL, token=token)), "kill_switches")
    capable = await plane.send("GET", f"{API}/capabilities?environment=dev", token=token)
    sick = _doctor(plane)

    one = f"{KILL}/{switch['switch_id']}"
    shown = body_of(await plane.send("GET", one, token=token))
    lifted = await plane.send("POST", f"{one}/lift", token=token, body={"reason": "mended"})
    again = await plane.send("POST", f"{one}/lift", token=token, body={"reason": "mended"})

    assert "writes of environment `dev`, system `recorder`" == switch["stops"]
    assert ("dana", "it doubles", []) == (switch["set_by"], switch["reason"], done["in_flight"])
    assert [switch] == listed
    assert {"kill_switch": switch, "in_flight": []} == shown
    assert (False, True) == (sick[0], "(by dana: it doubles)" in sick[1])
    blocked = {row["tool"]: row["blocked"] for row in rows(body_of(capable), "capabilities")}
    assert ("stopped by `dana`: it doubles", None) == (
        blocked[TOOL_OF["keyed"]],
        blocked[TOOL_OF["read"]],
    )
    assert body_of(lifted)["is_lifted"]
    assert 409 == again.status_code
    assert (True, "none is set") == _doctor(plane)
    assert [] == rows(body_of(await plane.send("GET", KILL, token=token)), "kill_switches")
    past = rows(body_of(await plane.send("GET", f"{KILL}?past=true", token=token)), "kill_switches")
    assert [["dana"]] == [row["lifted_by"] for row in past]


async def test_a_narrower_switch_takes_its_place(plane: Plane) -> None:
    """So that work comes back in stages: reads first, or one workflow after the other."""
    plane.apply(files("http://127.0.0.1:9"))
    token = plane.key(Role.OPERATOR, Role.VIEWER)
    body = BODY | {"scope": {"environment": "dev"}}
    switch = body_of(await plane.send("POST", KILL, token=token, body=body))["kill_switch"]
    assert isinstance(switch, dict)

    answer = await plane.send(
        "POST",
        f"{KILL}/{switch['switch_id']}/lift",
        token=token,
        body={"reason": "it may read", "leaving": WRITES},
    )

    left = body_of(answer)["leaving"]
    listed = rows(body_of(await plane.send("GET", KILL, token=token)), "kill_switches")
    assert [left] == listed
    assert "it doubles" == listed[0]["reason"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scope": {}}, "or say `everything` and name nothing"),
        ({"everything": True}, "or say `everything` and name nothing"),
        ({"scope": {"system": "nobody"}}, "the live project has no system `nobody`"),
        ({"scope": {"model": "nobody"}}, "the live project has no model `nobody`"),
        ({"scope": {"enviroment": "dev"}}, "extra inputs are not permitted"),
        ({"reason": ""}, "at least 3 characters"),
        ({"for_s": 0}, "greater than or equal to 1"),
    ],
)
async def test_what_is_not_meant_is_refused(plane: Plane, change: JsonObject, said: str) -> None:
    """Nothing is stopped by an empty or misspelt scope, nor everything by a forgotten one."""
    plane.apply(files("http://127.0.0.1:9"))
    token = plane.key(Role.OPERATOR, Role.VIEWER)

    refused = await plane.send("POST", KILL, token=token, body=BODY | change)

    assert refused.status_code in {400, 422}
    assert said in error_of(refused)[2]
    assert [] == rows(body_of(await plane.send("GET", KILL, token=token)), "kill_switches")


async def test_another_tenant_neither_sees_nor_lifts_it(plane: Plane) -> None:
    """Nor are its calls stopped: a switch is of the tenant of who sets it."""
    plane.apply(files("http://127.0.0.1:9"))
    mine = plane.key(Role.OPERATOR, Role.VIEWER)
    theirs = plane.key(Role.OPERATOR, Role.VIEWER, name="eve", tenant=TenantId("other"))
    switch = body_of(await plane.send("POST", KILL, token=mine, body=BODY))["kill_switch"]
    assert isinstance(switch, dict)
    one = f"{KILL}/{switch['switch_id']}"

    answers = [
        await plane.send("GET", one, token=theirs),
        await plane.send("POST", f"{one}/lift", token=theirs, body={"reason": "no reason"}),
    ]

    assert [404, 404] == [answer.status_code for answer in answers]
    assert [] == rows(body_of(await plane.send("GET", KILL, token=theirs)), "kill_switches")


def _doctor(plane: Plane) -> tuple[bool, str]:
    checks = doctor.examine(plane.interlock, plane.app.state.queues)
    [check] = [check for check in checks if check.name == "kill switches"]
    return check.is_ok, check.message
