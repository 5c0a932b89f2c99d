from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.errors import Problem
from interlock.domain.ids import ToolName
from interlock.domain.tool import PolicyView, Sink, Source
from interlock.policy import lint
from interlock.policy.engine import ModelResource
from tests.policy.project import MODELS, REFUND, policy_files, release, tool, tools

ASK_MODEL = """
@id("m") @why("w")
forbid (principal, action in Action::"model", resource == Model::"defualt");"""


def said(*texts: str) -> list[str]:
    """Return the problems of policy statements beside the defaults."""
    return [str(problem) for problem in lint.check(release(*policy_files(*texts)))]


def test_good_project_has_no_problem() -> None:
    """The default policies pass in a project of every kind of tool."""
    assert () == lint.check(release(), models=MODELS)


def test_problem_names_file_line_and_the_nearest_name() -> None:
    """A person finds the place and what was probably meant."""
    files = policy_files(
        '\n\n@id("g") @owner("o") permit (principal in Workflow::"refund", action, resource);'
    )

    (problem,) = lint.check(release(*files))

    assert problem == Problem(
        path="policies/grants/test0.cedar",
        line=3,
        message="there is no workflow `refund`",
        fix="did you mean `refunds`?",
    )


def test_name_in_a_condition_must_exist_too() -> None:
    """Literals are looked up wherever they stand."""
    rule = '@id("x") @why("w") forbid (principal, action, resource) when { principal in Workflow::"zzz" };'  # noqa: E501  # one policy

    assert ["policies/guardrails/test0.cedar:1: there is no workflow `zzz`"] == said(rule)


def test_group_that_is_no_team_is_refused() -> None:
    """Nobody could answer for it."""
    rule = '@id("x") @why("w") @approval("{}") forbid (principal, action, resource);'

    near, far, reserved = (
        said(rule.format(group)) for group in ("securty", "nobody", "system-owner")
    )

    where = "policies/approvals/test0.cedar:1: `x` asks the group"
    assert [f"{where} `securty`, which is no team here (did you mean `security`?)"] == near
    assert [f"{where} `nobody`, which is no team here (add it to `teams`)"] == far
    assert [] == reserved


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("context.args.ratio > 1", "attribute `args.ratio`"),
        ("context.args.amount_cents > true", "unexpected type"),
        ("context.nothing", "attribute `nothing`"),
    ],
)
def test_condition_that_does_not_fit_the_schema_is_refused(condition: str, message: str) -> None:
    """Hidden arguments, wrong types and unknown facts are refused at load."""
    rule = f"""@id("x") @why("w")
    forbid (principal, action == Action::"{REFUND}", resource) when {{ {condition} }};"""

    (problem,) = said(rule)

    assert message in problem


def test_cause_is_told_without_what_follows_from_it() -> None:
    """An unknown action is one problem, not two."""
    rule = '@id("x") @why("w") forbid (principal, action == Action::"billing.refnd", resource);'

    (problem,) = said(rule)

    assert 'unrecognized action `Action::"billing.refnd"`' in problem


def test_scope_that_fits_no_action_is_refused() -> None:
    """A model is no resource of a tool's action."""
    rule = (
        f'@id("x") @why("w") forbid (principal, action == Action::"{REFUND}", resource is Model);'
    )

    (problem,) = said(rule)

    assert "`x`: unable to find an applicable action" in problem


def test_model_names_are_checked_where_models_are_known() -> None:
    """The manifest does not know the installation's models; the world does."""
    project = release(*policy_files(ASK_MODEL))

    unknown, known = lint.check(project), lint.check(project, models=MODELS)

    assert ((), ["there is no model `defualt`"]) == (
        unknown,
        [problem.message for problem in known],
    )


def test_labels_of_tools_and_models_must_be_declared() -> None:
    """An undeclared label would deny every later call of the run that reads it."""
    odd = tool("web.page.fetch", source=Source(labels=frozenset({"px"})), sink=Sink())
    models = {"m": ModelResource(name="m", external=False, accepts=frozenset({"nope"}))}
    project = release(tools=tools() | {ToolName("web.page.fetch"): odd})

    found = [str(problem) for problem in lint.check(project, models=models)]

    assert [
        "tool web.page.fetch@1: there is no label `px` (add it to `labels`)",
        "model m: there is no label `nope` (add it to `labels`)",
    ] == found


def test_malformed_derived_value_is_refused() -> None:
    """A tool whose derived value cannot be read has no action."""
    odd = tool("web.page.fetch", policy_view=PolicyView(derived={"d": "hots(/url)"}))

    (problem,) = lint.check(release(tools=tools() | {ToolName("web.page.fetch"): odd}))

    assert "tool web.page.fetch@1" == problem.path
    assert problem.message.startswith("`hots(/url)` is no derived value")


def test_tool_with_a_reserved_name_is_refused() -> None:
    """A tool cannot pass for a group of actions."""
    odd = replace(tool("web.page.fetch"), name=ToolName("write"))

    (problem,) = lint.check(release(tools=tools() | {ToolName("write"): odd}))

    assert "`write` is a reserved name" == problem.message


def test_label_may_hold_any_character() -> None:
    """Names reach Cedar as JSON, so none of them can end a string."""
    assert () == lint.check(release(labels=("pii", "finance", 'a"b\n')))
