"""The service desk's ticket system: a real Roundup tracker, made, served, used and exported here.

    tracker.py init HOME [--load seeds.json]
    tracker.py serve HOME --port 8080 [--port-file F] [--webhook-url U --webhook-secret-file F]
    tracker.py add HOME "Title" --user alice --text "..."     opens a ticket as a person, by REST
    tracker.py export HOME                                    prints the whole contents as JSON

It stands for a system that the company already had: it knows nothing of Interlock, which reaches
it by REST and is told of new tickets by webhook. README.md beside it lists the REST facts.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import shutil
import sys
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

import roundup.instance
from roundup.admin import AdminTool
from roundup.configuration import CoreConfig
from roundup.hyperdb import Class, Database
from roundup.init import install
from roundup.instance import Tracker
from roundup.password import Password

HERE = Path(__file__).parent
ORIGIN = "https://interlock.example"
"""The origin that the tracker admits on REST writes, whatever port it listens on."""

SETTINGS = {
    "TRACKER_NAME": "IT service desk",
    "TRACKER_WEB": "http://127.0.0.1/",  # serve replaces it by the address it listens on
    "MAIL_DOMAIN": "desk.example",
    "MAIL_HOST": "127.0.0.1",  # nothing here sends mail
    "RDBMS_BACKEND": "sqlite",
    "INDEXER": "native",
    "WEB_ALLOWED_API_ORIGINS": ORIGIN,
    "INSTANT_REGISTRATION": "no",
    # Each REST request checks the password anew. The passwords are 256 random bits, so stretching
    # them adds nothing, and Roundup's default of 250,000 rounds costs 0.1 s a request.
    "PASSWORD_PBKDF2_DEFAULT_ROUNDS": "1000",
}

PAGE_ROWS = """
<tr><th>Description</th>
 <td colspan=3 tal:content="structure python:context.description.multiline(rows=5)"></td></tr>
<tr><th>Part of</th><td tal:content="structure python:context.partof.field(showid=1)"></td>
 <th>External reference</th><td tal:content="context/external_ref"></td></tr>
"""


def init(home: Path, *, seeds: Path) -> None:
    """Create the tracker in an empty or absent folder and load people, articles and tickets."""
    if home.exists() and any(home.iterdir()):
        raise SystemExit(f"`{home}` is not empty: name a new folder")
    home.mkdir(parents=True, exist_ok=True)
    # The pages come from Roundup's classic template; schema and rules are ours.
    install(str(home), AdminTool().listTemplates()["classic"]["path"], settings=SETTINGS)
    shutil.rmtree(home / "detectors")
    shutil.copytree(HERE / "template", home, dirs_exist_ok=True)
    _extend_page(home / "html" / "issue.item.html")
    credentials = home / "credentials"
    credentials.mkdir(mode=0o700)
    tracker = roundup.instance.open(str(home))
    tracker.init(_new_password(credentials, "admin", tracker.config))
    _load(tracker, credentials, json.loads(seeds.read_text(encoding="utf-8")))


def _extend_page(page: Path) -> None:
    """Show our properties of a ticket on Roundup's page, below the title."""
    head, title, rest = page.read_text(encoding="utf-8").partition("title</td>\n</tr>\n")
    page.write_text(head + title + PAGE_ROWS + rest, encoding="utf-8")


def _new_password(folder: Path, user: str, config: CoreConfig) -> Password:
    """Invent a password, keep it in a file that only we can read, and return its hash."""
    plain = secrets.token_urlsafe(32)
    file = folder / user
    file.touch(mode=0o600)
    file.write_text(plain, encoding="utf-8")
    return Password(plain, config=config)


def _load(tracker: Tracker, credentials: Path, seeds: dict[str, Any]) -> None:
    with closing(tracker.open("admin")) as db:
        db.tx_Source = "seed"
        for person in seeds["users"]:
            password = _new_password(credentials, person["username"], tracker.config)
            db.user.create(**person, password=password)
        for name in seeds["keywords"]:
            db.keyword.create(name=name)
        for share in seeds["shares"]:
            db.share.create(**{**share, "owner": db.user.lookup(share["owner"])})
        for article in seeds["articles"]:
            db.article.create(**_with_ids(db, article))
        db.commit()
        for ticket in seeds["issues"]:
            replies = ticket.pop("replies", [])
            db.setCurrentUser(ticket.pop("reporter"))
            number = db.issue.create(**_with_ids(db, ticket))
            for reply in replies:
                db.setCurrentUser(reply["author"])
                db.msg.create(issue=number, content=reply["text"])
            db.commit()


def _with_ids(db: Database, values: dict[str, Any]) -> dict[str, Any]:
    """Replace the names in a seed by the ids that Roundup stores."""
    classes = {"priority": db.priority, "status": db.status, "assignedto": db.user}
    found = {k: classes[k].lookup(v) if k in classes else v for k, v in values.items()}
    found["keyword"] = [db.keyword.lookup(name) for name in values.get("keyword", [])]
    return found


