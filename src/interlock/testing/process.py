"""Starts a server as a process of its own, waits until it listens, and ends or kills it."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from interlock.domain.errors import UnavailableError

START_S = 30.0
_PORTS = range(20_000, 32_000)
"""Below the ports given to clients, one of which could take that of a server that is down."""


def free_port() -> int:
    """Return a port of this machine that nobody listens at, and that no client is given."""
    while True:
        port = _PORTS.start + secrets.randbelow(len(_PORTS))
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


class ServerProcess:
    """A program that takes `--port` and `--port-file`, as those of the test kit do.

    >>> with ServerProcess([...], folder=folder) as server:  # doctest: +SKIP
    ...     httpx2.get(f"{server.url}/v1/models")
    """

    def __init__(self, command: Sequence[str], *, folder: Path) -> None:
        """Take the command without the two options, and a folder for port file and log."""
        self._command = command
        self._port_file = folder / "port"
        self._log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """The server's address, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the program and return when it listens; a later start takes the same port.

        Raises `UnavailableError` with the end of its log if it ends or takes over 30 s.
        """
        self._port_file.parent.mkdir(parents=True, exist_ok=True)
        self._port_file.unlink(missing_ok=True)
        self.port = self.port or free_port()
        options = ["--port", str(self.port), "--port-file", str(self._port_file)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - a command of the test's own
                [*self._command, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while not self._port_file.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                end = self._log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise UnavailableError(f"`{' '.join(self._command)}` does not start: {end}")
            time.sleep(0.01)
        self.port = int(self._port_file.read_text(encoding="utf-8"))

    def stop(self) -> None:
        """End the program in an orderly way, and return when it is gone."""
        if self._process:
            self._process.terminate()
            self._process.wait(timeout=START_S)
            self._process = None

    def kill(self) -> None:
        """Kill the program on the spot, and return when it is gone."""
        if self._process:
            self._process.kill()
            self._process.wait(timeout=START_S)
            self._process = None

    def __enter__(self) -> Self:
        """Start the program."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill the program: what must be durable is so without a farewell."""
        self.kill()


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module with this interpreter."""
    return [sys.executable, "-m", module, *arguments]
