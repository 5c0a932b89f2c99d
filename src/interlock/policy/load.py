"""Reads policy files: one policy per statement, with its line, its kind and who may lift it.

The author of an approval rule writes a plain forbid; the loader adds
`unless { context.lifted.contains("<group>") }`, so annotation and condition cannot disagree. With
`@people("2")` two different people of the group have to agree: the second one stands for a group of
its own.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Literal, TypeAlias

import cedarpy
from cedarpy import pst

from interlock.domain.approval import MOST_PEOPLE, groups_of, team_of
from interlock.domain.errors import Problem
from interlock.domain.release import PolicyFile

DRAFT = "draft"
WORKFLOW_OWNER = "workflow-owner"
SYSTEM_OWNER = "system-owner"
RESERVED_GROUPS = frozenset({DRAFT, WORKFLOW_OWNER, SYSTEM_OWNER})
"""Groups that are no teams: the first is no approval at all, the others depend on the call."""

_LIFTED = "lifted"
_ANNOTATIONS = frozenset({"id", "owner", "why", "approval", "people", "draft", "mode"})
_OBSERVE = "observe"
_PEOPLE = frozenset(map(str, range(2, MOST_PEOPLE + 1)))
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|;|\S', re.DOTALL)

Kind: TypeAlias = Literal["grants", "approvals", "guardrails"]
KINDS: tuple[Kind, ...] = ("grants", "approvals", "guardrails")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One loaded policy.

    `groups` (or `draft`) all have to lift it, none can for grants and guardrails; `rule` is its
    tree with that condition added; `path` and `line` say where it was written. One that
    `is_observed` is told of wherever it holds, and changes no decision.
    """

    policy_id: str
    kind: Kind
    why: str
    groups: tuple[str, ...]
    text: str
    rule: pst.Template
    path: str
    line: int
    is_observed: bool = False

    @property
    def conditions(self) -> tuple[pst.Clause, ...]:
        """Return the clauses as they were written, without the one that lifting adds."""
        clauses = self.rule.clauses
        return clauses[:-1] if self.groups else clauses

    def is_liftable(self, teams: Mapping[str, str]) -> bool:
        """Return whether anybody could lift it: behind a reserved group there has to be a team."""
        known = ({team_of(group) for group in self.groups} - {DRAFT}) & RESERVED_GROUPS
        return bool(self.groups) and known <= teams.keys()


def load(files: Iterable[PolicyFile]) -> tuple[tuple[Policy, ...], tuple[Problem, ...]]:
    """Return the policies that read well, in order of files and lines, and all problems found."""
    policies: dict[str, Policy] = {}
    problems: list[Problem] = []
    for file in files:
        for loaded in _load_file(file):
            if isinstance(loaded, Problem):
                problems.append(loaded)
            elif loaded.policy_id in policies:
                first = policies[loaded.policy_id]
                message = (
                    f"the id `{loaded.policy_id}` is used before, at {first.path}:{first.line}"
                )
                problems.append(Problem(path=loaded.path, line=loaded.line, message=message))
            else:
                policies[loaded.policy_id] = loaded
    return tuple(policies.values()), tuple(problems)


def policy_set(policies: Iterable[Policy]) -> cedarpy.PolicySet:
    """Return a handle on policies, named by their ids."""
    rules = {policy.policy_id: policy.rule for policy in policies}
    return cedarpy.PolicySet.from_pst(
        pst.PolicySet(templates={}, static_policies=rules, template_links=())
    )


def _load_file(file: PolicyFile) -> Iterator[Policy | Problem]:
    path = f"policies/{file.path}"
    folder, slash, _ = file.path.partition("/")
    kind = next((known for known in KINDS if slash and known == folder), None)
    if kind is None:
        yield Problem(
            path=path,
            line=None,
            message=f"a policy file belongs in one of the folders {', '.join(KINDS)}",
        )
        return
    for line, text in _statements(file.text):
        # Cedar's validator warns of such characters, but the binding does not pass warnings on.
        hidden = next((char for char in text if _is_invisible(char)), None)
        if hidden is not None:
            message = f"the invisible character U+{ord(hidden):04X} makes text look like another"
            yield Problem(path=path, line=line, message=message)
            continue
        try:
            parsed = cedarpy.policies_to_pst(text)
        except ValueError as error:
            yield Problem(path=path, line=line, message=f"not Cedar: {str(error).lower()}")
            continue
        if parsed.templates or len(parsed.static_policies) != 1:
            yield Problem(
                path=path, line=line, message="a policy must not have slots like ?principal"
            )
            continue
        (rule,) = parsed.static_policies.values()
        problems = [
            Problem(path=path, line=line, message=message)
            for message in (*_annotation_problems(rule, kind), *_use_of_lifted(rule))
        ]
        if problems:
            yield from problems
        else:
            yield _policy(rule, kind, text=text, path=path, line=line)


def _is_invisible(char: str) -> bool:
    return unicodedata.category(char) in {"Cc", "Cf"} and char not in "\n\r\t"


