"""`interlock eval`: run golden suites, keep what they say, show it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from interlock.cli.log import log_to_file
from interlock.cli.output import (
    AsJson,
    connected,
    money,
    note,
    part,
    rows_of,
    say,
    settings,
    show_json,
    table,
    tells_errors,
)
from interlock.domain.canonical import Json, JsonObject

app = typer.Typer(
    help="Golden suites: does the workflow still do what it should?", no_args_is_help=True
)

EXIT_CODES: Mapping[str, int] = {"pass": 0, "fail": 1, "error": 3}
"""Exit codes of `run` by verdict; 2, inconclusive, belongs to sampled suites."""
_ANY_ERROR = 1


@app.command("run")
def run(
    folder: Annotated[Path, typer.Argument(help="The suite's folder, which holds suite.yaml.")],
    *,
    case: Annotated[list[str] | None, typer.Option(help="Only this case; repeatable.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, max=20, help="Instead of its own.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a suite and store its result; exit code 0 pass, 1 fail, 3 error.

    Starts the programs that the suite names, on loopback, with data in a temporary folder. A
    result of some cases, or of fewer repeats than the suite wants, is shown and not stored.
    """
    try:
        body = _run(folder, tuple(case or ()), repeats=repeats, as_json=as_json)
    except typer.Exit as stop:
        # An error is no verdict: 1 would say that the workflow failed.
        code = EXIT_CODES["error"] if stop.exit_code == _ANY_ERROR else stop.exit_code
        raise typer.Exit(code) from None
    raise typer.Exit(EXIT_CODES[str(body["verdict"])])


@app.command("show")
@tells_errors
def show(
    name: Annotated[str, typer.Argument(help="The suite's name.")], *, as_json: AsJson = False
) -> None:
    """Show the newest stored result of a suite."""
    with connected() as client:
        found = client.get("evals", name)
    body = found["body"]
    # INVARIANT: a stored result has an object for its body.
    assert isinstance(body, dict)
    if as_json:
        show_json(found)
    else:
        _print(body)


@tells_errors
def _run(
    folder: Path, case_ids: tuple[str, ...], *, repeats: int | None, as_json: bool
) -> JsonObject:
    # The application takes seconds to load, which other commands need not spend.
    from interlock.cli import suites  # noqa: PLC0415

    with log_to_file(settings().data_dir):
        judged = suites.run(folder, case_ids=case_ids, repeats=repeats, tell=note)
    if as_json:
        show_json(judged.body)
    else:
        _print(judged.body)
    if judged.is_whole:
        _store(judged.body, judged.texts)
    else:
        note("not stored, as only a part of the suite was run")
    return judged.body


def _store(body: JsonObject, texts: Mapping[str, str]) -> None:
    """Store a result with the number of the live release, 0 if the project is not what is live."""
    sent: JsonObject = {**texts}
    with connected() as client:
        planned = client.post("project", "plan", body={"files": sent})
        workflow = str(body["workflow"])
        found = part(planned, "versions", workflow)
        versions = {str(each) for each in found.values()} if isinstance(found, dict) else set()
        client.post(
            "evals",
            body={
                "suite": body["suite"],
                "suite_digest": part(body, "versions", "suite"),
                "release": planned["base"] if planned["is_empty"] else 0,
                "verdict": body["verdict"],
                "workflow": workflow,
                "versions": [*sorted(versions)],
                "body": body,
            },
        )


def _print(body: JsonObject) -> None:
    cases = rows_of(body, "cases")
    table(
        ("case", "verdict", "passed", "steps", "cost", "station"),
        [_row(case) for case in cases],
        empty="no cases",
    )
    for case in cases:
        lines = (f"{f['station']}: {f['message']}" for f in _findings(case))
        # What is wrong in each repeat is said once.
        for line in dict.fromkeys(lines):
            say(f"{case['case']}: {line}", "red")
    zeros = part(body, "zero_gates")
    # INVARIANT: every result has its zero gates.
    assert isinstance(zeros, dict)
    say(f"must be 0: {', '.join(f'{name} {count}' for name, count in zeros.items())}")
    passed, style = part(body, "figures", "passed"), "green" if body["verdict"] == "pass" else "red"
    say(f"{body['suite']}: {body['verdict']}, {passed} of {len(cases)} cases", style)


def _row(case: JsonObject) -> list[Json]:
    repeats, findings = rows_of(case, "repeats"), _findings(case)
    passed = sum(repeat["verdict"] == "pass" for repeat in repeats)
    return [
        case["case"],
        case["verdict"],
        f"{passed}/{len(repeats)}",
        repeats[0].get("steps"),
        money(repeats[0].get("cost_micro_usd")),
        findings[0]["station"] if findings else None,
    ]


def _findings(case: JsonObject) -> list[JsonObject]:
    repeats = rows_of(case, "repeats")
    return rows_of(case, "findings") + [f for one in repeats for f in rows_of(one, "findings")]
