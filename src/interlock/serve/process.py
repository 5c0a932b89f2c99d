"""The process that answers requests, until a stop signal."""

from __future__ import annotations

from types import FrameType

import uvicorn
from fastapi import FastAPI

_GRACE_S = 30


class Server(uvicorn.Server):
    """Serves an application; stops within the time of a request, however many pages are open.

    What proxies say in `X-Forwarded-*` counts for nothing.
    """

    def __init__(self, app: FastAPI) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._app = app

    def end(self) -> None:
        """Stop soon, and let the streams of open pages end."""
        self._app.state.is_closing = True
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop at a signal; a second interrupt does not wait for anything."""
        self._app.state.is_closing = True
        super().handle_exit(sig, frame)