def add(home: Path, *, url: str | None, user: str, ticket: dict[str, str]) -> dict[str, str]:
    """Open a ticket through the running server as `user`, and return its id and link."""
    try:
        address = url or (home / "address").read_text(encoding="utf-8").strip()
        password = (home / "credentials" / user).read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise SystemExit(f"`{error.filename}` is missing: is the tracker served?") from None
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    request = urllib.request.Request(  # noqa: S310 - the address is the operator's own
        f"{address.rstrip('/')}/rest/data/issue",
        data=json.dumps(ticket).encode(),
        headers={
            "Authorization": f"Basic {token}",
            "Content-Type": "application/json",
            "Origin": ORIGIN,
            "X-Requested-With": "tracker.py",
        },
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as reply:
            created: dict[str, dict[str, str]] = json.load(reply)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"the tracker refused the ticket: {error.read().decode()}") from None
    except OSError as error:
        raise SystemExit(f"no tracker answers at `{address}`: {error}") from None
    return created["data"]


def export(home: Path) -> dict[str, list[dict[str, Any]]]:
    """Return all tickets, grants, users and webhook deliveries, with names instead of ids."""
    if not (home / "config.ini").is_file():
        raise SystemExit(f"`{home}` holds no tracker: create it with `tracker.py init`")
    with closing(roundup.instance.open(str(home)).open("admin")) as db:
        return {
            "issues": [_ticket(db, number) for number in _ids(db.issue)],
            "grants": [
                _plain(db.grant, n, "share", "level", "state", "issue", "external_ref")
                | {"user": db.user.get(db.grant.get(n, "user"), "username")}
                | {"share": db.share.get(db.grant.get(n, "share"), "name")}
                for n in _ids(db.grant)
            ],
            "users": [
                _plain(db.user, n, "username", "realname", "organisation", "roles")
                for n in _ids(db.user)
            ],
            "deliveries": [
                _plain(db.delivery, n, "name", "state", "attempts", "answer")
                for n in _ids(db.delivery)
            ],
        }


def _ticket(db: Database, number: str) -> dict[str, Any]:
    get = db.issue.get

    def name(link: str, cl: Class, label: str = "name") -> str | None:
        value = get(number, link)
        return cl.get(value, label) if value else None

    return _plain(db.issue, number, "title", "description", "kind", "partof", "external_ref") | {
        "reporter": name("creator", db.user, "username"),
        "status": name("status", db.status),
        "priority": name("priority", db.priority),
        "assignedto": name("assignedto", db.user, "username"),
        "keyword": sorted(db.keyword.get(k, "name") for k in get(number, "keyword")),
        "retired": db.issue.is_retired(number),
        "messages": [
            {
                "id": m,
                "author": db.user.get(db.msg.get(m, "author"), "username"),
                "text": db.msg.get(m, "content"),
                "external_ref": db.msg.get(m, "external_ref"),
            }
            for m in get(number, "messages")
        ],
    }


def _plain(cl: Class, number: str, *names: str) -> dict[str, Any]:
    return {"id": number, **{name: cl.get(number, name) for name in names}}


def _ids(cl: Class) -> list[str]:
    """Return the ids of a class in order, retired ones included."""
    return sorted(cl.getnodeids(), key=int)


def main() -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description="the service desk's Roundup tracker")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in {
        "init": "create the tracker and load its first contents",
        "serve": "serve the tracker on a loopback port",
        "add": "open a ticket as a person, through REST",
        "export": "print the contents as one JSON object",
    }.items():
        command = commands.add_parser(name, help=words)
        command.add_argument("home", type=Path, help="the tracker's folder")
        if name == "init":
            command.add_argument("--load", type=Path, default=HERE / "seeds.json")
        elif name == "serve":
            command.add_argument("--port", type=int, default=0, help="0 takes a free one")
            command.add_argument("--port-file", type=Path, help="receives the port once ready")
            command.add_argument("--webhook-url", help="told of each ticket that a person opens")
            command.add_argument("--webhook-secret-file", type=Path, help="holds whsec_...")
        elif name == "add":
            command.add_argument("title")
            command.add_argument("--text", default="", help="the description")
            command.add_argument("--user", default="alice", help="the reporter")
            command.add_argument("--kind", help="incident, request, access or question")
            command.add_argument("--url", help="instead of the address that serve left in HOME")
    args = parser.parse_args()
    if args.command == "init":
        init(args.home, seeds=args.load)
    elif args.command == "serve":
        # The other commands need no server; a script's neighbours are found at run time only.
        from serving import serve  # type: ignore[import-not-found]  # noqa: PLC0415

        serve(
            args.home,
            port=args.port,
            port_file=args.port_file,
            webhook_url=args.webhook_url,
            webhook_secret_file=args.webhook_secret_file,
        )
    elif args.command == "add":
        given = {"title": args.title, "description": args.text, "kind": args.kind}
        ticket = {name: value for name, value in given.items() if value}
        print(json.dumps(add(args.home, url=args.url, user=args.user, ticket=ticket)))
    else:
        json.dump(export(args.home), sys.stdout, indent=2)
        print()


if __name__ == "__main__":
    main()
