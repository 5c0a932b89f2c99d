"""The command `interlock`: every command under its name."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from interlock.cli.commands import (
    approvals,
    effects,
    evals,
    keys,
    policies,
    processes,
    project,
    questions,
    runs,
    tools,
    triggers,
    workflows,
)
from interlock.cli.commands.stops import autonomy, budgets, switches

app = typer.Typer(
    name="interlock",
    help="The control plane for AI agents: plan, route, govern, observe and evaluate their work.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _show_version(asked: bool) -> None:  # noqa: FBT001  # typer calls it so
    if asked:
        typer.echo(f"interlock {version('interlock')}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Take the options that come before a command."""


app.command("init")(project.init)
app.command("plan")(project.plan)
app.command("apply")(project.apply)
app.command("serve")(processes.serve)
app.command("worker")(processes.worker)
app.command("scheduler")(processes.scheduler)
app.command("doctor")(questions.doctor)
app.command("summary")(questions.summary)
app.command("who-can")(policies.who_can)
app.command("can")(policies.can)
app.add_typer(questions.why, name="why")
app.add_typer(runs.app, name="run")
app.add_typer(approvals.app, name="approval")
app.add_typer(effects.app, name="effect")
app.add_typer(effects.calls, name="call")
app.add_typer(evals.app, name="eval")
app.add_typer(autonomy.app, name="autonomy")
app.add_typer(budgets.app, name="budget")
app.add_typer(switches.app, name="kill")
app.add_typer(policies.app, name="policy")
app.add_typer(tools.app, name="tool")
app.add_typer(workflows.app, name="workflow")
app.add_typer(triggers.app, name="trigger")
app.add_typer(keys.app, name="key")
app.add_typer(keys.tokens, name="token")
app.add_typer(keys.secrets, name="secret")
