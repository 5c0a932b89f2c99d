from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Decision, Facts, Outcome, Reason
from interlock.domain.errors import PolicyError
from interlock.domain.ids import AgentName, ToolName
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.tool import ENVIRONMENTS, Group, Sink, Source
from interlock.policy.engine import ModelResource, build_world
from tests.policy.project import (
    EXECUTOR,
    GRANT_WRITES,
    MODELS,
    OVER_500,
    READER,
    REFUND,
    TRIAGE_EXECUTOR,
    policy_files,
    release,
    request,
    schema,
    tool,
    tools,
    world,
)

BIG: JsonObject = {"amount_cents": 70_000, "customer": "c1"}


def codes(decision: Decision) -> list[str]:
    """Return the codes of a decision's reasons."""
    return [reason.code for reason in decision.reasons]


def test_granted_call_is_allowed_with_the_policy_that_permits_it() -> None:
    """An allow names the permits that matched, and the versions it was decided under."""
    live = world(GRANT_WRITES)

    decision = live.decide(request())

    assert decision == Decision(
        outcome=Outcome.ALLOW,
        reasons=(Reason(code="policy.allowed", message="", policy_id="writes"),),
        policy_version=live.policy_version,
        slice_version=live.slice_version(EXECUTOR, REFUND),
    )


def test_call_without_grant_is_denied() -> None:
    """Nothing is allowed unless a permit says so."""
    decision = world().decide(request())

    assert (Outcome.DENY, ["policy.no_grant"]) == (decision.outcome, codes(decision))


@pytest.mark.parametrize("kind", ["approvals", "guardrails"])
def test_policy_in_observe_mode_is_told_and_changes_nothing(kind: str) -> None:
    """The decision is the one without it, and so is what an approval would be bound to."""
    rule = OVER_500.replace("@approval", '@mode("observe") @approval')
    if kind == "guardrails":
        rule = rule.replace('@approval("finance-managers") ', "")
    watched, plain = world(GRANT_WRITES, rule), world(GRANT_WRITES)
    large = request(arguments={"amount_cents": 70_000, "customer": "c1"})

    decision, small = watched.decide(large), watched.decide(request())

    told = Reason(
        code="policy.observed", message="Above $500: finance", policy_id="refund-over-500"
    )
    assert (Outcome.ALLOW, (told,)) == (decision.outcome, decision.observed)
    assert ("writes",) == decision.policy_ids
    assert () == small.observed
    assert watched.slice_version(EXECUTOR, REFUND) == plain.slice_version(EXECUTOR, REFUND)


def test_agreement_lifts_what_is_observed_too() -> None:
    """It would not have asked again."""
    rule = OVER_500.replace("@approval", '@mode("observe") @approval')
    large = request(
        arguments={"amount_cents": 70_000, "customer": "c1"}, lifted=("finance-managers",)
    )

    assert () == world(GRANT_WRITES, rule).decide(large).observed


def test_observed_policy_that_fails_denies_nothing_and_says_so() -> None:
    """Whoever enforces it would deny such calls: that is worth knowing before."""
    rule = """@id("sum") @mode("observe") @why("Far too much")
    forbid (principal, action == Action::"billing.refund.create", resource)
    when { context.args.amount_cents * 9223372036854775807 > 1 };"""

    decision = world(GRANT_WRITES, rule).decide(request())

    assert Outcome.ALLOW is decision.outcome
    assert [("policy.error", "sum")] == [(r.code, r.policy_id) for r in decision.observed]


def test_empty_world_denies() -> None:
    """A project without policies denies everything."""
    decision = world(defaults=False).decide(request("billing.invoice.show"))

    assert (Outcome.DENY, ["policy.no_grant"]) == (decision.outcome, codes(decision))


def test_forbid_with_approval_asks_its_group() -> None:
    """A call that only an approval rule stops needs that group's approval."""
    decision = world(GRANT_WRITES, OVER_500).decide(request(arguments=BIG))

    assert (Outcome.NEEDS_APPROVAL, ("finance-managers",)) == (decision.outcome, decision.groups)
    assert decision.reasons == (
        Reason(
            code="policy.needs_approval",
            message="Above $500: finance",
            policy_id="refund-over-500",
        ),
    )


