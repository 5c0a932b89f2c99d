"""The service desk as tests of whole runs need it: its tracker, its project, its people.

The project is the example as it stands, bound to where the servers of a test listen, and three
small workflows of plain tool steps, which need no model.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import httpx2

from interlock.app import Interlock
from interlock.calls import approve
from interlock.config import Config
from interlock.domain.approval import Approval
from interlock.domain.canonical import Json
from interlock.domain.effect import Effect
from interlock.domain.ids import RunId, ToolName, WorkflowName
from interlock.domain.principal import Principal, PrincipalKind, Role
from interlock.domain.run import Run, RunState
from interlock.manifest.files import read_folder
from interlock.store import approvals, effects, waits
from interlock.testing.process import ServerProcess

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "service_desk"
PROGRAM = EXAMPLE / "world" / "tracker.py"
BOT = "secret://servicedesk/dev/triage-bot"

OPS = Principal(name="ops", kind=PrincipalKind.USER, roles=frozenset({Role.OWNER, Role.OPERATOR}))
EVE = Principal(name="eve", kind=PrincipalKind.USER, roles=frozenset({Role.OPERATOR}))
MARA = Principal(
    name="mara",
    kind=PrincipalKind.USER,
    roles=frozenset({Role.APPROVER}),
    groups=frozenset({"it-service-desk"}),
)
HELD = (RunState.SUCCEEDED, RunState.FAILED, RunState.WAITING)

CREATE = ToolName("servicedesk.issue.create")
UPDATE = ToolName("servicedesk.issue.update")
REPLY = ToolName("servicedesk.issue.reply")
FIND = ToolName("servicedesk.issue.find")
OPEN_PART, SET_TICKET, TWO_PARTS = (
    WorkflowName(name) for name in ("open_part", "set_ticket", "two_parts")
)

_GRANT = """
@id("tests-change-tickets") @owner("it-service-desk") @why("The workflows of the tests write")
permit (principal, action in Action::"write", resource in System::"servicedesk");
"""
_HEAD = """
interlock: v1
kind: Workflow
version: 1
owner: it-service-desk
department: it
triggers: {{by_hand: {{manual: true}}}}
autonomy: {{dev: {{level: 3, by: nora, reason: tests}}}}
success: {{end_state: done, counts: [done], objective: 0.9, within_s: 60}}
name: {name}
title: {name}
inputs:
  type: object
  additionalProperties: false
  required: [ticket, words]
  properties: {{ticket: {{type: string}}, words: {{type: string}}}}
"""
_PART = """
      parent: "input:/ticket"
      title: {title}
      description: Made by a test.
      kind: request
      priority: low
      assignedto: desktop
"""
_WORKFLOWS = {
    OPEN_PART: f"""
tools: [{CREATE}, {FIND}]
steps:
  - name: open
    tool: {CREATE}
    args: {_PART.format(title='"input:/words"')}
approvals: []
fallbacks:
  - {{code: call.not_sent, then: end, end: by_hand}}
  - {{code: "*", then: stop}}
""",
    SET_TICKET: f"""
tools: [servicedesk.issue.show, {UPDATE}]
steps:
  - {{name: read, tool: servicedesk.issue.show, args: {{id: "input:/ticket"}}}}
  - name: change
    tool: {UPDATE}
    args:
      id: "input:/ticket"
      version: "step:read/version"
      priority: critical
      assignedto: itsec
      status: waiting
approvals: []
fallbacks:
  - {{code: call.conflict, then: end, end: changed_meanwhile}}
  - {{code: "*", then: stop}}
""",
    TWO_PARTS: f"""
tools: [{CREATE}, {FIND}, {REPLY}, servicedesk.reply.find, {UPDATE}, servicedesk.issue.show]
steps:
  - name: first
    tool: {CREATE}
    args: {_PART.format(title="The first part")}
  - name: second
    tool: {CREATE}
    args: {_PART.format(title="The second part")}
  - name: change
    tool: {UPDATE}
    args:
      id: "input:/ticket"
      version: '"of yesterday"'
      priority: low
      assignedto: desktop
      status: open
approvals:
  - {{tool: {REPLY}, by: it-service-desk, why: An undo is told to people by people}}
fallbacks:
  - {{code: "*", then: compensate}}
