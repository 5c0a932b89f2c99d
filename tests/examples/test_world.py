"""The example's real issue tracker: the REST facts that the tools rely on, and its webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from interlock.testing.process import ServerProcess

PROGRAM = Path(__file__).parents[2] / "examples" / "service_desk" / "world" / "tracker.py"
KEY = b"thirty-two bytes of a shared key"


class Tracker(ServerProcess):
    """A tracker in a folder of its own."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        command = [sys.executable, str(PROGRAM), "serve", str(home), *options]
        super().__init__(command, folder=home.parent)

    def client(self, user: str = "triage-bot") -> httpx2.Client:
        """Return a client with a user's password and the headers that writes need."""
        password = (self.home / "credentials" / user).read_text()
        return httpx2.Client(
            base_url=f"{self.url}/rest/data",
            auth=(user, password),
            headers={"X-Requested-With": "test", "Origin": "https://interlock.example"},
        )


def run(*arguments: str, status: int = 0) -> str:
    """Run a command of the program and return what it prints, or the complaint of a failure."""
    command = [sys.executable, str(PROGRAM), *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert status == done.returncode, done.stderr
    return done.stderr if status else done.stdout


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tracker's folder with the seeds, not served."""
    home = tmp_path_factory.mktemp("world") / "tracker"
    run("init", str(home))
    return home


@pytest.fixture(scope="module")
def tracker(seeded: Path) -> Iterator[Tracker]:
    """A running tracker that the tests of this file share."""
    with Tracker(seeded) as server:
        yield server


@pytest.fixture(scope="module")
def bot(tracker: Tracker) -> Iterator[httpx2.Client]:
    """The agent's client."""
    with tracker.client() as client:
        yield client


def link_for(bot: httpx2.Client, kind: str) -> str:
    """Return a one-time link."""
    link: str = bot.post(f"/{kind}/@poe", json={}).json()["data"]["link"]
    return link


def found(bot: httpx2.Client, kind: str, reference: str) -> list[str]:
    """Return the ids that an exact search for our reference finds."""
    answer = bot.get(f"/{kind}", params={"external_ref:": reference}).json()
    return [entry["id"] for entry in answer["data"]["collection"]]


def test_seeds_are_there(seeded: Path) -> None:
    """A dozen tickets wait, none of them told of by webhook; passwords are files of the owner."""
    contents = json.loads(run("export", str(seeded)))
    files = list((seeded / "credentials").iterdir())

    names = {"alice", "bob", "carol", "netops", "itsec", "desktop", "finance-apps", "triage-bot"}
    assert 12 <= len(contents["issues"])
    assert names <= {user["username"] for user in contents["users"]}
    assert not {"issue-1", "issue-12"} & {row["name"] for row in contents["deliveries"]}
    assert {0o600} == {file.stat().st_mode & 0o777 for file in files}


def test_init_leaves_a_used_folder_alone(seeded: Path) -> None:
    """A second init in the same folder is refused with a sentence."""
    complaint = run("init", str(seeded), status=1)

    assert "is not empty: name a new folder" in complaint


def test_link_creates_once(bot: httpx2.Client) -> None:
    """The second use of a one-time link is 400, and our reference finds the one ticket."""
    link = link_for(bot, "issue")
    ticket = {"title": "Repair", "partof": "6", "assignedto": "desktop", "external_ref": "once"}

    first, second = bot.post(link, json=ticket), bot.post(link, json=ticket)

    assert (201, 400) == (first.status_code, second.status_code)
    assert [first.json()["data"]["id"]] == found(bot, "issue", "once")


def test_refused_request_uses_the_link_up(bot: httpx2.Client) -> None:
    """After a refusal the same link stores nothing, however good the second request is."""
    link = link_for(bot, "issue")

    first = bot.post(link, json={"title": "x", "priority": "nope", "external_ref": "up"})
    second = bot.post(link, json={"title": "x", "priority": "high", "external_ref": "up"})

    assert (400, 400) == (first.status_code, second.status_code)
    assert [] == found(bot, "issue", "up")


@pytest.mark.parametrize("missing", ["Origin", "X-Requested-With"])
def test_write_without_its_headers_is_refused_before_the_link(
    bot: httpx2.Client, missing: str
) -> None:
    """Each header is needed; such a refusal leaves the link as it was."""
    link = link_for(bot, "issue")
    request = bot.build_request("POST", link, json={"title": missing})
    del request.headers[missing]

    refused, accepted = bot.send(request), bot.post(link, json={"title": missing})

    assert (400, 201) == (refused.status_code, accepted.status_code)


def test_reply_is_one_request(bot: httpx2.Client) -> None:
    """A message that names its ticket appears in it, with the agent as its author."""
    reply = {"issue": "6", "content": "We lend you a spare.", "external_ref": "reply"}

    created = bot.post(link_for(bot, "msg"), json=reply)

    query = {"issue": "6", "@fields": "content,author", "@verbose": "3"}
    listed = bot.get("/msg", params=query).json()["data"]["collection"]
    assert 201 == created.status_code
    assert [("We lend you a spare.", "triage-bot")] == [
        (message["content"], message["author"]["username"]) for message in listed
    ]
    assert found(bot, "msg", "reply") == [message["id"] for message in listed]


def test_reply_to_no_ticket_stores_nothing(bot: httpx2.Client) -> None:
    """A refusal by a rule of the tracker is 409, and nothing remains."""
    reply = {"issue": "999", "content": "hello", "external_ref": "lost"}

    refused = bot.post(link_for(bot, "msg"), json=reply)

    assert 409 == refused.status_code
    assert [] == found(bot, "msg", "lost")


def test_grant_is_a_record_that_can_be_taken_back(bot: httpx2.Client) -> None:
    """Access to a share is given by one request and revoked by another."""
    grant = {"user": "carol", "share": "finance", "level": "read", "external_ref": "grant"}

    created = bot.post(link_for(bot, "grant"), json=grant).json()["data"]["id"]
    tag = bot.get(f"/grant/{created}").headers["ETag"]
    revoked = bot.put(f"/grant/{created}", json={"state": "revoked"}, headers={"If-Match": tag})

    assert [created] == found(bot, "grant", "grant")
    assert {"state": "revoked"} == revoked.json()["data"]["attribute"]


@pytest.mark.parametrize(
    ("grant", "status"),
    [
        ({"user": "carol", "share": "vault", "level": "read"}, 400),
        ({"user": "zoe", "share": "finance", "level": "read"}, 400),
        ({"user": "carol", "share": "finance"}, 409),
        ({"user": "carol", "share": "finance", "level": "owner"}, 409),
    ],
)
def test_grant_of_nonsense_is_refused(
    bot: httpx2.Client, grant: dict[str, str], status: int
) -> None:
    """Unknown people and shares, and missing or unknown levels, are refused."""
    assert status == bot.post(link_for(bot, "grant"), json=grant).status_code


def test_change_needs_the_version_that_was_read(bot: httpx2.Client) -> None:
    """Without a version and with an old one a change is 412; with the new one it is made."""
    tag = {"If-Match": bot.get("/issue/12").headers["ETag"]}

    blind = bot.put("/issue/12", json={"priority": "low"})
    made = bot.put("/issue/12", json={"priority": "low", "assignedto": "netops"}, headers=tag)
    late = bot.put("/issue/12", json={"priority": "high"}, headers=tag)

    assert [412, 200, 412] == [answer.status_code for answer in (blind, made, late)]
    assert {"priority": "4", "assignedto": "9"} == made.json()["data"]["attribute"]


def test_simultaneous_changes_of_one_version_succeed_once(tracker: Tracker) -> None:
    """Of four changes that read the same version, one is made and three are refused."""
    with tracker.client() as client:
        tag = {"If-Match": client.get("/issue/9").headers["ETag"]}
    start, statuses = threading.Barrier(4), queue.SimpleQueue[int]()

    def change(number: int) -> None:
        with tracker.client() as client:
            start.wait(timeout=30)
            body = {"title": f"title {number}"}
            statuses.put(client.put("/issue/9", json=body, headers=tag).status_code)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [200, 412, 412, 412] == sorted(statuses.get(timeout=1) for _ in threads)


def test_retired_ticket_is_no_longer_listed(bot: httpx2.Client) -> None:
    """Retiring undoes a creation as far as searches see, and may be repeated."""
    ticket = bot.post("/issue", json={"title": "in vain", "external_ref": "gone"}).json()["data"]
    tag = {"If-Match": bot.get(f"/issue/{ticket['id']}").headers["ETag"]}

    statuses = [bot.delete(f"/issue/{ticket['id']}", headers=tag).status_code for _ in range(2)]

    assert [200, 200] == statuses
    assert [] == found(bot, "issue", "gone")


def test_search_finds_words_and_exact_references(bot: httpx2.Client) -> None:
    """Text filters are substrings of any case; articles are found by word and by keyword."""

    def titles(path: str, **query: str) -> list[str]:
        answer = bot.get(path, params={**query, "@fields": "title"}).json()
        return [entry["title"] for entry in answer["data"]["collection"]]

    assert ["VPN disconnects in the hotel"] == titles("/issue", title="vpn disconnects")
    assert ["VPN drops after a few minutes"] == titles("/article", body="vpn drops")
    assert ["Access to the finance share"] == titles("/article", keyword="access")
    assert [] == found(bot, "issue", "%")


def test_agent_may_not_touch_the_rest(bot: httpx2.Client) -> None:
    """Articles are read only, deliveries and passwords are none of its business."""
    secret = bot.get("/user/4", params={"@fields": "username,password,address"}).json()

    assert 403 == bot.post("/article", json={"title": "x", "body": "y"}).status_code
    assert 403 == bot.get("/delivery").status_code
    assert {"username": "alice"} == secret["data"]["attributes"]


class Receiver:
    """Takes webhooks and answers each with the next status of a list, then with 204."""

    def __init__(self, *statuses: int) -> None:
        self.received: queue.SimpleQueue[tuple[dict[str, str], bytes]] = queue.SimpleQueue()
        left, received = list(statuses), self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(left.pop(0) if left else 204)
                self.end_headers()
                received.put(({k.lower(): v for k, v in self.headers.items()}, body))

            def log_message(self, *_args: object) -> None:
                """Write nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/tickets"


@contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    """Run a receiver in a thread."""
    receiver = Receiver(*statuses)
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A fresh tracker's folder, with the webhook secret beside it."""
    run("init", str(tmp_path / "tracker"))
    (tmp_path / "secret").write_text("whsec_" + base64.b64encode(KEY).decode())
    return tmp_path / "tracker"


def telling(home: Path, url: str) -> Tracker:
    """Return a tracker that tells a receiver of new tickets."""
    secret = str(home.parent / "secret")
    return Tracker(home, "--webhook-url", url, "--webhook-secret-file", secret)


def test_ticket_of_a_person_is_told_with_a_signature(home: Path) -> None:
    """One signed delivery per ticket of a person, none for a ticket of the agent."""
    with receiving() as receiver, telling(home, receiver.url) as tracker:
        with tracker.client() as bot:
            bot.post("/issue", json={"title": "by the agent"})
        run("add", str(home), "Printer on fire", "--text", "Smoke!", "--user", "bob")
        headers, body = receiver.received.get(timeout=20)

    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    signature = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
    told = json.loads(body)
    assert f"v1,{signature}" == headers["webhook-signature"]
    assert ("issue-14", "ticket.created") == (headers["webhook-id"], told["type"])
    expected = {"id": "14", "title": "Printer on fire", "text": "Smoke!", "reporter": "bob"}
    assert expected.items() <= told["data"].items()
    assert receiver.received.empty()


def test_delivery_is_repeated_until_it_is_accepted(home: Path) -> None:
    """Failures and 429 are tried again under the same id; then it is delivered."""
    with receiving(500, 429) as receiver, telling(home, receiver.url):
        run("add", str(home), "Again", "--text", "and again")
        attempts = [receiver.received.get(timeout=20) for _ in range(3)]
        run("add", str(home), "Next")
        receiver.received.get(timeout=20)

    first = json.loads(run("export", str(home)))["deliveries"][0]
    assert ["issue-13"] * 3 == [headers["webhook-id"] for headers, _ in attempts]
    assert 1 == len({body for _, body in attempts})
    assert ("delivered", 3) == (first["state"], first["attempts"])


def test_ticket_outlives_a_receiver_that_is_down(home: Path) -> None:
    """The ticket is stored at once, and told when the tracker runs again and somebody listens."""
    with telling(home, "http://127.0.0.1:9/"):
        run("add", str(home), "Nobody listens")

    with receiving() as receiver, telling(home, receiver.url):
        headers, _ = receiver.received.get(timeout=20)

    assert "issue-13" == headers["webhook-id"]


def test_refused_delivery_is_kept_in_a_file(home: Path) -> None:
    """A receiver that says no for good is not asked again; the message stays for people."""
    with receiving(422) as receiver, telling(home, receiver.url):
        run("add", str(home), "Unwanted")
        run("add", str(home), "Wanted")
        ids = [receiver.received.get(timeout=20)[0]["webhook-id"] for _ in range(2)]
        run("add", str(home), "Wanted too")
        receiver.received.get(timeout=20)

    kept = json.loads((home / "refused" / "issue-13.json").read_text())
    assert ["issue-13", "issue-14"] == ids
    assert "Unwanted" == kept["data"]["title"]
    assert "refused" == json.loads(run("export", str(home)))["deliveries"][0]["state"]


def test_commands_say_what_is_missing(tmp_path: Path) -> None:
    """A folder without a tracker is named in one sentence, without a traceback."""
    for command in (["export"], ["serve"], ["add", "Title"]):
        complaint = run(command[0], str(tmp_path), *command[1:], status=1)

        assert 1 == len(complaint.splitlines())