def test_valid_approval_lifts_the_forbid() -> None:
    """With the group's approval of exactly this call the same request is allowed."""
    live = world(GRANT_WRITES, OVER_500)

    decision = live.decide(request(arguments=BIG, lifted=("finance-managers",)))

    assert Outcome.ALLOW is decision.outcome


def test_approval_of_another_group_lifts_nothing() -> None:
    """Only the group that the rule names can lift it."""
    live = world(GRANT_WRITES, OVER_500)

    decision = live.decide(request(arguments=BIG, lifted=("security",)))

    assert (Outcome.NEEDS_APPROVAL, ("finance-managers",)) == (decision.outcome, decision.groups)


def test_approval_is_not_offered_if_no_grant_stands_behind_it() -> None:
    """An approval is never asked for a call that it would not unlock."""
    decision = world(OVER_500).decide(request(arguments=BIG))

    assert (Outcome.DENY, ["policy.denied", "policy.no_grant"]) == (
        decision.outcome,
        codes(decision),
    )


def test_guardrail_beside_an_approval_rule_denies() -> None:
    """A guardrail that matches too makes it a deny that nobody is asked about."""
    stop = '@id("no-c1") @why("c1 is closed") forbid (principal, action == Action::"billing.refund.create", resource) when { context.args.customer == "c1" };'  # noqa: E501  # one policy
    live = world(GRANT_WRITES, OVER_500, stop)

    decision = live.decide(request(arguments=BIG, lifted=("finance-managers",)))

    assert (Outcome.DENY, ("no-c1",)) == (decision.outcome, decision.policy_ids)


def test_guardrail_is_the_first_reason() -> None:
    """What nobody can lift is said before what somebody could."""
    stop = '@id("z-last") @why("never") forbid (principal, action == Action::"billing.refund.create", resource);'  # noqa: E501  # one policy
    live = world(GRANT_WRITES, OVER_500, stop)

    decision = live.decide(request(arguments=BIG))

    assert ["z-last", "refund-over-500"] == [reason.policy_id for reason in decision.reasons]


def test_reserved_groups_are_resolved_to_teams() -> None:
    """`workflow-owner` and `system-owner` become the teams of this call's workflow and system."""
    grant = '@id("all") @owner("platform") permit (principal, action in Action::"write", resource);'
    live = world(grant, autonomy=1)

    decision = live.decide(request("billing.refund.delete"))

    assert Outcome.NEEDS_APPROVAL is decision.outcome
    assert ("billing-owners", "refunds-owners") == decision.groups


@pytest.mark.parametrize(
    ("lifted", "outcome"),
    [
        ((), Outcome.NEEDS_APPROVAL),
        (("refunds-owners",), Outcome.NEEDS_APPROVAL),
        (("refunds-owners#2",), Outcome.NEEDS_APPROVAL),
        (("workflow-owner", "workflow-owner#2"), Outcome.NEEDS_APPROVAL),
        (("refunds-owners", "refunds-owners#2"), Outcome.ALLOW),
    ],
)
def test_two_people_of_the_team_behind_a_group_are_asked(
    lifted: tuple[str, ...], outcome: Outcome
) -> None:
    """Neither of them alone is enough, and no name of the role itself."""
    rule = OVER_500.replace('"finance-managers"', '"workflow-owner") @people("2"')
    decision = world(GRANT_WRITES, rule).decide(request(arguments=BIG, lifted=lifted))

    assert outcome is decision.outcome
    if outcome is Outcome.NEEDS_APPROVAL:
        assert ("refunds-owners", "refunds-owners#2") == decision.groups


def test_approval_by_the_resolved_team_lifts_the_reserved_group() -> None:
    """The approvals that were asked for unlock the call."""
    grant = '@id("all") @owner("platform") permit (principal, action in Action::"write", resource);'
    asked = request("billing.refund.delete", lifted=("billing-owners", "refunds-owners"))

    decision = world(grant, autonomy=1).decide(asked)

    assert Outcome.ALLOW is decision.outcome


@pytest.mark.parametrize("name", ["draft", "workflow-owner", "system-owner"])
def test_reserved_group_itself_lifts_nothing(name: str) -> None:
    """Nobody can hold `draft` or a group that is resolved per call."""
    level = 0 if name == "draft" else 1
    live = world(GRANT_WRITES, autonomy=level)

    decision = live.decide(request(lifted=(name,)))

    assert Outcome.ALLOW is not decision.outcome


