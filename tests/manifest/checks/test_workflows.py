from __future__ import annotations

import pytest

from interlock.domain.ids import WorkflowName
from interlock.manifest.load import load
from interlock.testing.recorder_project import session_files
from tests.manifest.sample import FILES, changed, problems

PATH = "workflows/triage.yaml"
HOOK = "    webhook: tracker\n    secret: secret://desk/dev/hook\n"


@pytest.mark.parametrize("key", ["triggers", "inputs", "approvals", "fallbacks", "success"])
def test_workflow_without_a_declaration_is_refused(key: str) -> None:
    """Trigger, inputs, approvals, fallbacks and success criteria are never taken for granted."""
    files = changed(PATH, f"\n{key}:", f"\nno_{key}:")

    assert f"{PATH}:1: `{key}` is missing" in {
        problem.partition(" (")[0] for problem in problems(files)
    }


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("owner: owners", "owner: owner", "there is no team `owner` (did you mean `owners`?)"),
        ("clerk: {tools", "klerk: {tools", "there is no agent `klerk` (did you mean `clerk`?)"),
        ("[desk.issue.find, desk", "[desk.issue.fnd, desk", "there is no tool `desk.issue.fnd`"),
        ("    secret: secret://desk/dev/hook\n", "", "a webhook trigger needs `secret`"),
        ("/dev/hook", "/prod/hook", "the secret is not one of `dev`"),
        ('"0 3 * * *"', '"0 25 * * *"', "`0 25 * * *` is not a schedule"),
        ("Europe/Berlin", "Europe/Bärlin", "there is no time zone `Europe/Bärlin`"),
        ('{ref: "tick:/at"}', '{ref: "body:/at"}', "`body:` means nothing here"),
        ('{ref: "tick:/at"}', '{rf: "tick:/at"}', "the input contract has no `rf`"),
        ('{ref: "tick:/at"}', "{}", "the input contract needs `ref`"),
        ('at: "body:/type"', 'at: "input:/type"', "`input:` means nothing here"),
        ("name: work", "name: look", "there are two steps `look`"),
        ("tool: desk.issue.find, args", "agent: clerk, args", "`args` belongs to `tool`"),
        (
            "agent: clerk, input",
            "agent: clerk, tool: desk.issue.find, input",
            "`handoff`, `tool`, `wait` and `plan` (this one has agent and tool)",
        ),
        ("agent: clerk, input", "agent: boss, input", "the agent `boss` has no seat"),
        ("agent: clerk, input", "handoff: clerk, input", "`handoff` and `handed_by` go together"),
        (", timeout_s: 60", "", "`wait` and `timeout_s` go together"),
        ("\nsteps:", '\nlock: {key: "input:/rf"}\nsteps:', "there is nothing at `input:/rf`"),
        ('{ref: "input:/ref"}, share', '{ref: "input:/rf"}, share', "nothing at `input:/rf`"),
        ('{ref: "input:/ref"}, share', "{}, share", "`desk.issue.find` needs the argument `ref`"),
        ('"shared:seen/found"', '"shared:sen/found"', "there is nothing at `shared:/sen/found`"),
        ('"shared:seen/found"', '"step:work/x"', "there is nothing at `step:"),
        ('"step:work/outcome", eq', '"step:work/outcom", eq', "there is nothing at `step:"),
        ("\ntools: [desk.issue.find]", "\ntools: []", "not among the `tools` of this workflow"),
        (
            "[desk.issue.find, desk.issue.create]",
            "[desk.issue.create]",
            "the seat `clerk` lacks `desk.issue.find`, which finds `desk.issue.create`",
        ),
        ("by_hand: {manual: true}", "by_hand: {manual: true, environment: prod}", "not bound in"),
        ("by: owners", "by: owner", "there is no team `owner` (did you mean `owners`?)"),
        ("tool: desk.issue.create\n", "tool: desk.issue.close\n", "no seat of this workflow has"),
        ('at: "in:/title"', 'at: "in:/titel"', "there is nothing at `in:/titel`"),
        ('one_of: ["a", "b"]', "one_of: [1.5]", "a rule compares texts, integers and Booleans"),
        ('{code: "*", then: stop}', '{code: "x", then: stop}', "the last fallback must be for `*`"),
        ('code: "model."', 'code: "*"', "an earlier fallback always comes before `*`"),
        ("then: end, end: handed_over", "then: end", "`end` is the end state of"),
        ("then: end, end: h", "then: step, target: nope, end: h", "there is no step `nope`"),
        ('"step:work/outcome", counts', '"shared:seen", counts', "`shared:` means nothing here"),
        ("{dev: {level", "{prod: {level", "level 2 cannot be declared for `prod`"),
    ],
)
def test_workflow_that_cannot_work_is_refused(old: str, new: str, expected: str) -> None:
    """Each thing that would only fail at run time is found when the project loads."""
    found = problems(changed(PATH, old, new))

    assert [problem for problem in found if expected in problem], found


