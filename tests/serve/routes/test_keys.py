"""Keys over REST: made once, revoked at once, and who approves neither lets in nor applies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from interlock.config import Config, SecretSettings
from interlock.domain.canonical import JsonObject
from interlock.domain.ids import TenantId
from interlock.domain.principal import Role
from interlock.testing import recorder_project
from interlock.testing.recorder_project import TOOL_OF
from interlock.tools.secrets.variables import variable_of
from tests.serve.plane import API, Plane, body_of, error_of, rows


def asked(name: str, *roles: Role, **more: str | int | list[str] | None) -> JsonObject:
    """Return the body that asks for a key."""
    return {"name": name, "roles": [str(role) for role in roles], **more}  # type: ignore[dict-item]


@pytest.fixture
def admin(plane: Plane) -> str:
    """The token of an admin."""
    return plane.key(Role.ADMIN, name="root")


async def test_a_new_key_lets_its_principal_in(plane: Plane, admin: str) -> None:
    """With the roles and groups asked for, and no others."""
    body = asked("dana", Role.VIEWER, Role.APPROVER, groups=["owners"])
    made = await plane.send("POST", f"{API}/keys", token=admin, body=body)
    token = str(body_of(made)["token"])

    seen = await plane.send("GET", f"{API}/runs", token=token)
    refused = await plane.send("GET", f"{API}/keys", token=token)

    assert (201, 200, 403) == (made.status_code, seen.status_code, refused.status_code)
    assert "`dana` needs one of the roles `admin`" == error_of(refused)[2]


async def test_a_token_is_shown_once(plane: Plane, admin: str) -> None:
    """The list has the key and not what opens it."""
    made = await plane.send("POST", f"{API}/keys", token=admin, body=asked("dana", Role.VIEWER))
    listed = await plane.send("GET", f"{API}/keys", token=admin)

    assert str(body_of(made)["key_id"]) in listed.text
    assert str(body_of(made)["token"]) not in listed.text


async def test_a_revoked_key_is_unknown_at_once(plane: Plane, admin: str) -> None:
    """Revoking works once; a second time there is no such live key."""
    made = body_of(
        await plane.send("POST", f"{API}/keys", token=admin, body=asked("dana", Role.VIEWER))
    )
    revoke = f"{API}/keys/{made['key_id']}/revoke"

    first = await plane.send("POST", revoke, token=admin)
    seen = await plane.send("GET", f"{API}/runs", token=str(made["token"]))
    second = await plane.send("POST", revoke, token=admin)

    assert (200, 401, 404) == (first.status_code, seen.status_code, second.status_code)


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OWNER])
async def test_no_key_rules_and_approves(plane: Plane, admin: str, role: Role) -> None:
    """Who lets people in, or applies what asks for approvals, does not also approve calls."""
    both = asked("dana", role, Role.APPROVER)
    answer = await plane.send("POST", f"{API}/keys", token=admin, body=both)

    message = f"`dana` would be {role} and approver; give the roles to two people"
    assert (403, "forbidden", message) == error_of(answer)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Role.ADMIN, Role.APPROVER),
        (Role.APPROVER, Role.ADMIN),
        (Role.OWNER, Role.APPROVER),
        (Role.APPROVER, Role.OWNER),
    ],
)
async def test_no_name_rules_and_approves_by_two_keys(
    plane: Plane, admin: str, first: Role, second: Role
) -> None:
    """A second key does not go around the rule; a revoked one no longer counts."""
    made = await plane.send("POST", f"{API}/keys", token=admin, body=asked("dana", first))
    refused = await plane.send("POST", f"{API}/keys", token=admin, body=asked("dana", second))
    await plane.send("POST", f"{API}/keys/{body_of(made)['key_id']}/revoke", token=admin)
    accepted = await plane.send("POST", f"{API}/keys", token=admin, body=asked("dana", second))

    assert (201, 403, 201) == (made.status_code, refused.status_code, accepted.status_code)


@pytest.mark.parametrize(
    "body",
    [
        asked("", Role.VIEWER),
        asked("Dana Smith", Role.VIEWER),
        {"name": "dana", "roles": ["king"]},
        {"name": "dana", "roles": ["viewer", "viewer", 1]},
        asked("dana", Role.VIEWER, kind="robot"),
        asked("dana", Role.VIEWER, expires_in_s=1),
        asked("dana", Role.VIEWER, expires_in_s=2**53 - 1),
        asked("dana", Role.VIEWER, tenant="other"),
    ],
    ids=["empty", "spaces", "role", "number", "kind", "too-short", "too-long", "tenant"],
)
async def test_a_key_that_cannot_be_is_refused(plane: Plane, admin: str, body: JsonObject) -> None:
    """422 says which member."""
    answer = await plane.send("POST", f"{API}/keys", token=admin, body=body)

    assert (422, "input.invalid") == error_of(answer)[:2]


async def test_a_sign_in_link_is_for_the_caller(plane: Plane) -> None:
    """It leads to this installation's console."""
    token = plane.key(Role.VIEWER)
    answer = await plane.send("POST", f"{API}/keys/sign-in-link", token=token)

    assert str(body_of(answer)["url"]).startswith(f"{plane.interlock.url}/sign-in?link=")


