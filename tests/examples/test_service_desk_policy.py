from __future__ import annotations

from pathlib import Path

import pytest

from interlock.config import load as load_config
from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest
from interlock.domain.ids import AgentName, ToolName, WorkflowName
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.manifest.files import read_folder
from interlock.manifest.load import load
from interlock.policy.engine import ModelResource, World, build_world

PROJECT = Path(__file__).resolve().parents[2] / "examples" / "service_desk"
# What a run carries once it has read its ticket.
READ = Facts(labels=Labels(names=frozenset({"internal"}), is_untrusted=True), depth=1)
MAIL: JsonObject = {"to": "nora@desk.example", "subject": "VPN", "text": "Please look."}


@pytest.fixture(scope="module")
def world() -> World:
    """The example's policies in dev, with the models of its settings."""
    models = {
        name: ModelResource(name=name, external=model.is_external, accepts=model.accepts)
        for name, model in load_config(PROJECT, {}).models.items()
    }
    return build_world(load(read_folder(PROJECT)), "dev", models=models)


def _decide(
    world: World,
    tool: str,
    arguments: JsonObject,
    *,
    agent: str = "resolver",
    lifted: frozenset[str] = frozenset(),
) -> Decision:
    seat = Seat(workflow=WorkflowName("service_desk"), agent=AgentName(agent))
    return world.decide(
        PolicyRequest(
            seats=(seat,),
            environment="dev",
            tool=ToolName(tool),
            arguments=arguments,
            facts=READ,
            lifted=lifted,
        )
    )


def _id(arguments: JsonObject) -> JsonObject:
    return {"id": "7", "version": '"abc"', **arguments}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("servicedesk.issue.search", {"words": ["vpn"]}),
        ("servicedesk.person.find", {"username": "alice"}),
        (
            "servicedesk.issue.update",
            _id({"priority": "low", "assignedto": "netops", "status": "open"}),
        ),
        ("servicedesk.issue.reply", {"id": "7", "text": "We look into it."}),
        (
            "servicedesk.issue.create",
            {
                "parent": "7",
                "title": "Spare laptop",
                "description": "Lend one",
                "kind": "request",
                "priority": "low",
                "assignedto": "desktop",
            },
        ),
    ],
)
def test_reads_and_low_risk_writes_pass_unattended(
    world: World, tool: str, arguments: JsonObject
) -> None:
    """Level 2: reading is free, and reversible writes on the desk need nobody."""
    assert Outcome.ALLOW is _decide(world, tool, arguments).outcome


@pytest.mark.parametrize(
    ("share", "group"),
    [("finance", "finance-data-owners"), ("hr", "security"), ("marketing", "security")],
)
def test_access_to_a_share_is_agreed_by_its_owners(world: World, share: str, group: str) -> None:
    """One approval by the right group is needed, and is enough."""
    arguments: JsonObject = {"user": "dave", "share": share, "ticket": "7"}

    asked = _decide(world, "servicedesk.grant.create", arguments)

    assert (Outcome.NEEDS_APPROVAL, (group,)) == (asked.outcome, asked.groups)
    answered = _decide(world, "servicedesk.grant.create", arguments, lifted=frozenset({group}))
    assert Outcome.ALLOW is answered.outcome


def test_retiring_a_ticket_is_agreed_by_the_desk(world: World) -> None:
    """Every rule that asks about it asks the same group."""
    asked = _decide(world, "servicedesk.issue.retire", _id({}))

    assert (Outcome.NEEDS_APPROVAL, ("it-service-desk",)) == (asked.outcome, asked.groups)


@pytest.mark.parametrize("lifted", [frozenset[str](), frozenset({"security", "it-service-desk"})])
def test_mail_to_the_outside_is_refused_whoever_agrees(
    world: World, lifted: frozenset[str]
) -> None:
    """The guardrail is named, and no approval lifts it."""
    refused = _decide(
        world, "mail.message.send", {**MAIL, "to": "drop@evil.example"}, lifted=lifted
    )

    assert Outcome.DENY is refused.outcome
    assert "mail-stays-inside" in refused.policy_ids


@pytest.mark.parametrize("to", ["a@evil.example,b@desk.example", "x@desk.example.evil.example"])
def test_address_that_only_looks_inside_is_refused(world: World, to: str) -> None:
    """The domain is that of one plain address."""
    assert Outcome.DENY is _decide(world, "mail.message.send", {**MAIL, "to": to}).outcome


def test_mail_to_a_colleague_needs_people(world: World) -> None:
    """Inside the company it is possible, after the ticket was read only with approval."""
    asked = _decide(world, "mail.message.send", MAIL)

    assert (Outcome.NEEDS_APPROVAL, ("it-service-desk", "security")) == (
        asked.outcome,
        asked.groups,
    )


def test_classifier_may_change_nothing(world: World) -> None:
    """A seat calls only what its workflow lists for it."""
    refused = _decide(
        world, "servicedesk.issue.reply", {"id": "7", "text": "Hello."}, agent="classifier"
    )

    assert Outcome.DENY is refused.outcome