def test_grave_tool_without_an_approver_is_refused() -> None:
    """Who approves a risky tool has to be declared."""
    text = FILES[PATH]
    start, end = text.index("approvals:"), text.index("fallbacks:")
    files = {**FILES, PATH: text[:start] + "approvals: []\n" + text[end:]}

    assert [
        (
            f"{PATH}:24: nobody is declared to approve `desk.issue.create`, whose risk is 2 "
            "(add a rule for `desk.issue.create`, by whom and why)"
        )
    ] == problems(files)


def test_hand_off_attenuates_or_says_that_it_does_not() -> None:
    """An agent that is handed work by one with less rights needs `rights: own`."""
    boss = FILES["agents/clerk.yaml"].replace("name: clerk", "name: boss")
    step = "  - {name: work, handoff: clerk, handed_by: boss}\n  - {name: ask, agent: boss}"
    text = FILES[PATH].replace(
        '  - {name: work, agent: clerk, input: {seen: "shared:seen/found"}}', step
    )
    text = text.replace("agents:\n", "agents:\n  boss: {tools: [desk.issue.find]}\n")
    files = {**FILES, "agents/boss.yaml": boss, PATH: text}

    found = problems(files)

    assert [
        (
            f"{PATH}:23: `boss` may not use `desk.issue.create`, so neither may who it hands to "
            "(give both the tool, or declare `rights: own`)"
        )
    ] == found
    load({**files, PATH: text.replace("handed_by: boss", "handed_by: boss, rights: own")})


def test_one_webhook_source_has_one_secret() -> None:
    """Two workflows may listen to one source, if they trust the same signature."""
    other = FILES[PATH].replace("name: triage", "name: other").replace("dev/hook", "dev/else")

    found = problems({**FILES, "workflows/zother.yaml": other})

    assert [
        (
            f"{PATH}:11: the webhook `tracker` has another secret in another trigger "
            "(one source has one secret)"
        )
    ] == [problem for problem in found if "secret" in problem]


PLANNED = """  - name: act
    plan: planner
    tools: [desk.issue.find, desk.issue.create]
    under: clerk
    input: {seen: "shared:seen/found"}
  - {name: talk, agent: clerk}"""


def planning(**changes: str) -> dict[str, str]:
    """Return the project with a step that plans, and texts replaced in workflow and planner."""
    planner = FILES["agents/clerk.yaml"].replace("name: clerk", "name: planner")
    planner = planner[: planner.index("output:")]
    text = FILES[PATH].replace(
        '  - {name: work, agent: clerk, input: {seen: "shared:seen/found"}}', PLANNED
    )
    text = text.replace("agents:\n", "agents:\n  planner: {tools: [desk.issue.find]}\n")
    text = text.replace("step:work/outcome", "step:talk/outcome")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    return {**FILES, "agents/planner.yaml": planner, PATH: text}


def test_a_step_may_plan() -> None:
    """Its planner, the tools of the plan and the seat of its calls are declared."""
    step = load(planning()).workflows[WorkflowName("triage")].step("act")

    assert ("planner", ("desk.issue.find", "desk.issue.create"), "clerk") == (
        step.plan,
        step.tools,
        step.under,
    )


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("plan: planner", "plan: boss", "the agent `boss` has no seat in this workflow"),
        ("under: clerk", "under: boss", "the agent `boss` has no seat in this workflow"),
        ("under: clerk", "under: planner", "calls cannot run under the seat of their planner"),
        ("    under: clerk\n", "", "the seat `workflow` lacks `desk.issue.create`"),
        ("    tools: [desk.issue.find, desk.issue.create]\n", "", "a plan needs `tools`"),
        ("planner: {tools: [desk.issue.find]}", "planner: {tools: [desk.issue.create]}", "writes"),
        ("{name: talk,", "{name: talk, tools: [desk.issue.find],", "belong to `plan`"),
        ("step:talk/outcome", "step:act/call", "there is nothing at `step:/act/call`"),
    ],
)
def test_a_plan_that_could_never_be_made_is_refused(old: str, new: str, expected: str) -> None:
    """A planner reads only, and the seat of the calls has what the plan may use."""
    found = problems(planning(**{old: new}))

    assert [problem for problem in found if expected in problem], found


