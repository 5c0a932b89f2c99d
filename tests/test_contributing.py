"""What CONTRIBUTING.md says how to do is done here, block by block, as it stands there."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from interlock.testing.process import free_port

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "/tmp/reminders"  # noqa: S108  # replaced by the test's own
MAIL_PORT = "8427"
FIRST, LAST = "## Add a tool in five minutes", "## Add something to Interlock itself"
BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([\w./]+\.\w+)`:\s*$")
SHOWN_WITHIN_S = 30
DONE = "-- block done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: its language, the word after it, its text, and the file it is put into."""

    language: str
    word: str
    text: str
    file: str | None


def _blocks(text: str) -> Iterator[Block]:
    section = text[text.index(FIRST) : text.index(LAST)]
    for found in BLOCK.finditer(section):
        named = FILE.search(section[: found.start()])
        yield Block(
            language=found[1],
            word=found[2] or "",
            text=found[3],
            file=named[1] if named and found[1] in {"yaml", "json", "cedar"} else None,
        )


@dataclass(slots=True, kw_only=True)
class Terminals:
    """One shell that keeps its folder and variables, and one process per further terminal."""

    env: dict[str, str]
    cwd: Path
    output: str = ""
    _others: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _shell: subprocess.Popen[str] | None = None

    def run(self, commands: str) -> None:
        """Run the lines of a block in the first terminal; `output` is what they print."""
        if self._shell is None:
            self._shell = subprocess.Popen(
                ["bash"],
                cwd=self.cwd,
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{commands}\necho '{DONE}' $?\n")
        self._shell.stdin.flush()
        lines: list[str] = []
        for line in self._shell.stdout:
            if line.startswith(DONE):
                self.output = "".join(lines)
                assert f"{DONE} 0\n" == line, self.output
                return
            lines.append(line)
        pytest.fail(f"the shell ended: {''.join(lines)}")

    def open_another(self, command: str, *, port: int) -> None:
        """Run a command in a terminal of its own, and return once it listens."""
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=ROOT, env=self.env, start_new_session=True
        )
        self._others.append(process)
        deadline = time.monotonic() + SHOWN_WITHIN_S
        while not _listens(port):
            assert process.poll() is None, f"`{command}` ended"
            assert time.monotonic() < deadline, f"`{command}` does not listen"

    def close(self) -> None:
        """End everything that was started."""
        if self._shell is not None:
            self._shell.communicate(timeout=10)
        for process in self._others:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return False
    return True


@pytest.fixture
def ports() -> dict[str, int]:
    """Ports for the two servers that the text starts."""
    return {"mail": free_port(), "interlock": free_port()}


@pytest.fixture
def terminals(tmp_path: Path, ports: dict[str, int]) -> Iterator[Terminals]:
    """A first terminal whose programs are those of this environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = os.environ | {"PATH": path, "INTERLOCK_PORT": str(ports["interlock"]), "COLUMNS": "200"}
    opened = Terminals(env=env, cwd=tmp_path)
    yield opened
    opened.close()


@pytest.mark.timeout(240)
def test_tool_and_policy_are_added_as_the_text_says(
    tmp_path: Path, ports: dict[str, int], terminals: Terminals
) -> None:
    """Each file is written, each command run, and each line shown is printed."""
    folder = tmp_path / "reminders"
    last = ""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    text = text.replace(FOLDER, str(folder)).replace(MAIL_PORT, str(ports["mail"]))
    for block in _blocks(text):
        match block.language, block.word:
            case "sh", "terminal":
                name = "mail" if "mailbox" in block.text else "interlock"
                terminals.open_another(block.text, port=ports[name])
            case "sh", _:
                approval = re.search(r"^([0-9a-f-]{36})", terminals.output, re.MULTILINE)
                command = block.text.replace("APPROVAL", approval[1] if approval else "")
                terminals.run(command)
                last = command.strip().splitlines()[-1]
            case "text", _:
                _await_shown(terminals, block.text, last)
            case _:
                assert block.file is not None, f"nobody says where this belongs: {block.text}"
                (folder / block.file).write_text(block.text, encoding="utf-8")


def _await_shown(terminals: Terminals, lines: str, last: str) -> None:
    """Repeat the last command until it prints the lines; runs go on by themselves."""
    deadline = time.monotonic() + SHOWN_WITHIN_S
    while missing := [line for line in lines.splitlines() if _plain(line) not in _shown(terminals)]:
        assert time.monotonic() < deadline, f"{missing} in:\n{terminals.output}"
        terminals.run(last)


def _shown(terminals: Terminals) -> str:
    return _plain(terminals.output)


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()
