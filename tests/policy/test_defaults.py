from __future__ import annotations

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.decision import Facts, Outcome
from interlock.domain.label import Labels
from interlock.domain.principal import Seat
from interlock.domain.release import Release
from interlock.domain.workflow import WORKFLOW_AGENT
from interlock.policy import lint
from interlock.policy.defaults import DEFAULT_POLICIES, DEFAULT_TEAMS
from tests.policy.project import EXECUTOR, request, world

GRANT_ALL = '@id("all") @owner("o") permit (principal, action, resource);'


def test_defaults_load_in_an_empty_project() -> None:
    """`interlock init` makes a project without tools; its policies load."""
    project = Release(policies=DEFAULT_POLICIES, teams=DEFAULT_TEAMS)

    assert () == lint.check(project)


@pytest.mark.parametrize(
    ("name", "facts", "autonomy", "outcome", "by"),
    [
        ("billing.invoice.show", Facts(), 3, Outcome.ALLOW, ("all", "read-default")),
        ("web.page.fetch", Facts(), 3, Outcome.ALLOW, ("all",)),
        ("billing.refund.create", Facts(), 0, Outcome.DRAFT, ("autonomy-0",)),
        ("billing.refund.create", Facts(), 1, Outcome.NEEDS_APPROVAL, ("autonomy-1",)),
        ("billing.refund.create", Facts(), 2, Outcome.ALLOW, ("all",)),
        (
            "billing.refund.delete",
            Facts(),
            2,
            Outcome.NEEDS_APPROVAL,
            ("autonomy-2", "destructive-needs-owner"),
        ),
        (
            "billing.refund.delete",
            Facts(labels=Labels(is_untrusted=True)),
            3,
            Outcome.NEEDS_APPROVAL,
            ("destructive-needs-owner", "untrusted-risky"),
        ),
        (
            "mail.message.send",
            Facts(labels=Labels(is_untrusted=True)),
            3,
            Outcome.NEEDS_APPROVAL,
            ("injection-exfil",),
        ),
        (
            "billing.refund.create",
            Facts(same_key_count=1),
            3,
            Outcome.NEEDS_APPROVAL,
            ("duplicate",),
        ),
        ("billing.refund.create", Facts(calls_this_tool=20), 3, Outcome.DENY, ("rate",)),
        ("billing.refund.create", Facts(depth=6), 3, Outcome.DENY, ("depth",)),
        ("crm.note.add", Facts(), 3, Outcome.DENY, ("tenant-tools",)),
        (
            "billing.refund.create",
            Facts(labels=Labels(tenants=frozenset({"globex"}))),
            3,
            Outcome.DENY,
            ("tenant-data",),
        ),
        (
            "billing.refund.create",
            Facts(labels=Labels(tenants=frozenset({"acme"}))),
            3,
            Outcome.ALLOW,
            ("all",),
        ),
        (
            "billing.refund.create",
            Facts(labels=Labels(names=frozenset({"finance"}))),
            3,
            Outcome.DENY,
            ("label-clearance",),
        ),
    ],
)
def test_each_default_policy_does_what_it_says(
    name: str, facts: Facts, autonomy: int, outcome: Outcome, by: tuple[str, ...]
) -> None:
    """With everything granted, the default rules alone decide."""
    arguments: dict[str, JsonObject] = {
        "mail.message.send": {"to": "a@b.example"},
        "web.page.fetch": {"url": "https://b.example"},
        "billing.refund.create": {"amount_cents": 1, "customer": "c"},
    }
    asked = request(name, arguments.get(name, {"id": "1"}), facts=facts)

    decision = world(GRANT_ALL, autonomy=autonomy).decide(asked)

    assert (outcome, by) == (decision.outcome, decision.policy_ids)


def test_tool_that_a_seat_does_not_list_is_denied() -> None:
    """A grant alone is not enough: the workflow has to list the tool."""
    seat = Seat(workflow=EXECUTOR.workflow, agent=WORKFLOW_AGENT)

    decision = world(GRANT_ALL).decide(request(seats=(seat,)))

    assert (Outcome.DENY, ("tools-listed",)) == (decision.outcome, decision.policy_ids)
