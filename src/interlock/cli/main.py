"""The command `interlock`: every command under its name."""

from __future__ import annotations

import typer

from interlock.cli.commands import (
    approvals,
    effects,
    evals,
    keys,
    processes,
    project,
    questions,
    runs,
    tools,
    triggers,
    workflows,
)

app = typer.Typer(
    name="interlock",
    help="The control plane for AI agents: plan, route, govern, observe and evaluate their work.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command("init")(project.init)
app.command("plan")(project.plan)
app.command("apply")(project.apply)
app.command("serve")(processes.serve)
app.command("worker")(processes.worker)
app.command("doctor")(questions.doctor)
app.command("summary")(questions.summary)
app.add_typer(questions.why, name="why")
app.add_typer(runs.app, name="run")
app.add_typer(approvals.app, name="approval")
app.add_typer(effects.app, name="effect")
app.add_typer(effects.calls, name="call")
app.add_typer(evals.app, name="eval")
app.add_typer(tools.app, name="tool")
app.add_typer(workflows.app, name="workflow")
app.add_typer(triggers.app, name="trigger")
app.add_typer(keys.app, name="key")
app.add_typer(keys.secrets, name="secret")
