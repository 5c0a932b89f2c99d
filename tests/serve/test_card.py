"""What people see of a plan over REST, in the console and in the terminal, and their answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from interlock.cli.commands.approvals import _print_card
from interlock.cli.run_view import print_run
from interlock.domain.canonical import JsonObject
from interlock.domain.ids import AgentName, RunId
from interlock.domain.principal import Role
from interlock.domain.release import PolicyFile
from interlock.domain.run import RunState
from interlock.domain.workflow import SeatSpec, Step
from interlock.testing.clock import ManualClock
from tests.runtime import plane as runtime
from tests.serve.plane import API, Plane, body_of, rows

PLANNER = AgentName("planner")
ASK = PolicyFile(
    path="approvals/desk.cedar",
    text="""@id("ask") @owner("it") @approval("it") @why("Issues are looked at first")
forbid (principal, action == Action::"desk.issue.create", resource);

@id("first") @owner("it") @approval("it") @why("Not the first one")
forbid (principal, action == Action::"desk.issue.retire", resource)
when { context.args.title == "issue0" };""",
)
PLAN: JsonObject = {
    "calls": [
        {"id": "look", "tool": runtime.FIND, "args": {"title": "vpn"}},
        {"id": "one", "tool": runtime.CREATE, "args": {"title": "VPN \u202edown"}},
        {"id": "two", "tool": runtime.CREATE, "args": {"title": "Mail"}, "depends_on": ["one"]},
        {"id": "end", "tool": runtime.RETIRE, "args": {"title": "call:one/id"}},
    ]
}


@contextmanager
def at_work(folder: Path, plan: JsonObject = PLAN) -> Iterator[runtime.Plane]:
    """Open a worker on the database of an installation."""
    (folder / "data").mkdir(exist_ok=True)
    url = f"sqlite:///{folder / 'data' / 'interlock.db'}"
    with runtime.open_plane(
        folder, url=url, planner=lambda _messages, _info: runtime.text(json.dumps(plan))
    ) as opened:
        yield opened


@pytest.fixture
def asked(tmp_path: Path) -> RunId:
    """A run whose plan waits for an answer."""
    spec = runtime.workflow(
        Step(name="act", plan=PLANNER, tools=(runtime.FIND, runtime.CREATE, runtime.RETIRE)),
        seats=(SeatSpec(agent=PLANNER, tools=(runtime.FIND,)),),
    )
    with at_work(tmp_path) as opened:
        opened.apply(runtime.release(spec, runtime.agent("planner"), policies=(ASK,)))
        return opened.start()


async def shown(plane: Plane, token: str, noun: str) -> JsonObject:
    """Return what REST says of something."""
    return body_of(await plane.send("GET", f"{API}/{noun}", token=token))


async def test_a_plan_is_shown_whole_and_answered_once(asked: RunId, tmp_path: Path) -> None:
    """Each approval's card holds all calls; one answer to one of them lets the plan go on."""
    with Plane(tmp_path, clock=ManualClock()) as opened:
        dana = opened.key(Role.APPROVER, name="dana", groups=["it"])
        listed = rows(await shown(opened, dana, "approvals"), "approvals")
        card = runtime.value_of(listed[0]["call"])
        planned = rows(card, "plan")
        await opened.send(
            "POST",
            f"{API}/approvals/{listed[0]['approval_id']}/answer",
            token=dana,
            body={"answer": "approve", "digest": listed[0]["digest"]},
        )
        left = rows(await shown(opened, dana, "approvals"), "approvals")
    with at_work(tmp_path) as worker:
        worker.engine.run_until_idle()
        state = worker.get(asked).state

    assert ([("look", "allow", False), ("one", "needs_approval", True)], 2) == (
        [(row["id"], row["decision"], row["is_asked"]) for row in planned[:2]],
        len(listed),
    )
    assert [("two", ["one"]), ("end", ["one"])] == [(r["id"], r["needs"]) for r in planned[2:]]
    assert "\u202e" not in str(planned)
    assert ([], RunState.SUCCEEDED) == (left, state)


