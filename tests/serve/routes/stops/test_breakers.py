"""Breakers over REST: seen by who may use the server, changed by whose it is."""

from __future__ import annotations

from interlock.domain.canonical import JsonObject
from interlock.domain.ids import TenantId
from interlock.domain.principal import Role
from interlock.serve import doctor
from interlock.testing.recorder_project import files
from tests.serve.plane import API, Plane, body_of, error_of, rows

SERVER = "recorder-dev"
REASON: JsonObject = {"reason": "they migrate", "for_s": 600}


async def test_an_operator_opens_and_closes_it(plane: Plane) -> None:
    """It is shown with who did it, and the doctor says what to do."""
    plane.apply(files("http://127.0.0.1:9"))
    token = plane.key(Role.OPERATOR, Role.VIEWER, name="dana")
    opened = await plane.send("POST", f"{API}/breakers/{SERVER}/open", token=token, body=REASON)
    listed = await plane.send("GET", f"{API}/breakers", token=token)
    [seen] = rows(body_of(listed), "breakers")
    found = {check.name: check for check in doctor.examine(plane.interlock, plane.app.state.queues)}

    closed = [
        body_of(await plane.send("POST", f"{API}/breakers/{SERVER}/close", token=token))
        for _ in range(2)
    ]

    assert 200 == opened.status_code
    assert {
        "server": SERVER,
        "system": "recorder",
        "environment": "dev",
        "state": "open",
        "until_us": body_of(opened)["until_us"],
        "reason": "they migrate",
        "by": "dana",
        "waiting": 0,
    } == {name: value for name, value in seen.items() if name != "opened_us"}
    assert not found["servers"].is_ok
    assert "`recorder-dev` (they migrate; 0 calls wait)" in found["servers"].message
    assert [{"was_open": True}, {"was_open": False}] == closed
    assert {c.name: c for c in doctor.examine(plane.interlock, plane.app.state.queues)}[
        "servers"
    ].is_ok


async def test_a_shared_server_is_not_for_another_tenant_to_close(plane: Plane) -> None:
    """Its operators see it; what others call is not theirs to stop."""
    plane.apply(files("http://127.0.0.1:9"))
    token = plane.key(Role.OPERATOR, Role.VIEWER, tenant=TenantId("other"))

    refused = await plane.send("POST", f"{API}/breakers/{SERVER}/open", token=token, body=REASON)
    unknown = await plane.send("POST", f"{API}/breakers/none/open", token=token, body=REASON)

    assert (403, 404) == (refused.status_code, unknown.status_code)
    assert f"the server `{SERVER}` is shared; ask the owner of the installation" in error_of(
        refused
    )