def test_a_planner_has_no_contract_of_its_own() -> None:
    """Its answer is a plan."""
    output = "output: {type: object}\n"
    files = planning()
    files["agents/planner.yaml"] += output

    (found,) = problems(files)

    assert "the answer of the planner `planner` is a plan, but it declares `output`" in found


@pytest.mark.parametrize(
    ("queue", "expected"),
    [
        ("url: http://mq, name: orders", "the address of the broker is not usable"),
        ("url: 'nats://', name: orders", "the address of the broker is not usable"),
        ("url: 'nats://mq:no', name: orders", "the address of the broker is not usable"),
        ("url: 'nats://u:p@mq', name: orders", "holds more than host, port and path"),
        ("url: 'amqp://mq?heartbeat=1', name: orders", "holds more than host, port and path"),
        (
            "url: nats://mq, name: orders, secret: secret://mq/prod/in",
            "the secret is not one of `dev`",
        ),
        (
            "url: redis://mq, name: orders, dead_letter: orders",
            "the dead letters would be taken as messages again",
        ),
        (
            "url: nats://mq, name: 'orders.*', dead_letter: orders.dead",
            "the dead letters would be taken as messages again",
        ),
    ],
)
def test_a_queue_that_cannot_be_read_is_refused(queue: str, expected: str) -> None:
    """Before it is applied, with what to write instead."""
    files = changed(PATH, HOOK, f"    queue: {{{queue}}}\n")

    assert any(expected in problem for problem in problems(files))


def test_a_queue_beyond_dev_has_tls() -> None:
    """What comes over the network is what was sent, and from whom we asked."""
    files = changed(
        PATH, HOOK, "    queue: {url: redis://mq, name: orders}\n    environment: prod\n"
    )

    assert any("write rediss://" in problem for problem in problems(files))


def test_one_queue_is_declared_in_one_way() -> None:
    """Two triggers of a queue cannot disagree on what makes messages the same."""
    by_hand = "  by_hand: {manual: true}\n"
    other = '  more: {queue: {url: nats://mq, name: orders, dedupe: "body:/id"}}\n'
    files = changed(PATH, HOOK, "    queue: {url: nats://mq, name: orders}\n")
    files[PATH] = files[PATH].replace(by_hand, by_hand + other)

    message = "`nats://mq/orders#interlock` is declared in another way in another trigger"
    assert any(message in problem for problem in problems(files))


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        ("agents/helper.yaml", "outside: true", "instructions: x", "runs here, so nobody opens"),
        ("agents/helper.yaml", "outside: true", "outside: false", "`instructions` is missing"),
        ("agents/helper.yaml", "outside: true", "outside: true\nmodel: x", "has its `model` there"),
        (
            "agents/helper.yaml",
            "outside: true",
            "instructions: x\nmodels: [small]",
            "`models` is for an agent that runs outside",
        ),
        ("workflows/outside.yaml", "session: helper", "session: nobody", "has no seat in this"),
        (
            "workflows/outside.yaml",
            "session: helper",
            "manual: true",
            "a workflow has `steps`, unless all its triggers are sessions",
        ),
        (
            "workflows/outside.yaml",
            "approvals: []",
            "approvals: []\nsteps: [{name: a, agent: helper}]",
            "runs outside and takes no step",
        ),
        (
            "workflows/outside.yaml",
            "approvals: []",
            "approvals: []\nsteps: [{name: a, wait: go, timeout_s: 1}]",
            "no trigger starts these steps",
        ),
        (
            "workflows/outside.yaml",
            "session: helper,",
            'session: helper, input: {a: "body:/a"},',
            "a session takes neither `input` nor `when`",
        ),
        (
            "workflows/outside.yaml",
            "additionalProperties: false}",
            "additionalProperties: false, required: [a], properties: {a: {type: string}}}",
            "the input contract needs `a`",
        ),
    ],
)
def test_session_that_cannot_work_is_refused(path: str, old: str, new: str, expected: str) -> None:
    """An outside agent has a door and no steps, and runs nowhere here."""
    files = session_files("http://127.0.0.1:9")
    assert old in files[path]
    found = problems({**files, path: files[path].replace(old, new, 1)})

    assert [problem for problem in found if expected in problem], found
