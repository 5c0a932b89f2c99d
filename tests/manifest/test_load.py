from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.ids import AgentName, ToolName, WorkflowName
from interlock.domain.record import from_json, object_to_json
from interlock.domain.release import Release
from interlock.domain.tool import EffectClass, Group, HttpRequest, Probe, Rate, Server, Source
from interlock.domain.workflow import ApprovalRule, Concurrency, Condition, Lock, Queue, Trigger
from interlock.manifest.load import load
from interlock.tools.discover import from_functions
from interlock.tools.functions import python_function
from tests.manifest.sample import (
    CREATE,
    FILES,
    FIND,
    FIND_2,
    FIND_IN_PROD,
    TWO_VERSIONS,
    changed,
    problems,
)

TRIAGE, CLERK = WorkflowName("triage"), AgentName("clerk")
CREATE_TOOL, FIND_TOOL = ToolName("desk.issue.create"), ToolName("desk.issue.find")


def test_friendly_keys_become_domain_values() -> None:
    """A tool file says in its own words what the domain calls otherwise."""
    tool = load(FILES).tools[CREATE_TOOL]

    assert (Group.WRITE, EffectClass.PROBED, 2) == (
        tool.group,
        tool.effect.effect_class,
        tool.version,
    )
    assert HttpRequest(
        method="POST", path="/issues", body={"title": "in:/title", "ref": "effect:id"}
    ) == (tool.request)
    assert Source(labels=frozenset({"pii"}), is_trusted=False) == tool.source
    assert (
        Probe(tool=FIND_TOOL, version=1, args={"ref": "effect:id"}, found="out:/found", lag_s=1.0)
        == tool.effect.probe
    )
    assert ["ref"] == load(FILES).tools[FIND_TOOL].input_schema["required"]


def test_workflow_and_agent_are_read() -> None:
    """Triggers, approvals and the instructions' file arrive in the release."""
    release = load(FILES)

    spec = release.workflows[TRIAGE]
    nightly = Trigger(
        name="nightly",
        kind="cron",
        schedule="0 3 * * *",
        timezone="Europe/Berlin",
        input={"ref": "tick:/at"},
    )
    rule = ApprovalRule(
        tool=CREATE_TOOL,
        group="owners",
        why="Only known issues",
        when=(Condition(at="in:/title", is_in=("a", "b")),),
    )
    assert nightly == spec.triggers[1]
    assert (rule,) == spec.approvals
    assert "You are the clerk." == release.agents[CLERK].instructions


def test_release_survives_its_json_form() -> None:
    """What is stored is what was loaded."""
    release = load(FILES)

    assert release == from_json(Release, object_to_json(release))


def test_declared_approvals_are_enforced_as_policies() -> None:
    """Who approves what becomes an approval policy of the release, conditions included."""
    policies = {file.path: file.text for file in load(FILES).policies}

    assert (
        '@id("workflow.triage.approval.1")\n@approval("owners")\n@why("Only known issues")\n'
        'forbid (principal in Workflow::"triage", action == Action::"desk.issue.create", '
        'resource)\nwhen { context.args has "title" && (context.args["title"] == "a" || '
        'context.args["title"] == "b") };\n'
    ) == policies["approvals/workflow.triage.cedar"]


