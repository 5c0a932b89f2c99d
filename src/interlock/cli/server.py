"""`interlock serve` and `interlock worker`: the processes that do the work."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from typing import Annotated

import structlog
import typer
import uvicorn
from rich.text import Text

from interlock.app import Interlock
from interlock.cli.client import Address, write_address
from interlock.cli.output import out, settings, tells_errors
from interlock.config import Config
from interlock.domain.errors import UnavailableError
from interlock.serve.auth import hash_secret, mint_link
from interlock.serve.http import create_app
from interlock.serve.local import local_token
from interlock.serve.routes.keys import link_for
from interlock.store import keys

_GRACE_S = 30


@tells_errors
def serve(
    *,
    with_worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Also run the work here.")
    ] = True,
) -> None:
    """Run the server: REST, webhooks, console, scheduler and, by default, a worker."""
    config = settings()
    _configure_log(config)
    interlock = Interlock.open(config)
    listener = _listen(config)
    interlock.url = f"http://{config.host}:{listener.getsockname()[1]}"
    token = local_token(interlock)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(interlock),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=_GRACE_S,
            server_header=False,
        )
    )
    if with_worker:
        interlock.start()
    file = write_address(config.data_dir, Address(url=interlock.url, token=token))
    out.print(Text(f"interlock listens at {interlock.url}"))
    out.print(Text(f"console: {_link(interlock, token)}"))
    try:
        server.run(sockets=[listener])
    finally:
        file.unlink(missing_ok=True)
        interlock.close()


@tells_errors
def worker() -> None:
    """Run work from a Postgres database that a server uses too; stops on SIGTERM when drained."""
    config = settings()
    _configure_log(config)
    if config.database_url is None:
        msg = "a worker of its own needs Postgres; on SQLite `interlock serve` does the work"
        raise UnavailableError(msg)
    interlock = Interlock.open(config)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    interlock.start()
    out.print(Text(f"worker {interlock.executor_id} is ready"))
    stop.wait()
    interlock.close()


def _listen(config: Config) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        msg = f"cannot listen at {config.host}:{config.port}: {error.strerror}; set another port"
        raise UnavailableError(msg) from None
    return listener


def _link(interlock: Interlock, token: str) -> str:
    with interlock.db.reading() as tx:
        found = keys.find_key(tx, hash_secret(token))
    # INVARIANT: the local key was found or minted a moment ago.
    assert found is not None
    secret = interlock.db.run("link.create", lambda tx: mint_link(tx, found.key_id))
    return link_for(interlock.url, secret)


def _configure_log(config: Config) -> None:
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    render: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if config.log_format == "json"
        else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, render], logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )
