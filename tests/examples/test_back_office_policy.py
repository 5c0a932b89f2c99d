from __future__ import annotations

from pathlib import Path

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Decision, Facts, Outcome, PolicyRequest
from interlock.domain.ids import AgentName, ToolName, WorkflowName
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.tool import EffectClass
from interlock.manifest.files import read_folder
from interlock.manifest.load import load
from interlock.policy.engine import World, build_world

PROJECT = Path(__file__).resolve().parents[2] / "examples" / "back_office"
# What a run carries once it has found a customer.
FOUND = Labels(names=frozenset({"pii"}), is_untrusted=True)
FINANCE = frozenset({"finance"})


@pytest.fixture(scope="module")
def world() -> World:
    """The example's policies in dev."""
    return build_world(load(read_folder(PROJECT)), "dev", models={})


def _decide(
    world: World,
    tool: str,
    arguments: JsonObject,
    *,
    same_key_count: int = 0,
    lifted: frozenset[str] = frozenset(),
) -> Decision:
    return world.decide(
        PolicyRequest(
            seats=(Seat(workflow=WorkflowName("back_office"), agent=AgentName("clerk")),),
            environment="dev",
            tool=ToolName(tool),
            arguments=arguments,
            facts=Facts(labels=FOUND, depth=1, same_key_count=same_key_count),
            lifted=lifted,
        )
    )


def _draft(amount: str) -> JsonObject:
    return {"customer": 2, "address": 2, "month": "2026-11", "text": "Support", "amount": amount}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("crm.party.find", {"name": "%acme%"}),
        ("accounting.invoice.search", {"customer": 2}),
        (
            "crm.opportunity.create",
            {"customer": 2, "description": "Laptops", "amount": "900000.00"},
        ),
        ("crm.opportunity.lose", {"id": 1}),
        ("accounting.invoice.draft", _draft("1000.00")),
        ("accounting.invoice.cancel", {"id": 1}),
    ],
)
def test_reads_opportunities_and_small_drafts_need_nobody(
    world: World, tool: str, arguments: JsonObject
) -> None:
    """What can be taken back is done unattended, up to and with 1,000."""
    assert Outcome.ALLOW is _decide(world, tool, arguments).outcome


@pytest.mark.parametrize(
    ("tool", "arguments", "same_key_count", "policy"),
    [
        ("accounting.invoice.draft", _draft("1000.01"), 0, "large-invoice"),
        ("accounting.invoice.draft", _draft("900.00"), 1, "duplicate"),
        ("accounting.invoice.post", {"id": 1}, 0, "workflow.back_office.approval.1"),
    ],
)
def test_large_or_repeated_drafts_and_postings_are_agreed_by_finance(
    world: World, tool: str, arguments: JsonObject, same_key_count: int, policy: str
) -> None:
    """One approval by that group is needed, and is enough."""
    asked = _decide(world, tool, arguments, same_key_count=same_key_count)
    agreed = _decide(world, tool, arguments, same_key_count=same_key_count, lifted=FINANCE)

    assert (Outcome.NEEDS_APPROVAL, ("finance",)) == (asked.outcome, asked.groups)
    assert policy in asked.policy_ids
    assert Outcome.ALLOW is agreed.outcome


def test_no_tool_changes_what_was_drafted() -> None:
    """Who agrees to a posting finds what will be posted: drafts are made and cancelled, no more."""
    tools = load(read_folder(PROJECT)).tools.values()
    changes = {tool.name for tool in tools if tool.system == "accounting" and tool.is_write}

    assert {f"accounting.invoice.{act}" for act in ("draft", "cancel", "post")} == changes


def test_every_write_can_be_looked_for() -> None:
    """None of them waits for a person only because an answer was lost."""
    writes = [tool for tool in load(read_folder(PROJECT)).tools.values() if tool.is_write]

    assert {EffectClass.PROBED} == {tool.effect.effect_class for tool in writes}
    assert all(tool.effect.probe is not None for tool in writes)
