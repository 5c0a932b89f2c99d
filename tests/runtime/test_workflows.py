from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models.function import AgentInfo

from interlock.domain.budget import Budget
from interlock.domain.effect import EffectState
from interlock.domain.ids import AgentName, RunId
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.run import UNDO, Run, RunState, TriggerRef
from interlock.domain.tool import Compensation, EffectClass, Group, Source
from interlock.domain.trace import SpanStatus
from interlock.domain.workflow import Condition, FailureMode, Step, Success
from interlock.store import budgets
from tests.runtime.plane import (
    CREATE,
    FIND,
    RETIRE,
    TOOLS,
    WORKFLOW,
    Plane,
    agent,
    calls,
    list_of,
    open_plane,
    release,
    text,
    tool,
    value_of,
    workflow,
)

FINDER, SOLVER = AgentName("finder"), AgentName("solver")
LOOK = Step(name="look", tool=FIND, args={"title": "input:/title"})
MAKE = Step(name="make", tool=CREATE, args={"title": "input:/title"})
REFUSED = Step(name="refused", tool=CREATE, args={"titel": "typo"})
WAIT = Step(name="reply", wait="reply", timeout_s=3600)
UNDOABLE = tool(
    CREATE,
    Group.WRITE,
    EffectClass.BLIND,
    compensation=Compensation(tool=RETIRE, version=1, args={"title": "out:/id"}),
)


def done(_messages: list[ModelMessage], _info: AgentInfo) -> ModelResponse:
    """Answer at once."""
    return text("done")


def prompts(into: list[str]) -> list[str]:
    """Return prompts without the spaces of their layout."""
    return ["".join(prompt.split()) for prompt in into]


def test_steps_run_in_order_and_hand_on_their_outputs(tmp_path: Path) -> None:
    """A template points at the run's input and at the outputs of earlier steps."""
    second = Step(name="make", tool=CREATE, args={"title": "step:look/found"})
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(LOOK, second)))

        run = plane.get(plane.start())

        assert (RunState.SUCCEEDED, "done") == (run.state, run.end_state)
        assert {"look": {"found": "vpn"}, "make": {"id": "issue1"}} == run.output


def test_a_step_whose_condition_does_not_hold_is_skipped(tmp_path: Path) -> None:
    """Conditions compare JSON values; a pointer that finds nothing does not hold."""
    conditions = {
        "equal": Condition(at="input:/title", equals="vpn"),
        "among": Condition(at="input:/title", is_in=("mail", "vpn")),
        "other": Condition(at="input:/title", equals="mail"),
        "absent": Condition(at="input:/nothing", equals=None),
    }
    steps = [
        Step(name=name, tool=FIND, args={"title": name}, when=(condition,))
        for name, condition in conditions.items()
    ]
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(*steps)))

        run = plane.get(plane.start())

        assert ["equal", "among"] == plane.desk.asked
        assert {"other": None, "absent": None}.items() <= value_of(run.output).items()


def test_the_end_state_may_come_from_a_step(tmp_path: Path) -> None:
    """The declared end state is a template, and unknown if what it names is not there."""
    named = Success(end_state="step:look/found", end_states=("vpn",), objective=0.9, within_s=60)
    missing = Success(end_state="step:look/no", end_states=("vpn",), objective=0.9, within_s=60)
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(LOOK, success=named)))
        first = plane.get(plane.start())
        plane.apply(release(workflow(LOOK, success=missing)))
        second = plane.get(plane.start())

        assert ("vpn", None) == (first.end_state, second.end_state)


