from __future__ import annotations

import pytest

from interlock.domain.release import PolicyFile
from interlock.policy.load import Policy, load, policy_set

GRANT = '@id("a") @owner("o") permit (principal, action, resource);'
GUARD = '@id("b") @why("w") forbid (principal, action, resource);'
RULE = '@id("c") @why("w") @approval("leads") forbid (principal, action, resource);'


def problems(text: str, *, folder: str = "grants") -> list[str]:
    """Return the problems of one file."""
    found = load((PolicyFile(path=f"{folder}/x.cedar", text=text),))[1]
    return [str(problem) for problem in found]


def loaded(text: str, *, folder: str) -> Policy:
    """Return the one policy of a file."""
    (policy,) = load((PolicyFile(path=f"{folder}/x.cedar", text=text),))[0]
    return policy


def test_statements_are_found_with_their_lines() -> None:
    """Semicolons in strings and comments end nothing; each policy knows its line."""
    text = (
        "// a comment; with one\n\n"
        f"{GRANT}\n"
        '@id("d;") @owner("o \\" ;")\n'
        "permit (principal, action, resource) // why; not\n"
        'when { "x;" == "x;" };\n'
    )

    policies, found = load((PolicyFile(path="grants/x.cedar", text=text),))

    assert () == found
    assert [("a", 3), ("d;", 4)] == [(policy.policy_id, policy.line) for policy in policies]


@pytest.mark.parametrize(
    ("text", "folder", "said"),
    [
        ("permit (principal)", "grants", "policies/grants/x.cedar:1: not Cedar: "),
        (GRANT.rstrip(";"), "grants", "policies/grants/x.cedar:1: not Cedar: "),
        (GRANT.replace("principal,", "principal == ?principal,"), "grants", "must not have slots"),
        (GRANT.replace('@id("a")', ""), "grants", "a policy needs an `@id`"),
        (GRANT.replace('"a"', '""'), "grants", "a policy needs an `@id`"),
        (GRANT.replace('@owner("o")', ""), "grants", "a permit needs an `@owner`"),
        (GRANT, "guardrails", "a permit belongs in grants/"),
        (GRANT.replace("@owner", '@approval("x") @owner'), "grants", "belong to forbids"),
        (
            GRANT.replace("@owner", '@onwer("o") @owner'),
            "grants",
            "`@onwer`, did you mean `@owner`",
        ),
        (GRANT.replace("@owner", '@zzz("o") @owner'), "grants", "unknown annotation `@zzz`"),
        (
            GRANT.replace("@owner", '@mode("observe") @owner'),
            "grants",
            "`@approval`, `@people`, `@draft` and `@mode` belong to forbids",
        ),
        (
            GRANT.replace("@owner", '@mode("off") @owner'),
            "grants",
            'a policy is enforced or has `@mode("observe")`, there is no other mode',
        ),
        (GUARD, "grants", "a forbid belongs in approvals/ or guardrails/"),
        (GUARD.replace('@why("w")', ""), "guardrails", "a forbid needs a `@why`"),
        (GUARD.replace('"w"', '""'), "guardrails", "a forbid needs a `@why`"),
        (RULE, "guardrails", "a guardrail is absolute"),
        (GUARD.replace("@why", "@draft @why"), "guardrails", "a guardrail is absolute"),
        (GUARD, "approvals", "needs either `@approval"),
        (RULE.replace("@why", "@draft @why"), "approvals", "needs either `@approval"),
        (RULE.replace("leads", ""), "approvals", "`@approval` needs the name of a group"),
        (RULE.replace("leads", "draft"), "approvals", "`@approval` needs the name of a group"),
        (GUARD.replace("@why", '@people("2") @why'), "guardrails", "so it needs an `@approval`"),
        (RULE.replace("@why", '@people("1") @why'), "approvals", 'from "2" to "5"'),
        (RULE.replace("@why", '@people("many") @why'), "approvals", 'from "2" to "5"'),
        (GUARD, "other", "belongs in one of the folders grants, approvals, guardrails"),
    ],
)
def test_policy_that_breaks_a_rule_of_writing_is_refused(text: str, folder: str, said: str) -> None:
    """The problem names file, line and rule."""
    assert any(said in problem for problem in problems(text, folder=folder))


