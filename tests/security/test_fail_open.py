"""Ways in which an authorisation engine lets through what its author forbade, each shut."""

from __future__ import annotations

import pytest

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.decision import Decision, Facts, Outcome
from interlock.domain.errors import PolicyError
from interlock.domain.ids import AgentName, ToolName, WorkflowName
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.tool import Group
from interlock.policy import lint
from interlock.policy.engine import build_world
from tests.policy.project import (
    EXECUTOR,
    GRANT_WRITES,
    MODELS,
    OVER_500,
    REFUND,
    TEXT,
    TRIAGE_EXECUTOR,
    policy_files,
    release,
    request,
    schema,
    tool,
    tools,
    world,
)

OVERFLOWS = """@id("scaled") @why("too much")
forbid (principal, action == Action::"billing.refund.create", resource)
when { context.args.amount_cents * 9223372036854775807 > 1 };"""


def only_code(decision: Decision) -> tuple[Outcome, str]:
    """Return outcome and the only reason's code."""
    (reason,) = decision.reasons
    return decision.outcome, reason.code


def messages(*texts: str) -> list[str]:
    """Return what the lint says of policy statements."""
    return [problem.message for problem in lint.check(release(*policy_files(*texts)))]


def test_forbid_that_errors_denies() -> None:
    """Traps 1 and 2: Cedar skips a forbid whose arithmetic overflows and would allow; we deny."""
    live = world(GRANT_WRITES, OVERFLOWS)

    decision = live.decide(request())

    assert (Outcome.DENY, "policy.error") == only_code(decision)
    assert ("scaled",) == decision.policy_ids


def test_error_under_lifted_groups_denies() -> None:
    """Trap 1 in the second evaluation: an approval is not offered if it would end in an error."""
    ask = """@id("ask") @approval("security") @why("ask")
    forbid (principal, action == Action::"billing.refund.create", resource);"""
    broken = """@id("broken") @owner("platform")
    permit (principal, action == Action::"billing.refund.create", resource)
    when { context.args.amount_cents * 9223372036854775807 > 1 };"""

    decision = world(GRANT_WRITES, ask, broken).decide(request(lifted=("security",)))

    assert (Outcome.DENY, "policy.error") == only_code(decision)


def test_fact_that_the_engine_cannot_take_denies() -> None:
    """Trap 5: a request that Cedar cannot build is no decision, and no decision is a deny."""
    decision = world(GRANT_WRITES).decide(request(facts=Facts(writes_this_run=2**70)))

    assert (Outcome.DENY, "policy.error") == only_code(decision)


def test_error_message_holds_no_argument() -> None:
    """An evaluation error is told without Cedar's words, which quote the arguments."""
    decision = world(GRANT_WRITES, OVERFLOWS).decide(
        request(arguments={"amount_cents": 424242, "customer": "c1"})
    )

    assert "424242" not in decision.reasons[0].message


@pytest.mark.parametrize("amount", ["600", 1.5, None, 2**70, float("nan"), True, [], {}])
def test_value_of_another_type_denies(amount: Json) -> None:
    """Traps 3 and 5: a value that is not exactly the declared type never reaches a policy."""
    decision = world(GRANT_WRITES, OVER_500).decide(
        request(arguments={"amount_cents": amount, "customer": "c1"})
    )

    assert (Outcome.DENY, "policy.unmappable") == only_code(decision)


def test_null_for_an_optional_argument_is_an_absent_one() -> None:
    """Trap 5: null drops the key; it neither breaks the request nor skips a rule."""
    arguments: JsonObject = {"amount_cents": 70_000, "customer": "c1", "note": None}

    decision = world(GRANT_WRITES, OVER_500).decide(request(arguments=arguments))

    assert Outcome.NEEDS_APPROVAL is decision.outcome