def test_level_zero_drafts_writes() -> None:
    """Without a declared autonomy level a granted write becomes a draft."""
    decision = world(GRANT_WRITES, autonomy=None).decide(request())

    assert (Outcome.DRAFT, (), ("autonomy-0",)) == (
        decision.outcome,
        decision.groups,
        decision.policy_ids,
    )


def test_model_without_team_behind_the_group_is_denied() -> None:
    """A rule that asks the owner of a system is a deny where there is no system."""
    rule = '@id("ask") @approval("system-owner") @why("?") forbid (principal, action in Action::"model", resource);'  # noqa: E501  # one policy

    decision = world(rule).decide(request(None, {}, model="default"))

    assert (Outcome.DENY, ("ask",)) == (decision.outcome, decision.policy_ids)


def test_known_model_is_allowed() -> None:
    """The default policies let an agent ask a configured model."""
    decision = world().decide(request(None, {}, model="default"))

    assert (Outcome.ALLOW, ("model-default",)) == (decision.outcome, decision.policy_ids)


def test_model_that_does_not_accept_a_label_is_denied() -> None:
    """A run that carries `pii` cannot ask a model that was not cleared for it."""
    facts = Facts(labels=Labels(names=frozenset({"pii"})))

    decision = world().decide(request(None, {}, model="outside", facts=facts))

    assert (Outcome.DENY, ("label-clearance",)) == (decision.outcome, decision.policy_ids)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (request("billing.nope"), "tool.unknown"),
        (request(None, {}, model="nope"), "model.unknown"),
        (request(seats=()), "seat.unknown"),
        (request(environment="prod"), "policy.environment"),
        (request(facts=Facts(labels=Labels(names=frozenset({"new"})))), "label.unknown"),
    ],
)
def test_what_the_registry_does_not_know_is_denied(changed: object, code: str) -> None:
    """Unknown tools, models, seats, labels and another environment are denied before Cedar."""
    decision = world(GRANT_WRITES).decide(changed)  # type: ignore[arg-type]  # parametrized

    assert (Outcome.DENY, [code]) == (decision.outcome, codes(decision))


def test_quarantined_binding_is_denied_with_its_reason() -> None:
    """A quarantined tool answers no call, whatever the policies say."""
    live = world(GRANT_WRITES, quarantine={f"{REFUND}@dev": "the upstream schema changed"})

    decision = live.decide(request())

    expected = (Reason(code="tool.quarantined", message="the upstream schema changed"),)
    assert (Outcome.DENY, expected) == (decision.outcome, decision.reasons)


@pytest.mark.parametrize(
    "changes",
    [
        {"group": Group.READ},
        {"group": Group.DESTRUCTIVE},
        {"risk": 3},
        {"is_egress": True},
        {"sink": Sink(accepts=frozenset())},
        {"sink": Sink(accepts=frozenset({"pii"}), is_external=True)},
        {"source": Source(labels=frozenset({"pii"}))},
        {"system": "crm"},
        {"input_schema": tool("crm.note.add").input_schema},
        None,
    ],
    ids=str,
)
def test_old_version_is_not_judged_by_what_the_live_one_is(
    changes: dict[str, object] | None,
) -> None:
    """A call of a version that policies would see otherwise, or that nobody kept, is denied."""
    old = tools()[REFUND]
    live = replace(old, version=2)
    kept = {} if changes is None else {f"{REFUND}@1": replace(old, **changes)}  # type: ignore[arg-type]  # typed by their use
    asked = world(GRANT_WRITES, tools=tools() | {REFUND: live}, old_tools=kept)

    decision = asked.decide(request(version=1))

    assert (Outcome.DENY, ["tool.version"]) == (decision.outcome, codes(decision))


def test_old_version_that_policies_see_alike_is_judged() -> None:
    """What differs in title or price alone is the same call to them; so is the live version."""
    old = tools()[REFUND]
    live = replace(old, version=2, title="Refund", price_micro_usd=7)
    asked = world(GRANT_WRITES, tools=tools() | {REFUND: live}, old_tools={f"{REFUND}@1": old})

    decisions = [asked.decide(request(version=version)) for version in (None, 1, 2)]

    assert [Outcome.ALLOW] * 3 == [decision.outcome for decision in decisions]


