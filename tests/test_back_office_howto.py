"""The howto about a CRM and accounting, run as it stands on a real Tryton, and what it promises."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from mcp_types import CallToolResult

from interlock.domain.canonical import Json, JsonObject
from interlock.testing.process import free_port
from scripts import peers
from tests.acceptance import gateway
from tests.acceptance.gateway import Gateway, Passing, leave
from tests.acceptance.reference_servers import Seat
from tests.cli.terminal import Server, done, interlock, listed
from tests.serve.gateway.door import meta_of, text_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "howto" / "back-office.md").read_text("utf-8")
CREATE, DRAFT, POST = (
    "crm.opportunity.create",
    "accounting.invoice.draft",
    "accounting.invoice.post",
)
START_S = 60
# The first test of the module waits until Tryton has made its database: 30 s of processor time.
pytestmark = [pytest.mark.peers, pytest.mark.timeout(240)]


@dataclass(frozen=True, kw_only=True)
class Office:
    """The example behind Interlock, with what stands between it and Tryton."""

    server: Server
    folder: Path
    between: Gateway
    said: list[str]
    """What the commands of the page printed."""
    heard: list[CallToolResult]
    """What the agent read, row by row of the page's table."""
    approver: str
    """The key of a person who approves."""

    def seat(self) -> Seat:
        """Open a session of the agent."""
        return Seat(url=self.server.url, token=done("token", "mint"))

    def ask(self, system: str, method: str, path: str, body: Json) -> httpx2.Response:
        """Ask Tryton itself with the key of a system."""
        key = (self.folder / "tryton" / f"{system}.key").read_text()
        url = f"{self.between.upstream}/office/rest/model/{path}"
        return httpx2.request(method, url, headers={"Authorization": f"Bearer {key}"}, json=body)

    def agree(self, asked: CallToolResult) -> None:
        """Approve a call that waits, as a person of finance."""
        (approval_id,) = [
            str(approval["approval_id"])
            for approval in listed("approval", "list")
            if approval["effect_id"] == meta_of(asked)["interlock/effect-id"]
        ]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("INTERLOCK_TOKEN", self.approver)
            done("approval", "approve", approval_id)

    def held(self, system: str, model: str, *domain: Json) -> list[JsonObject]:
        """Return the records that Tryton holds."""
        body: JsonObject = {"domain": [*domain], "fields_names": ["state"]}
        found: list[JsonObject] = self.ask(system, "POST", f"{model}/search_read", body).json()
        return found


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """Follow the page up to the end of its table."""
    folder = tmp_path_factory.mktemp("office") / "back_office"
    example, made = ROOT / "examples" / "back_office", (".interlock", "*.sqlite")
    shutil.copytree(example, folder, ignore=shutil.ignore_patterns(*made))
    place = peers.install("tryton") / "bin"
    steps = re.findall(r"^```sh[^\n]*\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    make, start, *commands, keys = steps
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PATH", f"{place}:{os.environ['PATH']}")
        subprocess.run(shlex.split(make), check=True)
        with _tryton(folder, start) as url, gateway.before(url) as between:
            _move(folder / "servers" / "tryton-dev.yaml", "http://127.0.0.1:8433", between.url)
            said = [_ran(line) for text in commands for line in text.splitlines()]
            with Server(folder) as server:
                agents, persons = (_ran(line) for line in keys.splitlines())
                patch.setenv("INTERLOCK_AGENT_KEY", agents)
                seat = Seat(url=server.url, token=done("token", "mint"))
                heard = [seat.call(tool, arguments) for tool, arguments in _calls()]
                yield Office(
                    server=server,
                    folder=folder,
                    between=between,
                    said=said,
                    heard=heard,
                    approver=persons,
                )


@pytest.fixture
def seat(office: Office) -> Seat:
    """A new session of the agent."""
    return office.seat()


def test_the_page_leads_to_two_systems_and_an_agent_that_works_there(office: Office) -> None:
    """Each command as it stands there, in its order; then what its table says."""
    *_, crm, finance = office.said
    ((path, policy),) = re.findall(
        r"^```cedar\n// (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL
    )
    texts = [text_of(result) for result in office.heard]

    assert "crm.party.find" in crm
    assert "accounting" not in crm
    assert "accounting.invoice.post" in finance
    assert "crm." not in finance
    found = {"parties": [{"id": 2, "name": "Acme", "addresses": [2]}]}
    assert found == office.heard[0].structured_content
    assert {"id": 1, "number": "1"} == office.heard[1].structured_content
    assert {"id": 1, "state": "draft"} == office.heard[2].structured_content
    assert all(f"`{text.partition('.')[0]}`" in PAGE for text in texts[3:])
    assert 3 == len(texts[3:])
    assert policy in (office.folder / path).read_text()


def test_what_finance_agrees_to_is_posted_under_the_next_number(office: Office, seat: Seat) -> None:
    """Nothing is in the books before the answer, and one invoice is after it."""
    invoice_id = _result(seat.call(DRAFT, _draft("12.00")))["id"]
    asked = seat.call(POST, {"id": invoice_id})
    before = office.held("accounting", "account.invoice", ["id", "=", invoice_id])
    office.agree(asked)
    posted = _result(seat.ended(asked))

    assert "pending" == meta_of(asked)["interlock/state"]
    assert ["draft"] == [invoice["state"] for invoice in before]
    numbered = office.held("accounting", "account.invoice", ["number", "=", posted["number"]])
    assert [{"id": invoice_id, "state": "posted"}] == numbered


def test_a_large_draft_is_made_once_finance_has_agreed(office: Office, seat: Seat) -> None:
    """No invoice of this amount is there before that, and one is there after it."""
    asked = seat.call(DRAFT, _draft("1000.02"))
    before = office.held("accounting", "account.invoice", _of_amount("1000.02"))
    office.agree(asked)
    made = _result(seat.ended(asked))

    assert [] == before
    assert [made] == office.held("accounting", "account.invoice", _of_amount("1000.02"))


@pytest.mark.parametrize("keep", [0, 10])
def test_an_opportunity_whose_answer_is_lost_is_there_once(
    office: Office, seat: Seat, keep: int
) -> None:
    """It is found by its reference, and its id and number are the agent's."""
    words = f"{keep} bytes of an answer"
    with _losing(office.between, "/sale.opportunity", keep=keep) as lost:
        opened = _result(seat.call(CREATE, _opportunity(words)))

    held = office.held("crm", "sale.opportunity", ["description", "=", words])
    assert 1 == len(lost)
    assert [opened["id"]] == [opportunity["id"] for opportunity in held]


def test_an_invoice_whose_answers_are_lost_is_drafted_and_posted_once(
    office: Office, seat: Seat
) -> None:
    """A draft is found by its reference, a posting by the number."""
    with _losing(office.between, "/account.invoice") as lost:
        drafted = _result(seat.call(DRAFT, _draft("13.00")))
    with _losing(office.between, "/post") as lost_too:
        asked = seat.call(POST, {"id": drafted["id"]})
        office.agree(asked)
        posted = _result(seat.ended(asked))

    assert (1, 1) == (len(lost), len(lost_too))
    numbered = office.held("accounting", "account.invoice", ["number", "=", posted["number"]])
    assert [{"id": drafted["id"], "state": "posted"}] == numbered
    assert numbered == office.held("accounting", "account.invoice", _of_amount("13.00"))


def test_a_refusal_of_tryton_ends_the_call_and_waits_for_nobody(office: Office, seat: Seat) -> None:
    """An address of somebody else, and a second change of state: both did nothing."""
    elsewhere = seat.call(DRAFT, {**_draft("14.00"), "address": 1})
    opened = _result(seat.call(CREATE, _opportunity("Lost")))
    lost = _result(seat.call("crm.opportunity.lose", {"id": opened["id"]}))
    again = seat.call("crm.opportunity.lose", {"id": opened["id"]})

    assert {"id": opened["id"], "state": "lost"} == lost
    assert "failed (call.refused): it answered 400" in text_of(elsewhere)
    assert "failed (call.refused): it answered 400" in text_of(again)
    assert [] == listed("effect", "parked")


def test_what_a_session_made_is_taken_back_by_its_undo(office: Office) -> None:
    """Opportunity and draft are cancelled, the latest first."""
    seat = office.seat()
    opened = seat.call(CREATE, _opportunity("Undone"))
    drafted = _result(seat.call(DRAFT, _draft("15.00")))
    effect_id = str(meta_of(opened)["interlock/effect-id"])
    run_id = str(interlock("effect", "show", effect_id, "--json").json["run_id"])
    done("token", "revoke", run_id)
    interlock("run", "watch", run_id)
    (undo,) = re.findall(r"undo run (\S+) started", done("run", "compensate", run_id))
    watched = done("run", "watch", undo)

    assert "run succeeded" in watched
    (opportunity,) = office.held("crm", "sale.opportunity", ["id", "=", _result(opened)["id"]])
    (invoice,) = office.held("accounting", "account.invoice", ["id", "=", drafted["id"]])
    assert ("cancelled", "cancelled") == (opportunity["state"], invoice["state"])


@pytest.mark.parametrize(
    ("system", "model"),
    [
        ("crm", "account.invoice"),
        ("crm", "account.move"),
        ("accounting", "sale.opportunity"),
        ("accounting", "account.move"),
    ],
)
def test_a_key_reads_its_own_system_only(office: Office, system: str, model: str) -> None:
    """Tryton itself refuses the rest, whatever a manifest says."""
    answer = office.ask(system, "POST", f"{model}/search_read", {"domain": []})

    assert httpx2.codes.FORBIDDEN == answer.status_code


@pytest.mark.parametrize("system", ["crm", "accounting"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "sale.opportunity/1"),
        ("DELETE", "account.invoice/1"),
        ("PUT", "party.party/2"),
        ("POST", "party.party-party.category"),
        ("POST", "res.user.application"),
    ],
)
def test_a_key_deletes_nothing_and_changes_only_what_its_tools_change(
    office: Office, system: str, method: str, path: str
) -> None:
    """Models that no permission of Tryton's own names are refused as well."""
    answer = office.ask(system, method, path, {})

    assert answer.status_code in {httpx2.codes.BAD_REQUEST, httpx2.codes.NOT_FOUND}
    assert "not allowed to access" in answer.text or "Not Found" in answer.text