@pytest.mark.parametrize("key", ["__entity", "__extn", "__expr"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_reserved_key_anywhere_in_arguments_denies(key: str, depth: int) -> None:
    """Trap 4: a JSON value that Cedar would read as unknown, entity or call is refused before."""
    value: Json = {key: {"fn": "unknown", "arg": "x"}}
    for _ in range(depth):
        value = [{"in": value}]

    decision = world(GRANT_WRITES, OVER_500).decide(
        request(arguments={"amount_cents": 70_000, "customer": "c1", "note": value})
    )

    assert (Outcome.DENY, "policy.reserved_key") == only_code(decision)


def test_principal_that_does_not_exist_is_denied() -> None:
    """Trap 6: Cedar evaluates a principal that is no entity; here it has no seat."""
    everyone = '@id("all") @owner("platform") permit (principal, action, resource);'
    nobody = Seat(workflow=WorkflowName("refunds"), agent=AgentName("intruder"))

    decision = world(everyone, defaults=False).decide(request(seats=(nobody,)))

    assert (Outcome.DENY, "seat.unknown") == only_code(decision)


def test_agent_in_two_workflows_has_the_rights_of_one_seat() -> None:
    """Trap 7: what `executor` may do in one workflow it may not do in the other."""
    live = world(GRANT_WRITES)

    outcomes = [live.decide(request(seats=(seat,))).outcome for seat in (EXECUTOR, TRIAGE_EXECUTOR)]

    assert [Outcome.ALLOW, Outcome.DENY] == outcomes


def test_optional_argument_without_has_does_not_load() -> None:
    """Trap 8: a rule that reads an argument that may be absent is refused at load."""
    rule = """@id("noted") @why("no") forbid (principal, action == Action::"billing.refund.create",
    resource) when { context.args.note == "x" };"""

    (message,) = messages(rule)

    assert message.startswith("`noted`: unable to guarantee safety of access to optional attribute")


@pytest.mark.parametrize(
    ("scope", "said"),
    [
        ('principal in Workflow::"refnds", action, resource', "there is no workflow `refnds`"),
        ('principal, action, resource in System::"biling"', "there is no system `biling`"),
        (
            'principal == Agent::"refunds/exec", action, resource',
            "there is no agent `refunds/exec`",
        ),
        ('principal in Tenant::"acne", action, resource', "there is no tenant `acne`"),
        ('principal in Department::"x", action, resource', "there is no department `x`"),
        ('principal, action, resource == Tool::"web.x"', "there is no tool `web.x`"),
    ],
)
def test_misspelt_name_does_not_load(scope: str, said: str) -> None:
    """Traps 9 and 15: Cedar takes any id, and the rule would never match; the lint refuses it."""
    assert [said] == messages(f'@id("a") @why("b") forbid ({scope});')


def test_misspelt_label_does_not_load() -> None:
    """Trap 10: labels are a closed set."""
    rule = """@id("pii") @why("no") forbid (principal, action in Action::"write", resource)
    when { context.labels.contains(Label::"pi") };"""

    (message,) = messages(rule)

    assert '`"pi"` is not declared' in message


def test_approval_is_not_offered_where_no_permit_matched() -> None:
    """Trap 11: a forbid hides whether any permit matched; the second evaluation shows it."""
    decision = world(OVER_500).decide(request(arguments={"amount_cents": 70_000, "customer": "c1"}))

    assert Outcome.DENY is decision.outcome


def test_writing_tool_with_an_open_contract_is_of_highest_risk() -> None:
    """Trap 12: arguments that no policy can see make a write as risky as can be."""
    opened = schema(
        required=("amount_cents", "customer"), amount_cents={"type": "integer"}, customer=TEXT
    )
    del opened["additionalProperties"]
    changed = tools() | {REFUND: tool(REFUND, group=Group.WRITE, input_schema=opened, risk=1)}

    decision = world(GRANT_WRITES, autonomy=2, tools=changed).decide(request())

    assert (Outcome.NEEDS_APPROVAL, ("autonomy-2",)) == (decision.outcome, decision.policy_ids)


def test_undeclared_argument_of_a_closed_contract_denies() -> None:
    """Trap 12: an argument that the contract does not declare is not silently dropped."""
    arguments: JsonObject = {"amount_cents": 1, "customer": "c1", "also_to": "c2"}

    decision = world(GRANT_WRITES).decide(request(arguments=arguments))

    assert (Outcome.DENY, "policy.unmappable") == only_code(decision)


def test_no_policy_denies_everything() -> None:
    """Trap 13: a world without policies allows nothing."""
    live = world(defaults=False)

    outcomes = {live.decide(request(name)).outcome for name in tools()}

    assert {Outcome.DENY} == outcomes


def test_world_that_cannot_be_built_is_not_built_in_part() -> None:
    """Trap 13: one bad policy refuses the whole set; no world comes into force without it."""
    with pytest.raises(PolicyError):
        build_world(
            release(*policy_files(GRANT_WRITES, "forbid (principal, action, resource)")),
            "dev",
            models=MODELS,
        )


def test_bidirectional_text_does_not_load() -> None:
    """Trap 15: the validator's warning about text that shows otherwise than it reads is ours."""
    rule = '@id("a") @why("\u202eno") forbid (principal, action, resource);'

    assert ["the invisible character U+202E makes text look like another"] == messages(rule)


@pytest.mark.parametrize("name", ["web.page.fetch", "mail.message.send"])
def test_read_that_sends_data_out_needs_a_grant_of_its_own(name: str) -> None:
    """Trap 16: the read-only default does not cover a fetch from the web."""
    decision = world().decide(request(name, {"url": "https://x.example", "to": "a@b.example"}))

    assert Outcome.DENY is decision.outcome


def test_read_with_an_outside_destination_counts_as_egress() -> None:
    """Trap 16: a tool that forgot the flag but declares an outside sink is governed as egress."""
    leaky = tool("web.page.fetch")
    changed = tools() | {
        ToolName("web.page.fetch"): tool(
            "web.page.fetch", sink=leaky.sink.__class__(is_external=True)
        )
    }

    decision = world(tools=changed).decide(request("web.page.fetch"))

    assert (Outcome.DENY, "policy.no_grant") == only_code(decision)


def test_untrusted_content_stops_sending_outside() -> None:
    """A granted send needs security's approval once the run has read untrusted content."""
    grant = """@id("mail") @owner("platform") permit (principal, action, resource)
    when { resource in System::"mail" };"""
    facts = Facts(labels=Labels(is_untrusted=True))

    decision = world(grant).decide(request("mail.message.send", {"to": "a@b.example"}, facts=facts))

    assert (Outcome.NEEDS_APPROVAL, ("security",)) == (decision.outcome, decision.groups)
