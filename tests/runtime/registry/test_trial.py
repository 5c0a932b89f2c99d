"""Trying out a binding: each thing that a call needs is looked at, and no call is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from interlock.domain.ids import TenantId
from interlock.store import breakers, registry
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from interlock.tools.upstream import pin_of
from tests.runtime import mcp_project
from tests.runtime.mcp_project import OFFERED, offer
from tests.runtime.registry.bench import SECRET, bench, listener, said, states

NOWHERE = "http://127.0.0.1:9"
KEYED = TOOL_OF["keyed"]
REFERENCE = "secret://recorder/dev/one"


def secured(url: str, credentials: object) -> dict[str, str]:
    """Return the project with a server that wants credentials."""
    bound = f"{{server: recorder-dev, credentials: {json.dumps(credentials)}}}"
    texts = {
        path: text.replace("{server: recorder-dev}", bound) for path, text in files(url).items()
    }
    texts["servers/recorder-dev.yaml"] += "auth: bearer\n"
    return texts


def test_a_binding_that_would_work_is_well_and_nothing_was_sent(database_url: str) -> None:
    """A connection is opened and closed again; not one byte goes over it."""
    with listener() as (url, listening), bench(database_url, files(url)) as running:
        trial = running.run(KEYED)
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(10)
            try:
                received = connection.recv(1)
            except ConnectionResetError:
                received = b""

    assert trial.is_ok
    assert set(states(trial)) == {
        "binding",
        "credentials",
        "breaker",
        "server",
        "contract",
        "policy",
    }
    assert b"" == received
    assert f"`{WORKFLOW_OF['keyed']}/workflow` may call it" in said(trial, "policy")


def test_an_address_that_is_not_there_is_one_sentence(sqlite_url: str) -> None:
    """Everything else is looked at all the same."""
    with bench(sqlite_url, files(NOWHERE)) as running:
        trial = running.run(KEYED)

    assert not trial.is_ok
    assert ["server"] == [name for name, state in states(trial).items() if state == "failed"]
    assert said(trial, "server").startswith("`127.0.0.1` cannot be reached")


def test_credentials_are_resolved_and_never_told(sqlite_url: str) -> None:
    """Of each workflow's reference; what cannot be read says which command stores it."""
    given = {WORKFLOW_OF["keyed"]: REFERENCE, WORKFLOW_OF["blind"]: f"{REFERENCE}-b"}
    with bench(sqlite_url, secured(NOWHERE, given), stored=frozenset({REFERENCE})) as running:
        trial = running.run(KEYED)

    told = said(trial, "credentials")
    assert f"`{REFERENCE}` can be read and sent" in told
    assert f"run `interlock secret set {REFERENCE}-b`" in told
    assert SECRET not in repr(trial)


def test_credentials_of_another_tenant_are_neither_used_nor_named(sqlite_url: str) -> None:
    """A shared tool may have some for workflows of several tenants."""
    given = {WORKFLOW_OF["keyed"]: REFERENCE}
    with bench(sqlite_url, secured(NOWHERE, given), stored=frozenset({REFERENCE})) as running:
        trial = running.run(KEYED, tenant=TenantId("other"))

    assert REFERENCE not in repr(trial)


def test_a_seat_without_credentials_cannot_call(sqlite_url: str) -> None:
    """Credentials of another workflow are none for this one."""
    given = {WORKFLOW_OF["blind"]: REFERENCE}
    with bench(sqlite_url, secured(NOWHERE, given), stored=frozenset({REFERENCE})) as running:
        trial = running.run(KEYED)

    assert "failed" == states(trial)["policy"]
    assert "its workflow has no credentials here" in said(trial, "policy")