def test_each_environment_types_arguments_by_the_version_that_it_has() -> None:
    """The form of `dev` is another than that of `prod`; a call of the other version is denied."""
    old = tools()[REFUND]
    new = replace(old, version=2, input_schema=schema(required=("sum",), sum={"type": "integer"}))
    worlds = {
        place: world(
            GRANT_WRITES,
            environment=place,
            tools=tools() | {REFUND: new},
            old_tools={f"{REFUND}@1": old},
            live_versions={f"{REFUND}@dev": 2, f"{REFUND}@prod": 1},
        )
        for place in ENVIRONMENTS
    }
    calls = [request(version=1), request(arguments={"sum": 5}, version=2)]

    found = [
        worlds[place].decide(replace(call, environment=place)).outcome
        for place in ENVIRONMENTS
        if place != "stage"
        for call in calls
    ]

    assert [Outcome.DENY, Outcome.ALLOW, Outcome.ALLOW, Outcome.DENY] == found


def test_unbound_tool_is_unknown() -> None:
    """A tool without a binding in the environment does not exist there."""
    unbound = tools() | {REFUND: tool(REFUND, environments={})}

    decision = world(GRANT_WRITES, tools=unbound).decide(request())

    assert ["tool.unknown"] == codes(decision)


def test_every_seat_of_a_chain_must_be_allowed() -> None:
    """A hand-off attenuates: the strictest answer of the chain wins."""
    decision = world(GRANT_WRITES).decide(request(seats=(TRIAGE_EXECUTOR, EXECUTOR)))

    assert (Outcome.DENY, ["policy.no_grant"]) == (decision.outcome, codes(decision))


def test_chain_asks_the_union_of_groups() -> None:
    """If several seats need approval, all their groups are asked."""
    grant = '@id("all") @owner("platform") permit (principal, action in Action::"write", resource);'
    live = world(grant, autonomy=1)

    decision = live.decide(request(seats=(TRIAGE_EXECUTOR, EXECUTOR)))

    assert (Outcome.NEEDS_APPROVAL, ("refunds-owners", "triage-owners")) == (
        decision.outcome,
        decision.groups,
    )
    assert ("autonomy-1",) == decision.policy_ids


def test_all_problems_are_reported_when_a_world_is_refused() -> None:
    """A world that has a problem is not built, and the error carries every problem."""
    project = release(*policy_files("permit (principal, action, resource);", "forbid"))

    with pytest.raises(PolicyError) as caught:
        build_world(project, "dev", models=MODELS)

    assert 3 == len(caught.value.problems)


def test_model_cleared_for_an_unknown_label_refuses_the_world() -> None:
    """A model cleared for a label that the project does not have stops the build."""
    models = {"m": ModelResource(name="m", external=False, accepts=frozenset({"nope"}))}

    with pytest.raises(PolicyError, match="nope"):
        build_world(release(), "dev", models=models)


def test_slice_version_moves_only_with_what_can_decide() -> None:
    """Another tool's policy voids no approval; a policy in scope does."""
    fetch = '@id("fetch") @owner("platform") permit (principal, action == Action::"web.page.fetch", resource);'  # noqa: E501  # one policy
    plain = world(GRANT_WRITES)

    unrelated = world(GRANT_WRITES, fetch)
    related = world(GRANT_WRITES, OVER_500)

    assert plain.slice_version(EXECUTOR, REFUND) == unrelated.slice_version(EXECUTOR, REFUND)
    assert plain.slice_version(EXECUTOR, REFUND) != related.slice_version(EXECUTOR, REFUND)
    assert plain.policy_version != unrelated.policy_version


def test_slice_version_moves_with_autonomy() -> None:
    """A seat that was given another level is another seat."""
    assert world(autonomy=1).slice_version(EXECUTOR, REFUND) != world(autonomy=2).slice_version(
        EXECUTOR, REFUND
    )


def test_slice_version_of_the_unknown_is_empty() -> None:
    """There is no version for a seat or tool that is not there."""
    live = world()
    nobody = Seat(workflow=EXECUTOR.workflow, agent=AgentName("nobody"))

    assert ("", "") == (
        live.slice_version(EXECUTOR, ToolName("no.such.tool")),
        live.slice_version(nobody, REFUND),
    )


def test_reader_may_read() -> None:
    """The default policies allow reads that stay inside."""
    decision = world().decide(request("billing.invoice.show", seats=(READER,)))

    assert (Outcome.ALLOW, ("read-default",)) == (decision.outcome, decision.policy_ids)
