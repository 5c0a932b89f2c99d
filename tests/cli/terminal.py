"""The command `interlock` as a person types it, in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pytest
from typer.testing import CliRunner

from interlock.cli.main import app
from interlock.domain.canonical import JsonObject

START_S = 60


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> JsonObject:
        """The answer that was printed as JSON."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    @property
    def refusal(self) -> tuple[int, str]:
        """Exit code and error, for a command that must print nothing else."""
        assert self.out == ""
        return self.code, self.err.rstrip("\n")


def interlock(*arguments: str, given: str | None = None) -> Said:
    """Run a command in this process, in the folder where the test is."""
    result = CliRunner().invoke(app, list(arguments), input=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(code=result.exit_code, out=result.stdout, err=result.stderr)


def done(*arguments: str, given: str | None = None) -> str:
    """Run a command that must succeed and return what it printed, without a final line break."""
    said = interlock(*arguments, given=given)
    assert said.code == 0, said
    return said.out.rstrip("\n")


def listed(noun: str, *command: str) -> list[JsonObject]:
    """Return the rows that a command about such things lists."""
    found = interlock(noun, *command, "--json").json[f"{noun}s"]
    assert isinstance(found, list)
    return [row for row in found if isinstance(row, dict)]


def approve(token: str) -> None:
    """Approve the one call that waits, as the person whose key this is."""
    (approval,) = listed("approval", "list")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTERLOCK_TOKEN", token)
        done("approval", "approve", str(approval["approval_id"]))


def until(holds: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Return once something holds; fails if that takes too long."""
    deadline, rest = time.monotonic() + within_s, threading.Event()
    while not holds():
        assert time.monotonic() < deadline, "this took too long"
        rest.wait(0.05)


class Server:
    """`interlock serve` as a process of its own, in a folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        self._options = options
        self.printed: list[str] = []

    def __enter__(self) -> Self:
        """Start it and wait until it says where it listens."""
        self._errors = (self._folder / "serve.err").open("wb")
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("interlock"), "serve", *self._options],
            cwd=self._folder,
            env={**os.environ, "INTERLOCK_PORT": "0", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self._address(self.process.stdout)
        return self

    def _address(self, stdout: IO[str]) -> str:
        for line in stdout:
            self.printed.append(line.rstrip("\n"))
            if line.startswith("console:"):
                break
        found = re.search(r"http://127\.0\.0\.1:\d+", "".join(self.printed))
        assert found is not None, (self._folder / "serve.err").read_text()
        return found.group()

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=START_S)

    def kill(self) -> None:
        """Kill it on the spot."""
        self.process.kill()
        self.process.wait(timeout=START_S)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill it if it still runs."""
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._errors.close()