@pytest.mark.parametrize(
    ("project", "words"),
    [
        (files(NOWHERE, level=0), "only drafts"),
        (files(NOWHERE, approve=True), "may call it once approved by data-owners"),
        (
            {
                path: text
                for path, text in files(NOWHERE).items()
                if path != "policies/grants/recorder.cedar"
            },
            "is refused: ",
        ),
    ],
    ids=["draft", "approval", "no-grant"],
)
def test_policy_is_asked_for_each_seat(
    sqlite_url: str, project: Mapping[str, str], words: str
) -> None:
    """A tool that no seat could get sent fails, whatever else is well."""
    with bench(sqlite_url, project) as running:
        trial = running.run(KEYED)

    assert words in said(trial, "policy")
    assert ("ok" if "approved" in words else "failed") == states(trial)["policy"]


def test_a_server_that_is_not_called_now_fails(sqlite_url: str) -> None:
    """The reason of its breaker is told, and how to close it."""
    with bench(sqlite_url, files(NOWHERE)) as running:
        running.db.run(
            "test.open",
            lambda tx: breakers.open_by_hand(
                tx, "recorder-dev", for_us=10**9, reason="they migrate", by="ann"
            ),
        )
        trial = running.run(KEYED)

    assert "calls wait: they migrate" in said(trial, "breaker")
    assert "interlock tool breaker close recorder-dev" in said(trial, "breaker")


def test_a_tool_that_is_leant_on_must_be_callable_too(sqlite_url: str) -> None:
    """A probe in quarantine leaves every outcome in doubt."""
    with bench(sqlite_url, files(NOWHERE)) as running:
        before = running.run(TOOL_OF["probed"])
        bad = {f"{TOOL_OF['read']}@dev": "its server changed its title"}
        running.db.run("test.hold", lambda tx: registry.quarantine(tx, bad, by="ann"))
        after, itself = running.run(TOOL_OF["probed"]), running.run(TOOL_OF["read"])

    assert ("ok", "failed") == (states(before)["probe"], states(after)["probe"])
    assert "is quarantined: its server changed its title" in said(itself, "binding")
    assert "failed" == states(itself)["policy"]


def test_arguments_are_checked_and_shown_as_the_request(sqlite_url: str) -> None:
    """Without credentials, and with words in the places of what each effect has of its own."""
    with bench(sqlite_url, files(NOWHERE)) as running:
        good = running.run(KEYED, arguments={"text": "hello"})
        bad = running.run(KEYED, arguments={"txt": "hello"})

    assert {
        "method": "POST",
        "url": f"{NOWHERE}/keyed/items",
        "headers": {"Idempotency-Key": "IDEMPOTENCY-KEY", "Content-Type": "application/json"},
        "body": {"reference": "EFFECT-ID", "text": "hello"},
    } == good.request
    assert (None, "failed") == (bad.request, states(bad)["arguments"])


def test_the_list_of_an_mcp_server_is_compared_with_the_pin(
    sqlite_url: str, tmp_path: Path
) -> None:
    """Its registered program is started and asked; nothing is quarantined by looking."""
    path = offer(tmp_path, OFFERED)
    with bench(sqlite_url, mcp_project.files(path, pin=str(pin_of(OFFERED)))) as running:
        same = running.run(mcp_project.TOOL)
        offer(tmp_path, {**OFFERED, "title": "Other"})
        changed = running.run(mcp_project.TOOL)
        offer(tmp_path, {**OFFERED, "name": "other"})
        gone = running.run(mcp_project.TOOL)
        with running.db.reading() as tx:
            assert 1 == registry.live_number(tx)

    assert (True, False, False) == (same.is_ok, changed.is_ok, gone.is_ok)
    assert "`write_note` is offered as it was reviewed" == said(same, "upstream")
    assert "interlock tool check files-dev" in said(changed, "upstream")
    assert "does not offer `write_note`, it offers `other`" in said(gone, "upstream")


def test_where_a_tool_is_not_bound_nothing_is_looked_at(sqlite_url: str) -> None:
    """The sentence names the environments that have it."""
    with bench(sqlite_url, files(NOWHERE)) as running:
        trial = running.run(KEYED, environment="prod")

    assert ({"binding": "failed"}, None) == (states(trial), trial.server)
    assert "it is not bound in `prod`, only in `dev`" in said(trial, "binding")