@contextmanager
def _losing(between: Gateway, end: str, *, keep: int = 0) -> Iterator[list[Passing]]:
    """Lose each answer at paths that end so, but for `keep` bytes; return those that were lost."""
    lost: list[Passing] = []

    def spoil(passing: Passing) -> bytes:
        if not passing.path.partition("?")[0].endswith(end):
            return leave(passing)
        lost.append(passing)
        return leave(passing)[:keep]

    between.spoil = spoil
    try:
        yield lost
    finally:
        between.spoil = leave


def _opportunity(description: str) -> JsonObject:
    return {"customer": 2, "description": description, "amount": "9000.00"}


def _draft(amount: str) -> JsonObject:
    return {"customer": 2, "address": 2, "month": "2026-12", "text": "Support", "amount": amount}


def _of_amount(amount: str) -> Json:
    """Return what finds invoices by their amount."""
    return ["untaxed_amount", "=", {"__class__": "Decimal", "decimal": amount}]


def _result(result: CallToolResult) -> JsonObject:
    """Return what a call that succeeded has brought."""
    assert "succeeded" == meta_of(result)["interlock/state"], text_of(result)
    assert isinstance(result.structured_content, dict)
    return result.structured_content


@contextmanager
def _tryton(folder: Path, command: str) -> Iterator[str]:
    """Start Tryton as the page says, but at a port of its own, and wait until it listens."""
    port = free_port()
    _move(folder / "tryton" / "trytond.conf", "8433", str(port))
    rest, until_s = threading.Event(), time.monotonic() + START_S
    with (
        (folder / "trytond.log").open("wb") as log,
        subprocess.Popen(shlex.split(command), stdout=log, stderr=log) as process,
    ):
        try:
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                assert time.monotonic() < until_s, (folder / "trytond.log").read_text()
                rest.wait(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def _move(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def _ran(line: str) -> str:
    """Run a command of the page and return what it printed."""
    command, _, given = line.partition(" < ")
    return done(*shlex.split(command)[1:], given=Path(given).read_text() if given else None)


def _calls() -> Iterator[tuple[str, JsonObject]]:
    """Yield the calls of the page's table; a row that names no tool repeats the one before."""
    table = PAGE[PAGE.index("| the agent calls |") :].splitlines()[2:]
    tool, arguments = "", JsonObject()
    for row in table:
        if row.startswith("|"):
            named = re.search(r"`(\w+) \{", row)
            changes = re.search(r"\{.*?\}", row)
            if named:
                tool, arguments = named[1].replace("__", "."), {}
            arguments |= json.loads(changes[0]) if changes else {}
            yield tool, dict(arguments)