def test_file_outside_the_folders_is_refused() -> None:
    """The folder says what kind of policies a file holds."""
    _, (problem,) = load((PolicyFile(path="grants", text=GRANT),))

    assert ("policies/grants", None) == (problem.path, problem.line)


def test_all_problems_of_all_files_are_found_together() -> None:
    """One bad statement hides no other."""
    text = f"permit;\n{GUARD}\n{GRANT}"

    policies, found = load(
        (PolicyFile(path="grants/x.cedar", text=text), PolicyFile(path="y.cedar", text=""))
    )

    assert ["a"] == [policy.policy_id for policy in policies]
    assert [1, 2, None] == [problem.line for problem in found]


def test_repeated_id_is_refused_and_points_to_the_first() -> None:
    """Ids are unique over all files."""
    files = (
        PolicyFile(path="grants/x.cedar", text=GRANT),
        PolicyFile(path="grants/y.cedar", text=f"\n{GRANT}"),
    )

    _, (problem,) = load(files)

    assert (
        "policies/grants/y.cedar:2: the id `a` is used before, at policies/grants/x.cedar:1"
        == str(problem)
    )


@pytest.mark.parametrize(
    "condition",
    [
        'context.lifted.contains("leads")',
        "context has lifted",
        "context has lifted.x",
        "{a: context}.a.lifted.isEmpty()",
        "(if true then context else context).lifted.isEmpty()",
        '[1].contains(1) && !context.lifted.contains("x")',
    ],
)
def test_authored_use_of_lifted_is_refused(condition: str) -> None:
    """Only the loader writes that condition."""
    text = GUARD.replace(";", f" when {{ {condition} }};")

    (problem,) = problems(text, folder="guardrails")

    assert problem.startswith("policies/guardrails/x.cedar:1: `context.lifted` is reserved")


@pytest.mark.parametrize(
    "condition",
    [
        "context.args.lifted",
        "context.args has lifted",
        "context.args.weight.lifted > 1",
        "context.derived.lifted > 1",
        "context.args.x == {lifted: 1}",
        'principal like "lifted*"',
    ],
)
def test_argument_named_lifted_is_not_meant(condition: str) -> None:
    """A crane may have a tool of its own."""
    text = GUARD.replace(";", f" when {{ {condition} }};")

    assert [] == problems(text, folder="guardrails")


def test_loader_adds_the_condition_that_the_annotation_names() -> None:
    """Annotation and condition cannot disagree."""
    rendered = str(policy_set([loaded(RULE, folder="approvals")]))

    assert 'unless { (context.lifted).contains("leads") }' in rendered


def test_each_of_several_people_has_to_lift_it() -> None:
    """The second one stands for a group of its own, so no one can be both."""
    policy = loaded(RULE.replace("@why", '@people("3") @why'), folder="approvals")
    rendered = str(policy_set([policy]))

    assert ("leads", "leads#2", "leads#3") == policy.groups
    assert all(f'.contains("{group}")' in rendered for group in policy.groups)
    assert () == policy.conditions


def test_draft_is_lifted_by_the_reserved_group() -> None:
    """A draft rule is a rule that the group `draft` lifts, which nobody is in."""
    policy = loaded(GUARD.replace("@why", "@draft @why"), folder="approvals")

    assert ("draft",) == policy.groups
    assert '.contains("draft")' in str(policy_set([policy]))


def test_guardrail_is_loaded_as_it_is_written() -> None:
    """Nothing is added to what nobody may lift."""
    policy = loaded(GUARD, folder="guardrails")

    assert ((), "w", GUARD) == (policy.groups, policy.why, policy.text)
    assert "lifted" not in str(policy_set([policy]))
