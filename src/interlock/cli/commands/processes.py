"""`interlock serve` and `interlock worker`: start the processes that do the work."""

from __future__ import annotations

from typing import Annotated

import typer

from interlock.cli.output import settings, tells_errors


@tells_errors
def serve(
    *,
    with_worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Also run the work here.")
    ] = True,
) -> None:
    """Run the server: REST, webhooks, console and, unless told otherwise, scheduler and worker."""
    config = settings()
    # The application takes seconds to load, which the other commands need not spend.
    from interlock.cli import server  # noqa: PLC0415

    server.serve(config, with_worker=with_worker)


@tells_errors
def worker() -> None:
    """Run work from the Postgres database of a server; SIGTERM hands back what is unfinished."""
    config = settings()
    from interlock.cli import server  # noqa: PLC0415  # as above

    server.work(config)