def test_a_run_stays_with_its_release(tmp_path: Path) -> None:
    """A workflow that changes while a run waits does not change the run."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT, LOOK)))
        run_id = plane.start()
        plane.apply(release(workflow(WAIT)))

        plane.signal(run_id, "reply", "yes")

        assert {"reply": "yes", "look": {"found": "vpn"}} == plane.get(run_id).output


def test_a_hand_off_is_a_child_run_with_the_whole_chain_of_seats(tmp_path: Path) -> None:
    """Every seat of the chain has to be allowed: no child may do more than its parent."""
    handoff = Step(name="solve", handoff=SOLVER, handed_by=FINDER, input={"t": "input:/title"})
    seen: list[str] = []

    def solver(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        if len(messages) > 1:
            return text("solved")
        seen.append(str(messages[0].parts[0].content))  # type: ignore[union-attr]  # a prompt
        return calls((FIND, {"title": "vpn"}))

    with open_plane(tmp_path, finder=done, solver=solver) as plane:
        spec = workflow(Step(name="find", agent=FINDER), handoff)
        plane.apply(release(spec, agent("finder"), agent("solver")))

        run = plane.get(plane.start())
        child = plane.child(run.run_id)

        chain = tuple(Seat(workflow=WORKFLOW, agent=name) for name in (FINDER, SOLVER))
        assert {"find": "done", "solve": "solved"} == run.output
        assert ['{"t":"vpn"}'] == prompts(seen)
        assert (chain, chain, 1) == (
            child.request.seats,
            child.request.deciding,
            child.request.depth,
        )
        assert [chain] == [effect.seats for effect in plane.effects(child.run_id)]
        assert child.run_id == plane.spans(run.run_id)["solve"].attributes["interlock.child.run_id"]


def test_rights_own_asks_policy_for_the_child_seat_alone(tmp_path: Path) -> None:
    """Only a hand-off that declares it counts the child's seat alone."""
    handoff = Step(name="solve", handoff=SOLVER, handed_by=FINDER, rights="own")
    with open_plane(tmp_path, finder=done, solver=done) as plane:
        plane.apply(release(workflow(handoff), agent("finder"), agent("solver")))

        child = plane.child(plane.start())

        assert (Seat(workflow=WORKFLOW, agent=SOLVER),) == child.request.deciding
        assert 2 == len(child.request.seats)


def test_a_childs_labels_join_its_parents(tmp_path: Path) -> None:
    """What a child has read binds the parent too, and children start with the parent's labels."""
    sensitive = tool(
        FIND,
        Group.READ,
        EffectClass.READ,
        source=Source(labels=frozenset({"pii"}), is_trusted=False),
    )

    def solver(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return text("done") if len(messages) > 1 else calls((FIND, {"title": "vpn"}))

    with open_plane(tmp_path, solver=solver, finder=done) as plane:
        spec = workflow(Step(name="solve", handoff=SOLVER), Step(name="next", handoff=FINDER))
        agents = (agent("solver"), agent("finder"))
        plane.apply(release(spec, *agents, tools=(sensitive, *TOOLS[1:])))

        run = plane.get(plane.start())

        read = Labels(names=frozenset({"pii"}), is_untrusted=True)
        assert read == run.labels
        assert [read, read] == [child.labels for child in plane.children(run.run_id)]


def test_a_failing_child_fails_the_step_with_its_code(tmp_path: Path) -> None:
    """A failure mode of the parent can match what went wrong in the child."""
    modes = (FailureMode(code="agent.", then="end", end="handed_to_people"),)

    def solver(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        return calls((FIND, {"title": "vpn"}))

    with open_plane(tmp_path, solver=solver) as plane:
        spec = workflow(Step(name="solve", handoff=SOLVER), failure_modes=modes)
        plane.apply(release(spec, agent("solver")))

        run = plane.get(plane.start())

        assert (RunState.SUCCEEDED, "handed_to_people") == (run.state, run.end_state)
        assert RunState.FAILED is plane.child(run.run_id).state


def test_a_shared_output_is_read_from_the_blackboard(tmp_path: Path) -> None:
    """What one step publishes, a later one is given by its key."""
    steps = (
        Step(name="look", tool=FIND, args={"title": "input:/title"}, share="ticket"),
        Step(
            name="make",
            tool=CREATE,
            args={"title": "shared:ticket/found"},
            when=(Condition(at="shared:ticket/found", equals="vpn"),),
        ),
    )
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(*steps)))

        plane.start()

        assert ["vpn"] == plane.desk.titles


def test_a_wait_ends_with_its_signal(tmp_path: Path) -> None:
    """The value that is sent is the step's output."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT)))
        run_id = plane.start()
        waiting = plane.get(run_id).state

        plane.signal(run_id, "reply", {"answer": 42})

        assert RunState.WAITING is waiting
        assert {"reply": {"answer": 42}} == plane.get(run_id).output


def test_a_wait_that_expires_fails_the_step(tmp_path: Path) -> None:
    """Nobody is waited for longer than declared."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT)))
        run_id = plane.start()

        plane.engine.advance(3601)

        run = plane.get(run_id)
        assert (RunState.FAILED, "wait.expired") == (run.state, run.error_code)


