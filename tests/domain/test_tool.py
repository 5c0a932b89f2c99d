from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.ids import ToolName
from interlock.domain.tool import (
    ConnectorKind,
    EffectClass,
    EffectSpec,
    Group,
    PythonCall,
    Sink,
    Source,
    ToolVersion,
)

TOOL = ToolVersion(
    name=ToolName("desk.issue.create"),
    version=1,
    owner="it",
    title="Create an issue",
    description="Creates an issue.",
    system="desk",
    connector=ConnectorKind.PYTHON,
    request=PythonCall(function="create"),
    input_schema={},
    output_schema={},
)


def test_undeclared_properties_take_the_strictest_value() -> None:
    """A tool that declares nothing is a blind write whose results are not trusted."""
    assert (Group.WRITE, True) == (TOOL.group, TOOL.is_write)
    assert EffectSpec(effect_class=EffectClass.BLIND) == TOOL.effect
    assert Source(labels=frozenset({"undeclared"}), is_trusted=False) == TOOL.source
    assert Sink(accepts=frozenset()) == TOOL.sink
    assert (None, {}) == (TOOL.compensation, dict(TOOL.environments))


@pytest.mark.parametrize(
    ("group", "expected"),
    [(Group.READ, False), (Group.WRITE, True), (Group.DESTRUCTIVE, True)],
)
def test_all_but_reads_are_writes(group: Group, *, expected: bool) -> None:
    """Destructive is a kind of write."""
    assert expected == replace(TOOL, group=group).is_write