""",
}


def project(tracker: str) -> dict[str, str]:
    """Return the example with a tracker at that address, and the workflows of the tests."""
    texts = read_folder(EXAMPLE)
    name = "servers/tracker-dev.yaml"
    url = next(line for line in texts[name].splitlines() if line.startswith("url:"))
    texts[name] = texts[name].replace(url, f"url: {tracker}")
    texts["policies/grants/tests.cedar"] = _GRANT
    for workflow, rest in _WORKFLOWS.items():
        texts[f"workflows/{workflow}.yaml"] = _HEAD.format(name=workflow) + rest
    return texts


class Tracker(ServerProcess):
    """A tracker of one test's own, with the seeds of the example."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        command = [sys.executable, str(PROGRAM), "serve", str(home), *options]
        super().__init__(command, folder=home.parent)

    @staticmethod
    def init(home: Path) -> Path:
        """Make a tracker's folder and return it."""
        subprocess.run([sys.executable, str(PROGRAM), "init", str(home)], check=True, timeout=30)
        return home

    def secret(self, user: str = "triage-bot") -> str:
        """Return a user's name and password, as the binding of the tools wants them."""
        return f"{user}:{(self.home / 'credentials' / user).read_text().strip()}"

    def client(self, user: str) -> httpx2.Client:
        """Return a client with a person's rights and the headers that writes need."""
        return httpx2.Client(
            base_url=f"{self.url}/rest/data",
            auth=(user, self.secret(user).partition(":")[2]),
            headers={"X-Requested-With": "test", "Origin": "https://interlock.example"},
        )

    def change(self, ticket: str, **values: str) -> None:
        """Change a ticket as a person of the desk would."""
        with self.client("desktop") as person:
            tag = {"If-Match": person.get(f"/issue/{ticket}").headers["ETag"]}
            person.put(f"/issue/{ticket}", json=values, headers=tag).raise_for_status()

    def ticket(self, ticket: str) -> dict[str, str]:
        """Return priority, status and team of a ticket."""
        names = {"priority": "name", "status": "name", "assignedto": "username"}
        query = {"@fields": ",".join(names), "@verbose": "2"}
        with self.client("desktop") as person:
            found = person.get(f"/issue/{ticket}", params=query).json()["data"]["attributes"]
        return {name: found[name][label] for name, label in names.items()}

    def opened_as(self, *titles: str) -> dict[str, list[tuple[str, str]]]:
        """Return id and our reference of the tickets of each title."""
        query = {"@fields": "title,external_ref"}
        with self.client("desktop") as person:
            rows = person.get("/issue", params=query).json()["data"]["collection"]
        return {
            title: [(row["id"], row["external_ref"]) for row in rows if row["title"] == title]
            for title in titles
        }

    def replies(self, ticket: str) -> list[str]:
        """Return the replies of a ticket, oldest first."""
        query = {"issue": ticket, "@fields": "content", "@verbose": "3", "@sort": "id"}
        with self.client("desktop") as person:
            rows = person.get("/msg", params=query).json()["data"]["collection"]
        return [row["content"] for row in rows]

    def changes_by_bot(self, ticket: str) -> int:
        """Count the changes that the agent's user made to a ticket, from the tracker's journal."""
        query = (
            "select count(*) from issue__journal join _user on _user.id = tag"
            " where nodeid = ? and action = 'set' and _username = 'triage-bot'"
        )
        with closing(sqlite3.connect(self.home / "db" / "db")) as database:
            return int(database.execute(query, [ticket]).fetchone()[0])


class LeapingClock:
    """The machine's clock, set forward at will: a test waits for no pause."""

    def __init__(self) -> None:
        self._ahead_us = 0

    def now_us(self) -> int:
        """Return the time in microseconds."""
        return time.time_ns() // 1000 + self._ahead_us

    def leap_to(self, at_us: int) -> None:
        """Make it at least that late."""
        self._ahead_us += max(0, at_us - self.now_us())


def settings(folder: Path, database_url: str, *, secret: str, crash_file: Path | None) -> Config:
    """Return the settings of an installation in a folder; its tools sign in with `secret`."""
    config = Config(
        data_dir=folder,
        database_url=None if database_url.startswith("sqlite") else database_url,
    )
    with closing(Interlock.open(config)) as interlock:
        interlock.secrets.set(BOT, secret, by="tests")
    return replace(config, crash_file=crash_file)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """An installation at work in this process, and its clock."""

    interlock: Interlock
    clock: LeapingClock

    def start(
        self, workflow: WorkflowName, words: str, *, ticket: str = "6", by: Principal = OPS
    ) -> RunId:
        """Start a run; the same words and person are the same run."""
        value: Json = {"ticket": ticket, "words": words}
        return self.interlock.start_run(workflow, environment="dev", value=value, by=by, key=words)[
            0
        ]

    def held(self, run_id: RunId) -> Run:
        """Return the run once it has ended or waits for a person; pauses cost no time."""
        while True:
            run = self.interlock.wait_for(run_id, *HELD)
            with self.interlock.db.reading() as tx:
                open_waits = waits.list_waits(tx, run_id)
            pauses = [w.due_us for w in open_waits if w.topic.startswith("time/")]
            if run.state.is_final or (open_waits and not pauses):
                return run
            for due_us in pauses:
                self.clock.leap_to(due_us or 0)
            self.interlock._engine.wake()

    def effect(self, run_id: RunId, tool: ToolName) -> Effect:
        """Return the one effect of a tool in a run."""
        (found,) = self.effects(run_id, tool)
        return found

    def effects(self, run_id: RunId, tool: ToolName) -> list[Effect]:
        """Return the effects of a tool in a run, oldest first."""
        with self.interlock.db.reading() as tx:
            return [e for e in effects.list_for_run(tx, run_id) if e.tool == tool]

    def seen(self, effect: Effect) -> list[str]:
        """Return the kinds of evidence about an effect, in order."""
        with self.interlock.db.reading() as tx:
            return [e.kind for e in effects.list_evidence(tx, effect.effect_id)]

    def asked(self, run_id: RunId) -> Approval:
        """Return the one approval that a run waits for."""
        with self.interlock.db.reading() as tx:
            found = approvals.list_open(tx, tenant=OPS.tenant)
        (approval,) = (a for a in found if a.run_id == run_id)
        return approval

    def answer(self, run_id: RunId, answer: Literal["approve", "reject"]) -> None:
        """Answer as the approver of the desk."""
        asked, plane = self.asked(run_id), self.interlock
        approve.answer(
            plane.db,
            plane.dispatch,
            asked.approval_id,
            by=MARA,
            answer=answer,
            digest=asked.digest,
            reason="not today",
        )


@contextmanager
def at_work(config: Config, files: dict[str, str]) -> Iterator[Desk]:
    """Apply a project and work on it until the block ends."""
    clock = LeapingClock()
    interlock = Interlock.open(config, clock=clock)
    interlock.apply(files, by=OPS, diff=None)
    # Pauses are never held in memory, so that a leap of the clock ends them.
    interlock._engine._runner._hold_s = 0.0
    interlock.start()
    try:
        yield Desk(interlock=interlock, clock=clock)
    finally:
        interlock.close()