def test_all_problems_of_all_files_are_reported_together() -> None:
    """One load names every file and line that has to be mended."""
    files = {
        **changed("tools/create.yaml", "risk: 2", "risc: 2"),
        "servers/dev.yaml": "kind: Server\nname: [\n",
        "systems/desk.yaml": "interlock: v1\nkind: Sistem\n",
        "agents/clerk.yaml": FILES["agents/clerk.yaml"].replace("owner: it", "owner: itt"),
    }

    assert [
        "agents/clerk.yaml:6: there is no team `itt` (did you mean `it`?)",
        "servers/dev.yaml:3: is not YAML: expected the node content, but found '<stream end>'",
        "systems/desk.yaml:2: there is no kind `Sistem` (did you mean `System`?)",
        "tools/create.yaml:10: unknown key `risc` (did you mean `risk`?)",
    ] == [problem for problem in problems(files) if "there is no system" not in problem][:4]


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        (
            "tools/create.yaml",
            "class: probed",
            "class: prob",
            (
                "tools/create.yaml:24: `effect.class` should be 'read', 'keyed', 'conditional', "
                "'probed' or 'blind', got `prob` (did you mean `probed`?)"
            ),
        ),
        (
            "tools/create.yaml",
            "version: 2",
            'version: "2"',
            "tools/create.yaml:4: `version` should be a valid integer, got `2`",
        ),
        (
            "workflows/triage.yaml",
            "{name: look",
            "{name: Look",
            (
                "workflows/triage.yaml:21: `steps.0.name` should be lower case letters and digits, "
                "words joined by `_`, got `Look`"
            ),
        ),
        (
            "agents/clerk.yaml",
            "sponsor: ann",
            "sponsor: Ann Smith",
            (
                "agents/clerk.yaml:7: `sponsor` should be a name as keys have it: lower case "
                "letters, digits, `.`, `_`, `@`, `-`, got `Ann Smith`"
            ),
        ),
        (
            "tools/create.yaml",
            '"secret://desk/dev/bot"',
            "hunter2",
            (
                "tools/create.yaml:31: `environments.dev.credentials` should be "
                "secret://<system>/<environment>/<name>; a value never stands here"
            ),
        ),
        (
            "tools/create.yaml",
            '"secret://desk/dev/bot"',
            "{triage: hunter2}",
            (
                "tools/create.yaml:31: `environments.dev.credentials` should be "
                "secret://<system>/<environment>/<name>; a value never stands here"
            ),
        ),
        (
            "tools/create.yaml",
            '"secret://desk/dev/bot"',
            "[hunter2]",
            (
                "tools/create.yaml:31: `environments.dev.credentials` should be one reference, "
                "or one for each workflow that may use the tool"
            ),
        ),
        (
            "tools/create.yaml",
            "  dev: {server",
            "  test: {server",
            (
                "tools/create.yaml:31: `environments.test` should be 'dev', 'stage' or 'prod', "
                "got `test`"
            ),
        ),
        (
            "tools/create.yaml",
            "contract:\n",
            "contract:\n  limits: {response_bytes: 1000001}\n",
            (
                "tools/create.yaml:17: `contract.limits.response_bytes` should be less than or "
                "equal to 1000000, got `1000001`"
            ),
        ),
        (
            "workflows/triage.yaml",
            "department: it\n",
            "",
            "workflows/triage.yaml:1: `department` is missing",
        ),
        (
            "agents/clerk.yaml",
            "agents/clerk.md",
            "agents/klerk.md",
            "agents/clerk.yaml:8: there is no text in `agents/klerk.md`",
        ),
        (
            "tools/find.yaml",
            "schemas/find.json",
            "schemas/fnd.json",
            (
                "tools/find.yaml:13: there is no file `schemas/fnd.json` "
                "(did you mean `schemas/find.json`?)"
            ),
        ),
        (
            "schemas/find.json",
            '"required"',
            '"type"',
            "schemas/find.json: the keys `type` and `type` are the same key",
        ),
        (
            "policies/grants/desk.cedar",
            'Workflow::"triage"',
            'Workflow::"triaje"',
            "policies/grants/desk.cedar:1: there is no workflow `triaje` (did you mean `triage`?)",
        ),
        (
            "workflows/triage.yaml",
            "by_hand: {manual: true}",
            "by_hand: {manual: true, cron: x}",
            (
                "workflows/triage.yaml:15:"
                " a trigger has exactly one of `webhook`, `queue`, `cron`, `manual` and `session`"
            ),
        ),
        (
            "tools/find.yaml",
            "request:",
            "function: find #",
            "tools/find.yaml:10: a tool with `connector: http` has `request` (drop `function`)",
        ),
    ],
)
def test_problem_names_file_line_and_fix(path: str, old: str, new: str, expected: str) -> None:
    """A mistake in one place is reported once, at that place, with the way to mend it."""
    assert [expected] == problems(changed(path, old, new))


