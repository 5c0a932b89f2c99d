from __future__ import annotations

from dataclasses import replace

from interlock.domain.ids import ToolName, WorkflowName
from interlock.domain.release import Release, pin_of
from interlock.domain.tool import (
    ConnectorKind,
    EnvironmentBinding,
    McpCall,
    Server,
    ToolVersion,
)

NAME = ToolName("desk.issue.create")
SERVER = Server(name="desk-dev", system="desk", environment="dev", kind="python")


def _tool(version: int = 2) -> ToolVersion:
    return ToolVersion(
        name=NAME,
        version=version,
        owner="it",
        title="Create an issue",
        description="Creates an issue.",
        system="desk",
        connector=ConnectorKind.MCP,
        request=McpCall(upstream="create"),
        input_schema={"type": "object"},
        output_schema={"type": "object"},
        environments={
            "dev": EnvironmentBinding(server="desk-dev", credentials="secret://desk/dev/bot"),
            "prod": EnvironmentBinding(server="desk-prod"),
        },
    )


RELEASE = Release(
    number=7,
    servers={"desk-dev": SERVER},
    tools={NAME: _tool()},
    old_tools={f"{NAME}@1": _tool(version=1)},
)


def test_live_and_kept_versions_are_found() -> None:
    """A release gives the live version and those still referred to, and no others."""
    assert [_tool(version=1), _tool(), None] == [
        RELEASE.tool_version(NAME, version) for version in (1, 2, 3)
    ]
    assert RELEASE.tool_version(ToolName("desk.issue.read"), 2) is None


def test_an_environment_sees_its_own_versions_as_the_newest() -> None:
    """Where versions differ, each view has all of them, and none is both newest and old."""
    mixed = replace(RELEASE, live_versions={f"{NAME}@dev": 2, f"{NAME}@prod": 1})

    views = {place: mixed.at(place) for place in ("dev", "prod")}

    assert {"dev": 2, "prod": 1} == {place: v.tools[NAME].version for place, v in views.items()}
    assert [f"{NAME}@2"] == list(views["prod"].old_tools)
    assert [1, 2] == views["prod"].versions_of(NAME)
    assert {"dev": 2, "prod": 1} == {
        place: tool.version for place, tool in views["prod"].every_live(NAME).items()
    }
    assert (RELEASE,) == RELEASE.views()


def test_binding_fixes_server_credentials_and_pin() -> None:
    """A tool bound in an environment carries all that a call needs, and what it was fixed by."""
    binding = RELEASE.binding(NAME, "dev")

    assert binding is not None
    assert (_tool(), "dev", SERVER) == (binding.tool, binding.environment, binding.server)
    assert (pin_of(_tool()), "secret://desk/dev/bot") == (binding.pin, binding.credentials)
    assert (False, None) == (binding.is_quarantined, binding.reason)


def test_unbound_tool_has_no_binding() -> None:
    """No tool, no environment, or a server that does not exist: nothing can be called."""
    assert RELEASE.binding(ToolName("desk.issue.read"), "dev") is None
    assert RELEASE.binding(NAME, "stage") is None
    assert RELEASE.binding(NAME, "prod") is None


def test_quarantine_holds_in_one_environment() -> None:
    """A quarantined binding says why; the same tool elsewhere is not affected."""
    servers = {"desk-dev": SERVER, "desk-prod": replace(SERVER, name="desk-prod")}
    release = replace(RELEASE, servers=servers, quarantine={f"{NAME}@dev": "it changed"})

    bindings = [release.binding(NAME, "dev"), release.binding(NAME, "prod")]

    assert [(True, "it changed"), (False, None)] == [
        (binding.is_quarantined, binding.reason) for binding in bindings if binding is not None
    ]


def test_pin_changes_with_the_definition_alone() -> None:
    """Anything that agents or policy see changes the pin; where the tool runs does not."""
    tool = _tool()

    assert pin_of(tool) == pin_of(replace(tool, environments={}))
    assert pin_of(tool) != pin_of(replace(tool, description="Creates an issue!"))
    assert pin_of(tool) != pin_of(replace(tool, request=McpCall(upstream="create2")))


def test_credentials_for_some_workflows_are_no_one_elses() -> None:
    """A workflow that is not named has none, as has a caller that names no workflow."""
    given = {WorkflowName("triage"): "secret://desk/dev/triage"}
    target = EnvironmentBinding(server="desk-dev", credentials=given)
    tool = replace(_tool(), environments={"dev": target})

    bound = [
        RELEASE.bind(tool, "dev", workflow)
        for workflow in (WorkflowName("triage"), WorkflowName("billing"), None)
    ]

    assert [("secret://desk/dev/triage", False), (None, True), (None, True)] == [
        (one.credentials, one.lacks_credentials) for one in bound if one is not None
    ]
