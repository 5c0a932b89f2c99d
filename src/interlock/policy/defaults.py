"""The policies that a project starts with: read-only by default, drafts at level 0.

`interlock init` writes them as files, and a project that says `include: defaults` gets them as
they are. They ask the team `security` (`injection-exfil`), which the project therefore needs.
"""

from __future__ import annotations

from interlock.domain.release import PolicyFile

_GRANTS = """\
@id("read-default")
@owner("platform")
@why("Safe default: read-only")
permit (principal, action in Action::"read", resource)
unless { action in Action::"egress" };

@id("model-default")
@owner("platform")
@why("Agents may ask the configured models")
permit (principal, action in Action::"model", resource);
"""

_APPROVALS = """\
@id("autonomy-0")
@draft
@why("Level 0: drafts only")
forbid (principal, action in Action::"write", resource)
when { principal.autonomy < 1 };

@id("autonomy-1")
@approval("workflow-owner")
@why("Level 1: every write is approved")
forbid (principal, action in Action::"write", resource)
when { principal.autonomy == 1 };

@id("autonomy-2")
@approval("workflow-owner")
@why("Level 2: only low-risk writes run unattended")
forbid (principal, action in Action::"write", resource)
when { principal.autonomy == 2 && resource.risk > 1 };

@id("destructive-needs-owner")
@approval("system-owner")
@why("Destructive: the owner of the system decides")
forbid (principal, action in Action::"destructive", resource);

@id("untrusted-risky")
@approval("workflow-owner")
@why("Untrusted content was read: risky writes need a human")
forbid (principal, action in Action::"write", resource)
when { context.untrusted && resource.risk > 1 };

@id("injection-exfil")
@approval("security")
@why("Untrusted content was read: sending outside needs a human")
forbid (principal, action in [Action::"write", Action::"egress"], resource)
when { resource.external && context.untrusted };

@id("duplicate")
@approval("workflow-owner")
@why("The same business key was written a short time ago")
forbid (principal, action in Action::"write", resource)
when { context.same_key_count > 0 };
"""

_GUARDRAILS = """\
@id("tools-listed")
@why("A seat calls only tools its workflow lists")
forbid (principal, action, resource is Tool)
unless { principal.tools.contains(resource) };

@id("tenant-tools")
@why("A tool of another tenant")
forbid (principal, action, resource is Tool)
when { resource has tenant && resource.tenant != principal.tenant };

@id("tenant-data")
@why("Data of another tenant is in this run: nothing leaves")
forbid (principal, action in [Action::"write", Action::"egress", Action::"model"], resource)
unless { [principal.tenant].containsAll(context.tenants) };

@id("environments")
@why("Another environment")
forbid (principal, action, resource)
when { principal.env != resource.env };

@id("label-clearance")
@why("The run carries a label this destination does not accept")
forbid (principal, action in [Action::"write", Action::"egress", Action::"model"], resource)
unless { resource.accepts.containsAll(context.labels) };

@id("rate")
@why("20 calls of one writing tool in a run")
forbid (principal, action in Action::"write", resource)
when { context.calls_this_tool >= 20 };

@id("budget")
@why("The budget is spent")
forbid (principal, action, resource)
when { context.budget_left_micros <= 0 };

@id("depth")
@why("Hand-off chain too deep")
forbid (principal, action, resource)
when { context.depth > 5 };
"""

DEFAULT_POLICIES: tuple[PolicyFile, ...] = (
    PolicyFile(path="grants/defaults.cedar", text=_GRANTS),
    PolicyFile(path="approvals/defaults.cedar", text=_APPROVALS),
    PolicyFile(path="guardrails/defaults.cedar", text=_GUARDRAILS),
)
"""One file per kind, in the form in which `interlock init` writes them."""

DEFAULT_TEAMS: tuple[str, ...] = ("security",)
"""The teams that the default policies ask."""
