"""Capabilities over REST: exact, of the reader's tenant, and told apart from what is blocked."""

from __future__ import annotations

import json

import httpx2
import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.ids import TenantId
from interlock.domain.principal import Role
from interlock.testing import recorder_project
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF
from tests.serve.plane import API, Plane, body_of, rows

KEYED = TOOL_OF["keyed"]
SEAT = f"{WORKFLOW_OF['keyed']}/workflow"


@pytest.fixture
def project() -> dict[str, str]:
    """The recorder's project, whose server nobody asks."""
    return recorder_project.files("http://127.0.0.1:9")


async def test_seat_can_do_what_policies_let_it(plane: Plane, project: dict[str, str]) -> None:
    """With an example of each way; a seat that no policy lets is not named."""
    plane.apply(project)
    found = await asked(plane, plane.key(Role.VIEWER), tool=KEYED, group="write")

    assert {SEAT} == {row["seat"] for row in found}
    for row in found:
        assert row["granted"]
        assert rows(row, "ways")
        assert all(way["is_exact"] for way in rows(row, "ways"))


async def test_other_tenants_hear_nothing(plane: Plane, project: dict[str, str]) -> None:
    """Neither seats, nor whether the seat they ask for exists."""
    plane.apply(project)
    foreign = plane.key(Role.VIEWER, tenant=TenantId("acme"))

    assert [] == await asked(plane, foreign)
    answer = await get(plane, foreign, seat=SEAT)
    assert 400 == answer.status_code
    assert "known are" not in answer.text
    assert WORKFLOW_OF["keyed"] not in answer.text.replace(SEAT, "")


async def test_tool_without_credentials_is_blocked(plane: Plane, project: dict[str, str]) -> None:
    """Whoever asks hears why: policies would let it, and still no call can be sent."""
    bound = json.dumps({WORKFLOW_OF["blind"]: "secret://recorder/dev/one"})
    plane.apply(
        {
            path: text.replace(
                "{server: recorder-dev}", f"{{server: recorder-dev, credentials: {bound}}}"
            )
            + ("auth: bearer\n" if path == "servers/recorder-dev.yaml" else "")
            for path, text in project.items()
        }
    )

    (row,) = [
        r for r in await asked(plane, plane.key(Role.VIEWER), seat=SEAT) if r["tool"] == KEYED
    ]

    assert ([], f"`{WORKFLOW_OF['keyed']}` has no credentials for it") == (
        row["ways"],
        row["blocked"],
    )


@pytest.mark.parametrize(
    ("what", "name"), [("seat", "nobody/here"), ("tool", "no.such.tool"), ("system", "nothing")]
)
async def test_unknown_name_is_told_with_the_known_ones(
    plane: Plane, project: dict[str, str], what: str, name: str
) -> None:
    """A misspelt name must not look like `nobody can`."""
    plane.apply(project)

    answer = await get(plane, plane.key(Role.VIEWER), **{what: name})

    assert 400 == answer.status_code
    assert f"there is no {what} `{name}`; known are" in answer.text


async def asked(plane: Plane, token: str, **what: str) -> list[JsonObject]:
    """Return the capabilities that an answer lists."""
    return rows(body_of(await get(plane, token, **what)), "capabilities")


async def get(plane: Plane, token: str, **what: str) -> httpx2.Response:
    """Ask for capabilities."""
    query = str(httpx2.QueryParams(what))
    return await plane.send("GET", f"{API}/capabilities?{query}", token=token)
