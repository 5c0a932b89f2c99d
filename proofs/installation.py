"""An installation of Interlock as its operator runs it, with a session of an outside agent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from interlock.testing.process import free_port
from proofs.processes import listening

_PROGRAM = Path(sys.executable).parent / "interlock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A server that listens, and its command line; `process` is the server."""

    folder: Path
    url: str
    process: psutil.Process
    environment: Mapping[str, str] = field(default_factory=dict)

    def told(self, *arguments: str, **more: str) -> str:
        """Run a command as its operator and return what it prints; raises `RuntimeError`."""
        return command(self.folder, arguments, {**self.environment, **more})

    def token(self, agent: str) -> str:
        """Return the token of a new session of an agent in `dev`."""
        key = self.told("key", "create", agent.replace("/", "-"), "--agent", agent, "--env", "dev")
        return self.told("token", "mint", INTERLOCK_AGENT_KEY=key)


@contextmanager
def installed(
    folder: Path, files: Mapping[str, str], *, environment: Mapping[str, str] | None = None
) -> Iterator[Installation]:
    """Write a project, serve it and apply it."""
    port = free_port()
    given = {**(environment or {}), "INTERLOCK_PORT": str(port)}
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    program: list[str | Path] = [_PROGRAM, "serve"]
    with listening(program, folder=folder, port=port, environment=given) as process:
        made = Installation(
            folder=folder, url=f"http://127.0.0.1:{port}", process=process, environment=given
        )
        made.told("apply", "--yes")
        yield made


def command(folder: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run `interlock` in a folder and return what it prints; raises `RuntimeError`."""
    done = subprocess.run(
        [str(_PROGRAM), *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"`interlock {' '.join(arguments)}`: {done.stderr[-2000:]}")
    return done.stdout.strip()