def test_definition_is_declared_once() -> None:
    """The same name in two files is a problem of the second."""
    files = {**FILES, "tools/other.yaml": FIND}

    assert [
        "tools/other.yaml:3: `desk.issue.find@1` is declared in tools/find.yaml already"
    ] == problems(files)


def test_highest_version_is_live_and_others_are_kept() -> None:
    """Two versions of a tool may stand in the project; the higher one is live."""
    older = CREATE.replace("version: 2", "version: 1")

    release = load({**FILES, "tools/create_1.yaml": older})

    assert 2 == release.tools[CREATE_TOOL].version
    assert {"desk.issue.create@1"} == set(release.old_tools)


def test_each_environment_has_the_newest_version_that_is_bound_there() -> None:
    """The second version in `dev`, the first in `prod`, until that is past."""
    texts = {**FILES, **TWO_VERSIONS}
    past = FIND_IN_PROD.replace('/prod/bot"}', '/prod/bot", past: true}')

    found = [
        {place: tool.version for place, tool in load(each).every_live(FIND_TOOL).items()}
        for each in (texts, {**texts, "tools/find.yaml": past})
    ]

    assert [{"dev": 2, "prod": 1}, {"dev": 2}] == found
    binding = load({**texts, "tools/find.yaml": past})
    first = binding.tool_version(FIND_TOOL, 1)
    assert first is not None
    assert binding.bind(first, "prod") is not None


def test_going_back_to_an_older_version_lifts_no_quarantine() -> None:
    """It was reviewed against what its server said even earlier."""
    texts = {**FILES, **TWO_VERSIONS}
    held = {f"{FIND_TOOL}@dev": "its server changed its title"}
    live = replace(load(texts), number=1, quarantine=held)
    past = FIND_2.replace('/dev/bot"}', '/dev/bot", past: true}')

    back = load({**texts, "tools/find.v2.yaml": past}, previous=live)

    assert (1, held) == (back.every_live(FIND_TOOL)["dev"].version, back.quarantine)


def test_a_workflow_is_checked_with_the_versions_of_every_environment() -> None:
    """What one of them does not take is a problem, once."""
    other = FIND_2.replace("schemas/find.json", "schemas/find.v2.json").replace("in:/ref", "in:/id")
    renamed = FILES["schemas/find.json"].replace('"ref"', '"id"')
    texts = {**FILES, **TWO_VERSIONS, "tools/find.v2.yaml": other, "schemas/find.v2.json": renamed}

    found = problems(texts)

    assert any("`desk.issue.find` has no argument `ref`" in problem for problem in found), found
    assert len(found) == len({*found})


def test_missing_project_file_is_one_problem() -> None:
    """Without vocabulary its uses are not reported too."""
    files = {path: text for path, text in FILES.items() if path != "project.yaml"}

    assert ["project.yaml: the project file is missing"] == [
        problem.partition(" (")[0] for problem in problems(files)
    ]


@pytest.mark.parametrize(
    ("path", "old", "new", "expected"),
    [
        (
            "tools/create.yaml",
            "risk: 2",
            "risk: 3",
            (
                "tools/create.yaml:4: version 2 of `desk.issue.create` is published and cannot "
                "change (call this content version 3)"
            ),
        ),
        (
            "agents/clerk.md",
            "clerk",
            "boss",
            (
                "agents/clerk.yaml:4: version 1 of `clerk` is published and cannot "
                "change (call this content version 2)"
            ),
        ),
        (
            "workflows/triage.yaml",
            "title: Triage",
            "title: Sorting",
            (
                "workflows/triage.yaml:4: version 1 of `triage` is published and cannot "
                "change (call this content version 2)"
            ),
        ),
    ],
)
def test_published_version_cannot_change(path: str, old: str, new: str, expected: str) -> None:
    """New content needs a new number."""
    live = replace(load(FILES), number=1)

    assert [expected] == problems(changed(path, old, new), previous=live)


def test_binding_and_autonomy_may_change_in_a_published_version() -> None:
    """Where a tool goes and how far a workflow is trusted are not part of the version."""
    live = replace(load(FILES), number=1)

    load(changed("workflows/triage.yaml", "level: 2", "level: 1"), previous=live)
    load(changed("tools/find.yaml", "dev/bot", "dev/other"), previous=live)


