from __future__ import annotations

import json

import cedarpy

from interlock.domain.ids import ToolName
from interlock.policy.schema import (
    ToolAction,
    ancestors_of,
    build_entities,
    groups_of,
    schema_json,
)
from tests.policy.project import MODELS, release, tool, tools


def actions() -> dict[ToolName, ToolAction]:
    """Return the actions of the project's tools."""
    return {name: ToolAction.of(version) for name, version in tools().items()}


def test_schema_reads_as_the_documented_one() -> None:
    """One action per tool, typed by its contract, beside the groups."""
    text = str(cedarpy.Schema.from_json_str(json.dumps(schema_json(release(), actions()))))

    assert 'entity Label enum ["finance", "pii", "undeclared"];' in text
    assert "entity Agent in [Workflow] = {" in text
    assert 'action "destructive" in [Action::"write"];' in text
    assert 'action "mail.message.send" in [Action::"egress", Action::"write"] appliesTo {' in text
    assert "to_domain: __cedar::String" in text
    assert "ratio" not in text


def test_derived_value_of_an_optional_argument_is_optional() -> None:
    """A policy has to ask whether it is there."""
    optional = tool(
        "mail.message.send",
        input_schema={"type": "object", "properties": {"to": {"type": "string"}}},
        policy_view=tools()[ToolName("mail.message.send")].policy_view,
    )
    project = {ToolName("mail.message.send"): ToolAction.of(optional)}

    text = str(cedarpy.Schema.from_json_str(json.dumps(schema_json(release(), project))))

    assert "to_domain?: __cedar::String" in text


def test_entities_hold_what_policies_ask() -> None:
    """Seats carry tenant, environment, level and bound tools; tools what a destination is."""
    found = build_entities(release(autonomy=2), "prod", models=MODELS)

    seat, mail = found["Agent", "refunds/executor"], found["Tool", "mail.message.send"]
    assert {"env": "prod", "autonomy": 2} == {k: seat.attributes[k] for k in ("env", "autonomy")}
    assert (("Workflow", "refunds"),) == seat.parents
    assert (("Department", "support"), ("Tenant", "acme")) == found["Workflow", "refunds"].parents
    assert {"env": "prod", "risk": 1, "owner": "mail-team", "external": True} == {
        key: mail.attributes[key] for key in ("env", "risk", "owner", "external")
    }
    assert "tenant" not in mail.attributes
    assert "tenant" in found["Tool", "crm.note.add"].attributes


def test_workflow_has_a_seat_of_its_own() -> None:
    """Plain tool steps run under the seat `workflow`, which lists its own tools only."""
    found = build_entities(release(), "dev", models={})

    assert [] == found["Agent", "refunds/workflow"].attributes["tools"]


def test_groups_of_tools() -> None:
    """Egress stands beside read and write; destructive is a kind of write."""
    groups = {name: groups_of(version) for name, version in tools().items()}

    assert {"read", "egress"} == groups[ToolName("web.page.fetch")]
    assert {"destructive", "write"} == ancestors_of(groups[ToolName("billing.refund.delete")])
