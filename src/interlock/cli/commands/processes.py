"""`interlock serve` and `interlock worker`: start the processes that do the work."""

from __future__ import annotations

from typing import Annotated

import typer

from interlock.cli.output import settings, tells_errors

Scheduler = Annotated[
    bool,
    typer.Option(
        "--scheduler/--no-scheduler", help="Also fire schedules and delete what is old, here."
    ),
]


@tells_errors
def serve(
    *,
    with_worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Also run the work here.")
    ] = True,
    with_scheduler: Scheduler = True,
) -> None:
    """Run the server: REST, webhooks, console and, unless told otherwise, scheduler and worker."""
    config = settings()
    # The application takes seconds to load, which the other commands need not spend.
    from interlock.cli import server  # noqa: PLC0415

    server.serve(config, with_worker=with_worker, with_scheduler=with_scheduler)


@tells_errors
def worker(*, with_scheduler: Scheduler = True) -> None:
    """Run work from the Postgres database of a server; SIGTERM hands back what is unfinished."""
    config = settings()
    from interlock.cli import server  # noqa: PLC0415  # as above

    server.work(config, with_worker=True, with_scheduler=with_scheduler)


@tells_errors
def scheduler() -> None:
    """Fire schedules and delete what is kept long enough, of a Postgres database; runs no work."""
    config = settings()
    from interlock.cli import server  # noqa: PLC0415  # as above

    server.work(config, with_worker=False, with_scheduler=True)