def test_replaced_tool_version_is_kept_and_its_quarantine_ends() -> None:
    """Runs under way still find the version they were given."""
    live = replace(
        load(FILES),
        number=1,
        quarantine={"desk.issue.create@dev": "changed", "desk.issue.find@dev": "changed"},
    )

    release = load(changed("tools/create.yaml", "version: 2", "version: 3"), previous=live)

    assert live.tools[CREATE_TOOL] == release.tool_version(CREATE_TOOL, 2)
    assert {"desk.issue.find@dev": "changed"} == release.quarantine


def test_proposed_tools_load_after_review() -> None:
    """What an import proposes fits the form of project files."""
    server = Server(name="desk-code", system="desk", environment="dev", kind="python")
    proposal = from_functions([python_function("desk.countIssues", _count)], server, owner="it")
    entry = (
        FILES["servers/dev.yaml"]
        .replace("name: desk-dev", "name: desk-code")
        .replace("protocol: http\nurl: http://127.0.0.1:9000\nauth: bearer\n", "protocol: python\n")
    )

    release = load({**FILES, **proposal.files, "servers/code.yaml": entry})

    tool = release.tools[ToolName("desk.count_issues.call")]
    assert (Group.WRITE, EffectClass.BLIND) == (tool.group, tool.effect.effect_class)


def _count(title: str) -> dict[str, int]:
    """Count the issues with a title."""
    return {"count": len(title)}


def test_rates_are_read() -> None:
    """Of a tool where it is bound, of a server, and of a workflow."""
    files = changed("tools/find.yaml", '/bot"}', '/bot", rate: {calls: 1, per_s: 2}}')
    files["servers/dev.yaml"] += "rate: {calls: 10, per_s: 1.0}\n"
    files["workflows/triage.yaml"] += "rate: {calls: 5, per_s: 60}\n"

    release = load(files)

    binding = release.binding(FIND_TOOL, "dev")
    assert binding is not None
    assert [Rate(calls=1, per_s=2.0), Rate(calls=10, per_s=1.0), Rate(calls=5, per_s=60.0)] == [
        binding.rate,
        binding.server.rate,
        release.workflows[TRIAGE].rate,
    ]


def test_limits_of_a_workflow_are_read() -> None:
    """What runs at once, what is locked, and who goes first, also by trigger."""
    declared = 'priority: 7\nconcurrency: {runs: 5, per: tenant}\nlock: {key: "input:/ref"}\nsteps:'
    files = changed("workflows/triage.yaml", "\nsteps:", f"\n{declared}")
    whole = files["workflows/triage.yaml"]
    files["workflows/triage.yaml"] = whole.replace("manual: true}", "manual: true, priority: 9}")

    spec = load(files).workflows[TRIAGE]

    priorities = {trigger.name: trigger.priority for trigger in spec.triggers}
    assert (7, 9) == (spec.priority, priorities["by_hand"])
    assert Concurrency(runs=5, per="tenant") == spec.concurrency
    assert Lock(key="input:/ref") == spec.lock


def test_a_queue_is_a_trigger() -> None:
    """One shape for all brokers; its source names what its keys are unique in."""
    queue = (
        '    queue: {url: "tls://nats.example:4222/", name: "orders.>", secret: secret://nats/dev/in,'
        ' dedupe: "body:/id", dead_letter: dead.orders}\n'
    )
    files = changed(
        "workflows/triage.yaml",
        "    webhook: tracker\n    secret: secret://desk/dev/hook\n",
        queue,
    )

    trigger = load(files).workflows[WorkflowName("triage")].triggers[0]

    assert ("queue", "tls://nats.example:4222/orders.>#interlock") == (trigger.kind, trigger.source)
    expected = Queue(
        url="tls://nats.example:4222/",
        name="orders.>",
        secret="secret://nats/dev/in",
        dedupe="body:/id",
        dead_letter="dead.orders",
    )
    assert expected == trigger.queue