def test_a_wait_ends_at_the_deadline_of_the_run(tmp_path: Path) -> None:
    """A wait without a time of its own does not outlast the run."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(Step(name="reply", wait="reply"), deadline_s=60)))
        run_id = plane.start()

        plane.engine.advance(60)

        assert "wait.expired" == plane.get(run_id).error_code


def test_a_step_after_the_deadline_is_not_run(tmp_path: Path) -> None:
    """A run that is late takes the failure mode of `run.deadline`."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(MAKE, deadline_s=60)))
        run_id = plane.queue()

        plane.engine.advance(61)

        assert "run.deadline" == plane.get(run_id).error_code
        assert [] == plane.desk.titles


def test_stop_lists_the_effects_that_stand(tmp_path: Path) -> None:
    """A run that stops ends failed and says what it leaves behind."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(MAKE, REFUSED)))

        run = plane.get(plane.start())

        assert (RunState.FAILED, "contract.violated") == (run.state, run.error_code)
        assert "step `refused` failed" in (run.error_message or "")
        assert 1 == len(list_of(value_of(run.output)["effects"]))
        standing = value_of(list_of(value_of(run.output)["effects"])[0])
        assert (CREATE, "succeeded") == (standing["tool"], standing["state"])


def test_compensation_undoes_in_reverse_and_the_run_fails(tmp_path: Path) -> None:
    """Each undo is an effect of its own; the latest write is undone first."""
    modes = (FailureMode(code="*", then="compensate"),)
    again = Step(name="again", tool=CREATE, args={"title": "mail"})
    with open_plane(tmp_path) as plane:
        spec = workflow(MAKE, again, REFUSED, failure_modes=modes)
        plane.apply(release(spec, tools=(TOOLS[0], UNDOABLE, TOOLS[2])))

        run = plane.get(plane.start())

        assert RunState.FAILED is run.state
        assert ["issue2", "issue1"] == plane.desk.retired
        states = [effect.state for effect in plane.effects(run.run_id) if effect.tool == CREATE]
        assert 2 == states.count(EffectState.COMPENSATED)


def test_an_empty_budget_blocks_no_undo(tmp_path: Path) -> None:
    """Two writes are all that may be called; both are undone, and counted."""
    modes = (FailureMode(code="*", then="compensate"),)
    again = Step(name="again", tool=CREATE, args={"title": "mail"})
    third = Step(name="third", tool=CREATE, args={"title": "one too many"})
    budget = Budget(
        name="calls",
        title="Calls",
        scope="department",
        of="it",
        period="day",
        unit="calls",
        limit=2,
    )
    with open_plane(tmp_path) as plane:
        spec = workflow(MAKE, again, third, failure_modes=modes)
        made = release(spec, tools=(TOOLS[0], UNDOABLE, TOOLS[2]))
        plane.apply(replace(made, budgets={"calls": budget}))

        run = plane.get(plane.start())

        assert (RunState.FAILED, "budget.spent") == (run.state, run.error_code)
        assert ["issue2", "issue1"] == plane.desk.retired
        with plane.db.reading() as tx:
            assert {"calls": (4, 0)} == budgets.totals(tx)


def test_an_ended_run_can_be_undone_by_a_run_of_its_own(tmp_path: Path) -> None:
    """The undo walks no step; what cannot be undone makes it fail and is listed."""
    again = Step(name="again", tool=RETIRE, args={"title": "mail"})
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(MAKE), tools=(TOOLS[0], UNDOABLE, TOOLS[2])))
        whole = undo(plane, plane.start())
        plane.apply(release(workflow(MAKE, again), tools=(TOOLS[0], UNDOABLE, TOOLS[2])))
        part = undo(plane, plane.start())

        assert (RunState.SUCCEEDED, "undone") == (whole.state, whole.end_state)
        assert (RunState.FAILED, "undo.incomplete") == (part.state, part.error_code)
        assert ["issue1", "mail", "issue2"] == plane.desk.retired
        assert ["vpn", "vpn"] == plane.desk.titles


def test_another_step_may_take_over(tmp_path: Path) -> None:
    """The target runs in no other case, is told what failed, and the declared state is reached."""
    modes = (FailureMode(code="contract.", then="step", target="tell", end="told"),)
    tell = Step(name="tell", tool=FIND, args={"title": "failure:/code"})
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(REFUSED, tell, failure_modes=modes)))
        failed = plane.get(plane.start())
        plane.apply(release(workflow(LOOK, tell, failure_modes=modes)))
        plane.start()

        assert (RunState.SUCCEEDED, "told") == (failed.state, failed.end_state)
        assert ["contract.violated", "vpn"] == plane.desk.asked


def test_a_fallback_that_fails_too_ends_the_run(tmp_path: Path) -> None:
    """There is no fallback of a fallback."""
    modes = (FailureMode(code="*", then="step", target="worse", end="told"),)
    worse = Step(name="worse", tool=FIND, args={"titel": "typo"})
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(REFUSED, worse, failure_modes=modes)))

        run = plane.get(plane.start())

        assert RunState.FAILED is run.state
        assert "its fallback `worse` failed too" in (run.error_message or "")
        assert SpanStatus.ERROR is plane.spans(run.run_id)["worse"].status


def test_the_first_mode_that_matches_is_taken_and_shown(tmp_path: Path) -> None:
    """Modes match by the start of the code, in order; the trace says which one took over."""
    modes = (
        FailureMode(code="policy.", then="stop"),
        FailureMode(code="contract.", then="end", end="asked"),
        FailureMode(code="*", then="compensate"),
    )
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(REFUSED, failure_modes=modes)))

        run = plane.get(plane.start())
        taken = plane.spans(run.run_id)["refused#fallback"]

        assert "asked" == run.end_state
        assert ("fallback end", "contract.", "contract.violated") == (
            taken.name,
            taken.attributes["interlock.fallback.mode"],
            taken.attributes["interlock.fallback.code"],
        )


def test_a_draft_lets_the_workflow_go_on(tmp_path: Path) -> None:
    """At level 0 a run shows what it would do: its writes are drafts without an output."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(MAKE, LOOK, autonomy={})))

        run = plane.get(plane.start())

        assert {"make": None, "look": {"found": "vpn"}} == run.output
        assert [] == plane.desk.titles


