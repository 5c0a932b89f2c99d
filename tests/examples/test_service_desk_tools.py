from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import Reply, Transport
from interlock.domain.ids import EffectId, ToolName
from interlock.domain.release import Release
from interlock.manifest.files import read_folder
from interlock.manifest.load import load
from interlock.testing.process import ServerProcess
from interlock.tools.connectors.pool import ConnectorPool
from interlock.tools.connectors.port import OutgoingCall
from interlock.tools.contract import Contract

PROJECT = Path(__file__).resolve().parents[2] / "examples" / "service_desk"
TRACKER = PROJECT / "world" / "tracker.py"
MAILBOX = PROJECT / "world" / "mailbox.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The tracker and the mail service, running, with the password of the agent's user."""

    tracker: ServerProcess
    mailbox: ServerProcess
    home: Path
    secret: str

    def export(self) -> dict[str, list[dict[str, Json]]]:
        """Return what the tracker holds."""
        command = [sys.executable, str(TRACKER), "export", str(self.home)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        exported: dict[str, list[dict[str, Json]]] = json.loads(result.stdout)
        return exported


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Calls tools of the example as the road does, without the road."""

    release: Release
    pool: ConnectorPool
    secret: str

    async def send(
        self, tool: str, arguments: JsonObject, *, reference: str = "ab12", guard: Json = None
    ) -> Reply:
        """Prepare and send one call."""
        call = self.call(tool, arguments, reference=reference)
        connector = self.pool.get(call.binding.server)
        prepared = guard if guard is not None else await connector.prepare(call)
        assert prepared is None or isinstance(prepared, dict)
        sent = OutgoingCall(
            **{name: getattr(call, name) for name in call.__slots__ if name != "guard"},
            guard=prepared,
        )
        return await connector.send(sent)

    async def result(self, tool: str, arguments: JsonObject, *, reference: str = "ab12") -> Json:
        """Send one call and return its output, which fits the tool's contract."""
        declared = self.release.tools[ToolName(tool)]
        Contract.of(declared.input_schema).check(arguments, what="arguments")

        reply = await self.send(tool, arguments, reference=reference)

        assert (Transport.REPLY, None) == (reply.transport, reply.problem)
        Contract.of(declared.output_schema).check(reply.body, what="result")
        return reply.body

    async def show(self, ticket: str) -> JsonObject:
        """Return one ticket with its version."""
        shown = await self.result("servicedesk.issue.show", {"id": ticket})
        assert isinstance(shown, dict)
        return shown

    def call(self, tool: str, arguments: JsonObject, *, reference: str) -> OutgoingCall:
        """Build a call of the tool as bound in dev."""
        binding = self.release.binding(ToolName(tool), "dev")
        assert binding is not None
        return OutgoingCall(
            binding=binding,
            arguments=arguments,
            effect_id=EffectId(reference),
            idem_key=f"key-{reference}",
            attempt=1,
            timeout_s=20,
            secret=self.secret if binding.credentials else None,
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A tracker with its seeds and an empty mail service."""
    folder = tmp_path_factory.mktemp("world")
    home = folder / "tracker"
    subprocess.run([sys.executable, str(TRACKER), "init", str(home)], check=True)
    password = (home / "credentials" / "triage-bot").read_text().strip()
    tracker = [sys.executable, str(TRACKER), "serve", str(home)]
    mailbox = [sys.executable, str(MAILBOX), "serve", str(folder / "mail")]
    with (
        ServerProcess(tracker, folder=folder / "a") as one,
        ServerProcess(mailbox, folder=folder / "b") as other,
    ):
        yield World(tracker=one, mailbox=other, home=home, secret=f"triage-bot:{password}")


@pytest.fixture
async def desk(world: World) -> AsyncIterator[Desk]:
    """The example's tools, bound to the running world."""
    files = read_folder(PROJECT)
    for name, server in (("tracker-dev", world.tracker), ("mail-dev", world.mailbox)):
        path = f"servers/{name}.yaml"
        old = next(line for line in files[path].splitlines() if line.startswith("url:"))
        files[path] = files[path].replace(old, f"url: {server.url}")
    pool = ConnectorPool()
    yield Desk(release=load(files), pool=pool, secret=world.secret)
    await pool.aclose()


async def test_tickets_articles_and_people_are_found(desk: Desk) -> None:
    """Each searching tool returns what the seeds hold, in the form that its contract says."""
    tickets = await desk.result(
        "servicedesk.issue.search", {"words": ["vpn", "hotel"], "status": "resolved"}
    )
    articles = await desk.result(
        "servicedesk.article.search", {"words": ["finance", "share"], "keyword": "access"}
    )
    people = await desk.result("servicedesk.person.find", {"username": "carol"})
    every = await desk.result("servicedesk.issue.search", {})

    assert ["VPN disconnects in the hotel"] == _texts(tickets, "tickets", "title")
    assert ["Access to the finance share"] == _texts(articles, "articles", "title")
    assert ["Carol Okafor"] == _texts(people, "people", "realname")
    assert 10 == len(_texts(every, "tickets", "id"))


async def test_update_sets_priority_team_and_status_of_the_version_seen(
    desk: Desk, world: World
) -> None:
    """A change with the version shown is stored; the same version again is refused with 412."""
    before = await desk.show("9")
    change: JsonObject = {
        "id": "9",
        "version": before["version"],
        "priority": "critical",
        "assignedto": "netops",
        "status": "open",
    }

    changed = await desk.result("servicedesk.issue.update", change)

    repeated = await desk.send("servicedesk.issue.update", change)
    after = await desk.show("9")
    assert {"id": "9"} == changed
    assert 412 == repeated.status
    assert ("critical", "netops", "open") == (
        after["priority"],
        after["assignedto"],
        after["status"],
    )
    assert world.secret


async def test_unchanged_values_are_a_success_too(desk: Desk) -> None:
    """Setting what is set already answers as any other change."""
    shown = await desk.show("6")
    keep: JsonObject = {key: shown[key] for key in ("priority", "assignedto", "status", "version")}

    assert {"id": "6"} == await desk.result("servicedesk.issue.update", {"id": "6", **keep})


async def test_link_makes_a_ticket_part_of_another(desk: Desk) -> None:
    """The linked ticket shows its parent."""
    version = (await desk.show("8"))["version"]

    await desk.result("servicedesk.issue.link", {"id": "8", "version": version, "parent": "1"})

    assert "1" == (await desk.show("8"))["parent"]


@pytest.mark.parametrize(
    ("create", "find", "arguments"),
    [
        (
            "servicedesk.issue.create",
            "servicedesk.issue.find",
            {
                "parent": "6",
                "title": "Lend a spare laptop",
                "description": "The laptop of alice does not charge.",
                "kind": "request",
                "priority": "normal",
                "assignedto": "desktop",
            },
        ),
        ("servicedesk.issue.reply", "servicedesk.reply.find", {"id": "6", "text": "On its way."}),
        (
            "servicedesk.grant.create",
            "servicedesk.grant.find",
            {"user": "dave", "share": "finance", "ticket": "3"},
        ),
    ],
)
async def test_record_is_created_once_and_found_by_its_reference(
    desk: Desk, create: str, find: str, arguments: JsonObject
) -> None:
    """The one-time link admits one request; the second is refused and the record is found."""
    reference = "c0ffee" + str(len(create))
    call = desk.call(create, arguments, reference=reference)
    guard = await desk.pool.get(call.binding.server).prepare(call)

    created = await desk.send(create, arguments, reference=reference, guard=guard)

    repeated = await desk.send(create, arguments, reference=reference, guard=guard)
    found = await desk.result(find, {"reference": reference})
    assert 201 == created.status
    assert 400 == repeated.status
    assert isinstance(created.body, dict)
    assert [created.body["id"]] == _texts(found, "found", "id")


async def test_grant_gives_read_access(desk: Desk, world: World) -> None:
    """The tool gives reading and nothing else."""
    await desk.result(
        "servicedesk.grant.create",
        {"user": "bob", "share": "marketing", "ticket": "3"},
        reference="bob1",
    )

    granted = next(g for g in world.export()["grants"] if g["external_ref"] == "bob1")
    assert ("bob", "marketing", "read") == (granted["user"], granted["share"], granted["level"])


async def test_retired_ticket_is_off_the_lists(desk: Desk) -> None:
    """Retiring answers and may be repeated with the same version."""
    arguments = {"id": "11", "version": (await desk.show("11"))["version"]}

    first = await desk.result("servicedesk.issue.retire", arguments)

    again = await desk.result("servicedesk.issue.retire", arguments)
    listed = await desk.result("servicedesk.issue.search", {"words": ["calendar"]})
    assert first == again
    assert [] == _texts(listed, "tickets", "id")


async def test_mail_is_taken_once_for_each_key(desk: Desk) -> None:
    """The same key and body is the same message, another body under that key is refused."""
    mail: JsonObject = {"to": "erin@desk.example", "subject": "VPN", "text": "Fixed."}

    first = await desk.result("mail.message.send", mail, reference="m1")

    assert first == await desk.result("mail.message.send", mail, reference="m1")
    other = await desk.send("mail.message.send", {**mail, "text": "Else."}, reference="m1")
    assert 409 == other.status


def _texts(result: Json, key: str, member: str) -> list[Json]:
    assert isinstance(result, dict)
    items = result[key]
    assert isinstance(items, list)
    return [item[member] for item in items if isinstance(item, dict)]
