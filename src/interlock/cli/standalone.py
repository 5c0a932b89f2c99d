"""The application in the terminal's own process, for commands that find no server."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import httpx2

from interlock.app import Interlock
from interlock.cli.log import log_to_file
from interlock.config import Config
from interlock.serve.http import create_app
from interlock.serve.local import local_token
from interlock.tools.functions import installed_functions


@dataclass(frozen=True, slots=True, kw_only=True)
class Standalone:
    """A way to send requests to the application, the local user's token, and how to end it."""

    transport: httpx2.AsyncBaseTransport
    token: str
    close: Callable[[], None]


def open_standalone(config: Config) -> Standalone:
    """Open the application; no worker starts, so what is queued stays queued."""
    with ExitStack() as undo:
        undo.enter_context(log_to_file(config.data_dir))
        interlock = Interlock.open(config, functions=installed_functions())
        undo.callback(interlock.close)
        return Standalone(
            # A bug of ours is answered and logged as it is over a network, not raised here.
            transport=httpx2.ASGITransport(app=create_app(interlock), raise_app_exceptions=False),
            token=local_token(interlock),
            close=undo.pop_all().close,
        )
