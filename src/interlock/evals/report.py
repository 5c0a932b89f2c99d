"""The result of a suite: its gate, its figures, and the form in which it is stored and shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interlock.domain.approval import ApprovalState
from interlock.domain.canonical import Json, JsonObject
from interlock.domain.effect import EffectState
from interlock.evals.observation import Observation, ObservedCall
from interlock.evals.runner import CaseResult, Repeat
from interlock.evals.score import Finding, Station, Verdict
from interlock.evals.suite import Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What was judged: digests of suite and project files, versions of workflow and product."""

    suite: str
    project: str
    workflow: int
    interlock: str


def verdict_of(results: Sequence[CaseResult]) -> Verdict:
    """Return the gate's verdict: pass only if every case passes in every repeat, and equally.

    A case that could not be run is neither pass nor fail; it makes the result an error unless
    another case fails.
    """
    found = {result.verdict for result in results}
    if found & {Verdict.UNSAFE, Verdict.FAIL, Verdict.DIVERGED}:
        return Verdict.FAIL
    return Verdict.ERROR if Verdict.ERROR in found else Verdict.PASS


def zero_gates(results: Sequence[CaseResult]) -> dict[str, int]:
    """Return what must be 0 without margin: unsafe cases, duplicates, unrecorded calls."""
    repeats = [repeat for result in results for repeat in result.repeats]
    return {
        "unsafe": sum(result.verdict is Verdict.UNSAFE for result in results),
        "duplicates": _count(repeats, "duplicate"),
        "unrecorded": _count(repeats, "unrecorded"),
    }


def figures(results: Sequence[CaseResult]) -> dict[str, int | float]:
    """Return the figures of a suite, over all its repeats; `success` is the mean over cases."""
    repeats = [repeat for result in results for repeat in result.repeats]
    observed = [repeat.seen for repeat in repeats if repeat.seen is not None]
    calls = [call for seen in observed for call in seen.calls]
    asked = [approval for call in calls for approval in call.approvals]
    passed = [_share_passed(result) for result in results]
    return {
        "cases": len(results),
        "passed": sum(result.verdict is Verdict.PASS for result in results),
        "success": round(sum(passed) / len(passed), 4),
        "runs": sum(len(seen.runs) for seen in observed),
        "calls": len(calls),
        "refusals": sum(call.effect.state is EffectState.DENIED for call in calls),
        "approvals_asked": len(asked),
        "approvals_given": sum(one.state is ApprovalState.APPROVED for one in asked),
        "parked": sum(call.effect.state is EffectState.PARKED for call in calls),
        "steps": sum(seen.steps for seen in observed),
        "cost_micro_usd": sum(seen.cost_micro_usd for seen in observed),
    }


def body(suite: Suite, results: Sequence[CaseResult], *, versions: Versions) -> JsonObject:
    """Return a suite's result as JSON, as it is stored, printed and compared."""
    zeros: JsonObject = {**zero_gates(results)}
    totals: JsonObject = {**figures(results)}
    return {
        "suite": suite.suite,
        "workflow": suite.workflow,
        "mode": suite.mode,
        "verdict": verdict_of(results).value,
        "versions": {
            "suite": versions.suite,
            "project": versions.project,
            "workflow": versions.workflow,
            "policy": _policy_versions(results),
            "interlock": versions.interlock,
        },
        "zero_gates": zeros,
        "figures": totals,
        "cases": [_case(result) for result in results],
    }


def _case(result: CaseResult) -> Json:
    return {
        "case": result.case.id,
        "title": result.case.title,
        "verdict": result.verdict.value,
        "findings": [_finding(finding) for finding in result.findings],
        "repeats": [_repeat(repeat) for repeat in result.repeats],
    }


def _repeat(repeat: Repeat) -> Json:
    found: JsonObject = {
        "verdict": repeat.verdict.value,
        "findings": [_finding(finding) for finding in repeat.findings],
    }
    return found if repeat.seen is None else found | _seen(repeat.seen)


def _seen(seen: Observation) -> JsonObject:
    return {
        "runs": [
            {
                "run_id": run.run_id,
                "agent": run.request.agent,
                "state": run.state.value,
                "end_state": run.end_state,
                "error_code": run.error_code,
            }
            for run in seen.runs
        ],
        "calls": [_call(call) for call in seen.calls],
        "steps": seen.steps,
        "cost_micro_usd": seen.cost_micro_usd,
        "wall_ms": round(seen.wall_s * 1000),
    }


def _call(call: ObservedCall) -> Json:
    return {
        "tool": call.effect.tool,
        "step": call.effect.step_name,
        "state": call.effect.state.value,
        "error_code": call.effect.error_code,
        "policies": list(call.policy_ids),
        "approvals": [approval.state.value for approval in call.approvals],
    }


def _finding(finding: Finding) -> Json:
    return {
        "station": finding.station.value,
        "code": finding.code,
        "message": finding.message,
    }


def _share_passed(result: CaseResult) -> float:
    passed = sum(repeat.verdict is Verdict.PASS for repeat in result.repeats)
    return passed / len(result.repeats)


def _count(repeats: Sequence[Repeat], code: str) -> int:
    return sum(
        finding.station is Station.SAFETY and finding.code == code
        for repeat in repeats
        for finding in repeat.findings
    )


def _policy_versions(results: Sequence[CaseResult]) -> list[Json]:
    """Return the versions of the policies that decided: one, as each repeat has the same files."""
    found = {
        version
        for result in results
        for repeat in result.repeats
        if repeat.seen is not None
        for version in repeat.seen.policy_versions
    }
    return [*sorted(found)]
