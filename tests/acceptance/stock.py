"""Stock clients as a test drives them: each is told what to call, and tells what it gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from interlock.domain.canonical import JsonObject
from scripts import peers
from tests.acceptance.played_model import PlayedModel

TYPING = Path(__file__).with_name("typing_client.py")
LEAVE_S = 20


class Caller(Protocol):
    """An agent whose every call a test decides."""

    def names(self) -> list[str]:
        """Return the names of the tools that it was told of."""
        ...

    def call(self, tool: str, arguments: JsonObject) -> str:
        """Have it call a tool, and return the words that it gets."""
        ...


@contextmanager
def typing(name: str, folder: Path, env: Mapping[str, str]) -> Iterator[Caller]:
    """Run a client without a model, in ours or in its own environment."""
    python = {"agent_fastmcp": "fastmcp"}.get(name)
    command: list[Path | str] = [_python(python), TYPING, name]
    with _process(command, folder, env) as process:
        yield _Typed(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(LEAVE_S) == 0, _errors(folder)


@contextmanager
def played(name: str, folder: Path, env: Mapping[str, str]) -> Iterator[Caller]:
    """Run an agent of a framework, with a model that the test plays."""
    with PlayedModel() as model:
        given = {
            "OPENAI_API_KEY": "none",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
            "OPENAI_BASE_URL": f"{model.url}/v1",
            "GEMINI_API_KEY": "none",
            "GOOGLE_GEMINI_BASE_URL": model.url,
        }
        command: list[Path | str] = [
            _python(name),
            folder / f"agent_{name}.py",
            "do as you are told",
        ]
        with _process(command, folder, {**env, **given}) as process:
            yield model
            model.end("all done")
            assert process.stdout is not None
            said = process.stdout.read()
            assert (process.wait(LEAVE_S), said.strip()) == (0, "all done"), _errors(folder)


@contextmanager
def inspecting(era: str, folder: Path, env: Mapping[str, str], token: str) -> Iterator[Caller]:
    """Use the command line of the MCP inspector, a process for each request."""
    options = [f"{env['INTERLOCK_URL']}/mcp", "--header", f"Authorization: Bearer {token}"]
    options += ["--format", "json", "--protocol-era", era]
    yield _Inspected([*inspector(), "--cli", *options], {**env, "HOME": str(folder)})


def inspector() -> list[str]:
    """Return the command of the MCP inspector."""
    place = peers.install(peers.NODE)
    package = peers.package(place, "@modelcontextprotocol/inspector")
    return [str(peers.node(place)), str(package / "clients" / "launcher" / "build" / "index.js")]


class _Typed:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def names(self) -> list[str]:
        names: list[str] = self._line()
        return names

    def call(self, tool: str, arguments: JsonObject) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([tool, arguments]) + "\n")
        self._process.stdin.flush()
        return "".join(self._line())

    def _line(self) -> list[str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the client has ended"
        told: list[str] = json.loads(line)
        return told


class _Inspected:
    def __init__(self, command: list[str], env: Mapping[str, str]) -> None:
        self._command = command
        self._env = env

    def names(self) -> list[str]:
        # `strict` also ends with an error if a schema is none that clients can do with.
        return [tool["name"] for tool in self._asked("tools/list", "--strict")["tools"]]

    def call(self, tool: str, arguments: JsonObject) -> str:
        given = ["--tool-name", tool, "--tool-args-json", json.dumps(arguments)]
        return "".join(block["text"] for block in self._asked("tools/call", *given)["content"])

    def _asked(self, method: str, *options: str) -> dict[str, list[dict[str, str]]]:
        command = [*self._command, "--method", method, *options]
        said = subprocess.run(command, env=self._env, capture_output=True, text=True, check=False)
        assert said.stdout, said.stderr
        found: dict[str, list[dict[str, str]]] = json.loads(said.stdout)["result"]
        return found


def _python(name: str | None) -> Path:
    return Path(sys.executable) if name is None else peers.install(name) / "bin" / "python"


@contextmanager
def _process(
    command: Sequence[Path | str], folder: Path, env: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where `interlock` is
    with (
        (folder / "client.err").open("w") as errors,
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(folder), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _errors(folder: Path) -> str:
    return (folder / "client.err").read_text()[-4000:]