async def test_a_card_of_a_plan_speaks_of_all_its_calls(tmp_path: Path) -> None:
    """The highest risk, every flag and every rule of what the answer is for, not of one call."""
    spec = runtime.workflow(
        Step(name="act", plan=PLANNER, tools=(runtime.FIND, runtime.CREATE, runtime.RETIRE)),
        seats=(SeatSpec(agent=PLANNER, tools=(runtime.FIND,)),),
    )
    known: JsonObject = {"id": "end", "tool": runtime.RETIRE, "args": {"title": "issue0"}}
    find, create, retire = runtime.TOOLS
    risky = replace(retire, risk=2, is_irreversible=True)
    with at_work(tmp_path, {"calls": [*runtime.list_of(PLAN["calls"])[:3], known]}) as opened:
        tools = (find, create, risky)
        project = runtime.release(spec, runtime.agent("planner"), tools=tools, policies=(ASK,))
        opened.apply(project)
        opened.start()
    with Plane(tmp_path, clock=ManualClock()) as opened:
        dana = opened.key(Role.APPROVER, name="dana", groups=["it"])
        listed = rows(await shown(opened, dana, "approvals"), "approvals")
        cards = [runtime.value_of(each["call"]) for each in listed if each["group"] == "it"]

    assert [("Plan of 4 calls", 2)] * 3 == [(card["heading"], card["risk"]) for card in cards]
    assert ["write", "irreversible"] == cards[0]["flags"]
    assert {
        "ask: Issues are looked at first",
        "first: Not the first one",
        "autonomy-2: Level 2: only low-risk writes run unattended",
    } == set(map(str, runtime.list_of(cards[0]["rules"])))


async def test_the_page_of_a_run_says_what_its_plan_has_done(asked: RunId, tmp_path: Path) -> None:
    """Each call with its state, and how many are how far."""
    with Plane(tmp_path, clock=ManualClock()) as opened:
        dana = opened.key(Role.APPROVER, Role.VIEWER, name="dana", groups=["it"])
        session = opened.session(dana)
        page = (await opened.send("GET", f"/runs/{asked}", headers=session)).text

    told = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    assert "Plan 1 of planner Awaiting answer 2 to come, 2 waiting" in told
    assert "end desk.issue.retire Planned decided when known" in told
    assert "takes /title from one/id" in told


async def test_the_console_shows_one_card_for_a_plan(asked: RunId, tmp_path: Path) -> None:
    """The inbox and the run have it once; the page lists the calls and binds to all of them."""
    with Plane(tmp_path, clock=ManualClock()) as opened:
        dana = opened.key(Role.APPROVER, Role.VIEWER, name="dana", groups=["it"])
        session = opened.session(dana)
        (first, _) = rows(await shown(opened, dana, "approvals?state=pending"), "approvals")
        inbox = (await opened.send("GET", "/approvals", headers=session)).text
        run = (await opened.send("GET", f"/runs/{asked}", headers=session)).text
        approval = re.findall(r'href="/approvals/([0-9a-f-]{36})"', inbox)
        page = (await opened.send("GET", f"/approvals/{approval[0]}", headers=session)).text

    assert 1 == len(set(approval)) == len(set(re.findall(r'id="ask-([0-9a-f-]{36})"', run)))
    assert 2 == page.count("your answer is for it")
    assert "Approve this plan" in page
    assert f'value="{first["digest"]}"' in page
    assert "decided when known" in page


async def test_the_terminal_shows_plans_of_runs_and_approvals(
    asked: RunId, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each call stands with its state; the answer is for those with a star."""
    with Plane(tmp_path, clock=ManualClock()) as opened:
        dana = opened.key(Role.APPROVER, Role.VIEWER, name="dana", groups=["it"])
        run = await shown(opened, dana, f"runs/{asked}")
        planned = await shown(opened, dana, f"runs/{asked}/plan")
        (approval, _) = rows(await shown(opened, dana, "approvals"), "approvals")

    print_run(run)
    told = capsys.readouterr().out
    _print_card(approval)
    card = capsys.readouterr().out

    assert "plan act/plan.1 of planner  asked  2 waiting, 2 to come" in told
    assert "· look               desk.issue.find  planned  allow" in told
    assert "◷ two                desk.issue.create  proposed  asks it  after one  undone by" in told
    assert (
        "· end                desk.issue.retire  planned  decided when known  after one"
        "  takes /title from one/id  undone by nothing"
    ) in told
    assert "VPN" not in told
    assert (run["plans"], "waiting") == (planned["plans"], planned["state"])
    assert "   * two: desk.issue.create after one (needs_approval, undone by nothing)" in card
    assert "     look: desk.issue.find (allow)" in card