def test_a_template_that_finds_nothing_fails_the_step(tmp_path: Path) -> None:
    """The whole argument is missing, and the code says that the input is at fault."""
    step = Step(name="look", tool=FIND, args="input:/nothing")
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(step)))

        run = plane.get(plane.start())

        assert (RunState.FAILED, "input.invalid") == (run.state, run.error_code)


def test_an_agent_that_the_release_lacks_fails_the_step(tmp_path: Path) -> None:
    """The code names the cause."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(Step(name="solve", agent=SOLVER))))

        assert "agent.unknown" == plane.get(plane.start()).error_code


def test_the_trace_is_closed_when_a_run_ends(tmp_path: Path) -> None:
    """The root span ends with the run, with its end state."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(LOOK)))

        root = plane.spans(plane.start())["run"]

        assert (SpanStatus.OK, "done") == (root.status, root.attributes["interlock.end_state"])
        assert root.end_us is not None


def test_cancelling_a_run_closes_its_open_spans(tmp_path: Path) -> None:
    """A cancelled run has no span that looks as if it were still going on."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT)))
        run_id = plane.start()

        cancel(plane, run_id)

        assert RunState.CANCELLED is plane.get(run_id).state
        assert [] == [span.key for span in plane.spans(run_id).values() if span.end_us is None]


def test_a_run_cancelled_before_it_began_has_a_root_span(tmp_path: Path) -> None:
    """Every ended run can be shown."""
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(WAIT)))
        run_id = plane.queue()

        cancel(plane, run_id)

        assert ["run"] == [*plane.spans(run_id)]


def test_replay_after_a_failure_takes_the_same_fallback(tmp_path: Path) -> None:
    """A fallback that waits goes on where it was, by the mode that was recorded."""
    target = Step(name="tell", wait="told")
    modes = (FailureMode(code="*", then="step", target="tell", end="told"),)
    with open_plane(tmp_path) as plane:
        plane.apply(release(workflow(MAKE, REFUSED, target, failure_modes=modes)))
        run_id = plane.start()

        plane.signal(run_id, "told", "yes")

        run = plane.get(run_id)
        assert (RunState.SUCCEEDED, "told") == (run.state, run.end_state)
        assert ["vpn"] == plane.desk.titles


def cancel(plane: Plane, run_id: RunId) -> None:
    """Cancel a run and let it end."""
    plane.db.run("cancel", lambda tx: plane.engine.dispatch.cancel(tx, run_id))
    plane.engine.run_until_idle()


def undo(plane: Plane, run_id: RunId) -> Run:
    """Undo an ended run and return the run that did it."""
    ended = plane.get(run_id)
    request = replace(
        ended.request,
        trigger=TriggerRef(kind=UNDO, source="undo", key=run_id),
        input={"run_id": run_id},
        parent_id=run_id,
        depth=1,
    )
    start = plane.engine.dispatch.start
    undo_id, _ = plane.db.run("undo", lambda tx: start(tx, request, body_digest="same"))
    plane.engine.run_until_idle()
    return plane.get(undo_id)
