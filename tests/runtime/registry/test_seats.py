"""Who could call a tool: seats of one tenant's workflows, each with policy's answer."""

from __future__ import annotations

from interlock.domain.ids import TenantId
from interlock.testing.recorder_project import TOOL_OF, WORKFLOW_OF, files
from tests.runtime.registry.bench import bench


def test_seats_of_another_tenant_are_not_told(sqlite_url: str) -> None:
    """A shared tool does not tell who else has it."""
    with bench(sqlite_url, files("http://127.0.0.1:9")) as running:
        own = running.run(TOOL_OF["keyed"]).seats
        foreign = running.run(TOOL_OF["keyed"], tenant=TenantId("other")).seats

    assert [f"{WORKFLOW_OF['keyed']}/workflow"] == [one.seat for one in own]
    assert () == foreign


def test_given_arguments_are_what_policy_is_asked_about(sqlite_url: str) -> None:
    """Some text could pass the rule; the given one does not."""
    texts = files("http://127.0.0.1:9")
    texts["policies/guardrails/texts.cedar"] = f"""
@id("no-long-texts") @owner("security") @why("long texts are refused")
forbid (principal, action == Action::"{TOOL_OF["keyed"]}", resource)
when {{ context.args.text == "forbidden" }};
"""
    with bench(sqlite_url, texts) as running:
        some = running.run(TOOL_OF["keyed"]).seats
        given = running.run(TOOL_OF["keyed"], arguments={"text": "forbidden"}).seats

    assert [True, False] == [some[0].is_able, given[0].is_able]
    assert "is refused: long texts are refused" == given[0].words