def _policy(rule: pst.Template, kind: Kind, *, text: str, path: str, line: int) -> Policy:
    notes = rule.annotations
    people = int(notes.get("people", 1))
    groups = groups_of(notes["approval"], people) if "approval" in notes else ()
    groups = (DRAFT,) if "draft" in notes else groups
    return Policy(
        policy_id=notes["id"],
        kind=kind,
        why=notes.get("why", ""),
        groups=groups,
        text=text,
        rule=_liftable(rule, groups),
        path=path,
        line=line,
        is_observed="mode" in notes,
    )


def _liftable(rule: pst.Template, groups: tuple[str, ...]) -> pst.Template:
    clauses = rule.clauses
    if groups:
        lifted = pst.GetAttr(pst.Var("context"), _LIFTED)
        have = [pst.BinaryOp("contains", lifted, pst.StringLit(group)) for group in groups]
        both = reduce(lambda left, right: pst.BinaryOp("and", left, right), have)
        clauses = (*clauses, pst.Unless(both))
    return dataclasses.replace(rule, id=rule.annotations["id"], clauses=clauses)


def _annotation_problems(rule: pst.Template, kind: Kind) -> Iterator[str]:
    notes = rule.annotations
    for name in sorted(set(notes) - _ANNOTATIONS):
        near = get_close_matches(name, _ANNOTATIONS, n=1)
        yield f"unknown annotation `@{name}`" + (f", did you mean `@{near[0]}`" if near else "")
    if not notes.get("id"):
        yield "a policy needs an `@id`"
    is_liftable = "approval" in notes or "draft" in notes
    if notes.get("mode", _OBSERVE) != _OBSERVE:
        yield f'a policy is enforced or has `@mode("{_OBSERVE}")`, there is no other mode'
    if rule.effect == "permit":
        if kind != "grants":
            yield "a permit belongs in grants/"
        if not notes.get("owner"):
            yield "a permit needs an `@owner`"
        if is_liftable or "mode" in notes or "people" in notes:
            yield "`@approval`, `@people`, `@draft` and `@mode` belong to forbids"
        return
    if kind == "grants":
        yield "a forbid belongs in approvals/ or guardrails/"
    if not notes.get("why"):
        yield "a forbid needs a `@why`, which agents and people read"
    if kind == "guardrails" and is_liftable:
        yield "a guardrail is absolute: `@approval` and `@draft` belong in approvals/"
    yield from _people_problems(notes)
    if kind == "approvals":
        yield from _approval_problems(notes.get("approval"), is_draft="draft" in notes)


def _people_problems(notes: Mapping[str, str]) -> Iterator[str]:
    if "people" in notes and "approval" not in notes:
        yield "`@people` says how many approve, so it needs an `@approval`"
    elif "people" in notes and notes["people"] not in _PEOPLE:
        yield f'`@people` is a number of people from "2" to "{MOST_PEOPLE}"'


def _approval_problems(group: str | None, *, is_draft: bool) -> Iterator[str]:
    if (group is None) != is_draft:
        yield 'a forbid in approvals/ needs either `@approval("<group>")` or `@draft`'
    elif group in {"", DRAFT}:
        yield "`@approval` needs the name of a group"


def _use_of_lifted(rule: pst.Template) -> Iterator[str]:
    """Find any way to read `context.lifted`; a tool's argument of that name is not meant."""
    stack: list[object] = [*rule.clauses]
    while stack:
        node = stack.pop()
        names: tuple[str, ...] = ()
        if isinstance(node, pst.GetAttr):
            names = (node.attr,)
        elif isinstance(node, pst.HasAttr):
            names = node.attrs
        if _LIFTED in names and not _is_argument(node):
            yield "`context.lifted` is reserved: write `@approval` and let the loader add it"
            return
        stack.extend(children_of(node))


def _is_argument(node: object) -> bool:
    """Whether a node reads from inside `context.args` or `context.derived`."""
    while isinstance(node, pst.GetAttr | pst.HasAttr):
        base = node.base
        if isinstance(base, pst.GetAttr) and base.base == pst.Var("context"):
            return base.attr in {"args", "derived"}
        node = base
    return False


def children_of(node: object) -> Iterator[object]:
    """Yield what a node of a policy's tree directly holds."""
    if isinstance(node, tuple):
        yield from node
    elif isinstance(node, dict):
        yield from node.values()
    elif dataclasses.is_dataclass(node) and not isinstance(node, type):
        for part in dataclasses.fields(node):
            yield getattr(node, part.name)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Split Cedar text into statements, each with the line on which it starts."""
    start: int | None = None
    end = 0
    for token in _TOKEN.finditer(text):
        if token[0].startswith("//"):
            continue
        start = token.start() if start is None else start
        end = token.end()
        if token[0] == ";":
            yield text.count("\n", 0, start) + 1, text[start:end]
            start = None
    if start is not None:
        yield text.count("\n", 0, start) + 1, text[start:end]