async def test_a_session_makes_no_link(plane: Plane) -> None:
    """It would go on after it was signed out, or too old."""
    headers = plane.session(plane.key(Role.VIEWER))
    seen = await plane.send("GET", f"{API}/runs", headers=headers)
    refused = await plane.send("POST", f"{API}/keys/sign-in-link", headers=headers)

    assert 200 == seen.status_code
    assert (403, "forbidden", "a link is made with a key, not from a console session") == (
        error_of(refused)
    )


REFERENCE = "secret://recorder/dev/bot"


async def test_a_secret_is_stored_by_an_admin_and_told_to_nobody(plane: Plane) -> None:
    """Its version, who stored it and what uses it are; a value is in no answer."""
    project = recorder_project.files("http://127.0.0.1:9")
    bound = f"{{server: recorder-dev, credentials: '{REFERENCE}'}}"
    plane.apply(
        {
            path: text.replace("{server: recorder-dev}", bound)
            + ("auth: bearer\n" if path == "servers/recorder-dev.yaml" else "")
            for path, text in project.items()
        }
    )
    admin, auditor = plane.key(Role.ADMIN, name="ann"), plane.key(Role.AUDITOR)
    before = await plane.send("GET", f"{API}/secrets", token=auditor)
    made = await plane.send(
        "POST", f"{API}/secrets", token=admin, body={"reference": REFERENCE, "value": "canary"}
    )
    after = await plane.send("GET", f"{API}/secrets", token=auditor)

    assert (201, 1) == (made.status_code, body_of(made)["version"])
    [missing], [row] = rows(body_of(before), "secrets"), rows(body_of(after), "secrets")
    assert (None, 1, "ann") == (missing["version"], row["version"], row["created_by"])
    assert TOOL_OF["keyed"] in str(row["used_by"])
    assert "canary" not in made.text + after.text


async def test_secrets_that_are_kept_elsewhere_are_told_and_not_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list says where and which are missing; whoever would store one is sent there."""
    monkeypatch.setenv(variable_of(REFERENCE), "canary")
    settings = SecretSettings(source="environment")
    opened = Plane(tmp_path, config=Config(data_dir=tmp_path / "data", secrets=settings))
    other = REFERENCE.replace("bot", "other")
    bindings = iter((REFERENCE, other))
    opened.apply(
        {
            path: re.sub(
                r"\{server: recorder-dev\}",
                lambda _: f"{{server: recorder-dev, credentials: '{next(bindings, other)}'}}",
                text,
            )
            + ("auth: bearer\n" if path == "servers/recorder-dev.yaml" else "")
            for path, text in recorder_project.files("http://127.0.0.1:9").items()
        }
    )
    admin = opened.key(Role.ADMIN)

    listed = await opened.send("GET", f"{API}/secrets", token=admin)
    body: JsonObject = {"reference": REFERENCE, "value": "x"}
    again: JsonObject = {**body, "overlap": "1h"}
    refused = [
        await opened.send("POST", f"{API}/secrets", token=admin, body=body),
        await opened.send("POST", f"{API}/secrets/rotate", token=admin, body=again),
    ]
    rekeyed = await opened.send("POST", f"{API}/secrets/rekey", token=admin)
    stored = b"".join(file.read_bytes() for file in (tmp_path / "data").rglob("*"))
    opened.interlock.close()

    problems = {row["reference"]: row["problem"] for row in rows(body_of(listed), "secrets")}
    assert problems[REFERENCE] is None
    assert str(problems[other]).endswith(f"set `{variable_of(other)}`")
    assert "INTERLOCK_SECRET_" in str(body_of(listed)["kept_in"])
    assert [409] * 3 == [answer.status_code for answer in (*refused, rekeyed)]
    assert "change them there" in error_of(refused[0])[2]
    assert "canary" not in listed.text
    assert b"canary" not in stored


async def test_secrets_of_another_tenants_system_are_unknown(plane: Plane) -> None:
    """Neither listed nor stored by an admin of another tenant; shared systems are the first's."""
    plane.apply(recorder_project.files("http://127.0.0.1:9"))
    plane.interlock.secrets.set(REFERENCE, "value", by="tests")
    foreign = plane.key(Role.ADMIN, tenant=TenantId("acme"))

    listed = await plane.send("GET", f"{API}/secrets", token=foreign)
    tried: tuple[tuple[str, JsonObject], ...] = (
        ("", {"reference": REFERENCE, "value": "theirs"}),
        ("/rotate", {"reference": REFERENCE, "value": "theirs"}),
        ("/remove", {"reference": REFERENCE}),
    )
    answers = [
        await plane.send("POST", f"{API}/secrets{path}", token=foreign, body=body)
        for path, body in tried
    ]

    assert [] == rows(body_of(listed), "secrets")
    assert [404] * 3 == [answer.status_code for answer in answers]
    assert 403 == (await plane.send("POST", f"{API}/secrets/rekey", token=foreign)).status_code
    assert "value" == plane.interlock.secrets.resolve(REFERENCE)
