"""The command `interlock`: parse, ask the application, print."""

from __future__ import annotations

import typer

from interlock.cli import (
    approvals,
    catalog,
    effects,
    evals,
    keys,
    project,
    questions,
    runs,
    server,
    triggers,
)

app = typer.Typer(
    name="interlock",
    help="The control plane for AI agents: plan, route, govern, observe and evaluate their work.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(runs.app, name="run")
app.add_typer(approvals.app, name="approval")
app.add_typer(effects.app, name="effect")
app.add_typer(catalog.tools, name="tool")
app.add_typer(catalog.workflows, name="workflow")
app.add_typer(triggers.app, name="trigger")
app.add_typer(keys.app, name="key")
app.add_typer(keys.secrets, name="secret")
app.add_typer(evals.app, name="eval")
app.add_typer(questions.why, name="why")
app.command("serve")(server.serve)
app.command("worker")(server.worker)
app.command("doctor")(questions.doctor)
app.command("summary")(questions.summary)
app.command("init")(project.init)
app.command("plan")(project.plan)
app.command("apply")(project.apply)

call = typer.Typer(help="Single tool calls with all their reasons.", no_args_is_help=True)
call.command("show")(effects.show)
app.add_typer(call, name="call")
