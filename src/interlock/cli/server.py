"""The processes that do the work: a server with everything in it, and workers beside it."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from dataclasses import replace

from interlock.app import Interlock
from interlock.cli.client import Address, running_server, write_address
from interlock.cli.log import log_to_terminal
from interlock.cli.output import say
from interlock.config import Config
from interlock.domain.errors import ConflictError, InputError, UnavailableError
from interlock.serve import doctor
from interlock.serve.auth import hash_secret, mint_link
from interlock.serve.http import create_app
from interlock.serve.local import local_token
from interlock.serve.process import Server
from interlock.serve.queues.loop import QueueLoop
from interlock.serve.routes.keys import link_for
from interlock.store import keys, registry
from interlock.tools.functions import installed_functions

_BACKLOG = 128
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(config: Config, *, with_worker: bool, with_scheduler: bool) -> None:
    """Run REST, webhooks, queues, console and, if asked, worker and scheduler until a signal."""
    log_to_terminal(config.log_format)
    other = running_server(config)
    if other is not None and config.database_url is None:
        raise ConflictError(f"a server of this data folder runs already at {other.url}")
    with _listener(config) as listener:
        interlock = Interlock.open(config, functions=installed_functions())
        try:
            if with_worker:
                check_machine(interlock)
            _serve(interlock, listener, with_worker=with_worker, with_scheduler=with_scheduler)
        finally:
            interlock.close()


def work(config: Config, *, with_worker: bool, with_scheduler: bool) -> None:
    """Run work, schedules or both from a Postgres database until a stop signal.

    What is unfinished is handed back.
    """
    role = "worker" if with_worker else "scheduler"
    if config.database_url is None or config.database_url.startswith("sqlite"):
        raise InputError(f"a {role} of its own needs Postgres; on SQLite `interlock serve` works")
    log_to_terminal(config.log_format)
    stop = threading.Event()
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: stop.set())
    interlock = Interlock.open(config, functions=installed_functions())
    try:
        if with_worker:
            check_machine(interlock)
        interlock.start(work=with_worker, schedule=with_scheduler)
        say(f"{role} {interlock.executor_id} is ready")
        stop.wait()
    finally:
        interlock.close()


def check_machine(interlock: Interlock) -> None:
    """Raise `UnavailableError` if this machine cannot run the untrusted code of the live release.

    Its worker would take runs and fail their calls, which that of another machine could make.
    """
    with interlock.db.reading() as tx:
        check = doctor.sandbox(interlock.release(tx))
    if not check.is_ok:
        raise UnavailableError(
            f"no worker is started: {check.message}; mend that, start with `--no-worker`, or apply"
            " a project without such code"
        )


def _serve(
    interlock: Interlock, listener: socket.socket, *, with_worker: bool, with_scheduler: bool
) -> None:
    config, port = interlock.config, listener.getsockname()[1]
    interlock.url = config.url(port)
    app = create_app(interlock)
    server = Server(app)
    # uvicorn raises a signal again when it is done; the default of SIGTERM would end us there.
    for number in _STOP_SIGNALS:
        signal.signal(number, server.handle_exit)
    token = local_token(interlock)
    interlock.start(work=with_worker, schedule=with_scheduler)
    here = replace(config, public_url=None).url(port)
    address = Address(url=here, token=token)
    file = write_address(config.data_dir, address, proof_key=app.state.proof_key)
    say(f"interlock listens at {here}")
    if sys.stdout.isatty():
        say(f"console: {_sign_in_link(interlock, token)} (works once, for 15 minutes)")
    else:
        # What is no terminal may be a log that others read.
        say(f"console: {interlock.url} (`interlock key link` prints a link to sign in)")
    with interlock.db.reading() as tx:
        if not registry.live_number(tx):
            say("nothing is applied yet: run `interlock apply FOLDER`")
    queues: QueueLoop = app.state.queues
    try:
        queues.start()
        server.run(sockets=[listener])
    finally:
        file.unlink(missing_ok=True)
        queues.stop()


def _listener(config: Config) -> socket.socket:
    """Listen from here on: who finds the address has to wait, but is not turned away."""
    found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        msg = f"cannot listen at `{config.host}:{config.port}` ({error.strerror})"
        raise UnavailableError(f"{msg}; set another port, as INTERLOCK_PORT=0") from None
    return listener


def _sign_in_link(interlock: Interlock, token: str) -> str:
    with interlock.db.reading() as tx:
        found = keys.find_key(tx, hash_secret(token))
    # INVARIANT: the local key was found or minted a moment ago.
    assert found is not None
    secret = interlock.db.run("link.create", lambda tx: mint_link(tx, found.key_id))
    return link_for(interlock.url, secret)
