"""The stage of the demonstration: its processes, folders and people, and what they are asked.

Everything is on loopback with free ports, in one temporary folder, and ends with the program.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from types import TracebackType
from typing import Any, Self

from interlock.testing.process import free_port
from scripts import postgres

HERE = Path(__file__).resolve().parent
WORLD = HERE / "world"
# What of this folder is the project; the rest is the world around it and this demonstration.
PROJECT_PARTS = ("agents", "policies", "schemas", "servers", "systems", "tools", "workflows")
START_S = 60.0
DATABASE = "INTERLOCK_DATABASE_URL"

# The addresses that the project's files name; each demonstration has its own instead.
TRACKER_ADDRESS = "http://127.0.0.1:8426"
MAIL_ADDRESS = "http://127.0.0.1:8427"

Object = dict[str, Any]


class DemoError(Exception):
    """The demonstration cannot go on or did not end as it should; the message is one sentence."""


class Program:
    """One process of the stage; what it prints goes to a file."""

    def __init__(self, name: str, command: list[str], *, log: Path) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, cwd: Path, env: dict[str, str]) -> None:
        """Start it, out of reach of Ctrl-C in the terminal: `stop` ends it in order."""
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log, unbroken():
            self._process = subprocess.Popen(
                self._command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process, which was started."""
        # INVARIANT: nothing is asked of a program before it is started.
        assert self._process is not None
        return self._process

    @property
    def output(self) -> str:
        """What it has printed since it was last started."""
        return self._log.read_bytes()[self._log_start :].decode(errors="replace")

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Return once it is ready; raises `DemoError` with its last words if it ends before."""
        deadline = time.monotonic() + START_S
        while not is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                lines = self.output.strip().splitlines() or ["it printed nothing"]
                raise DemoError(f"{self.name} does not start: {lines[-1]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it in order, and by force if that takes over 10 seconds."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The model of the agents: a provider's, or the scripted one if `provider` is None."""

    provider: str | None

    @property
    def is_scripted(self) -> bool:
        """Whether the answers are known beforehand."""
        return self.provider is None

    def settings(self, port: int) -> str:
        """Return the settings file of the project, with the model in it."""
        if self.provider is not None:
            return (
                f'[models.default]\nprovider = "{self.provider}"\naccepts = ["internal", "pii"]\n'
            )
        text = (HERE / "interlock.toml").read_text(encoding="utf-8")
        return re.sub(r"http://127\.0\.0\.1:\d+/v1", f"http://127.0.0.1:{port}/v1", text)


class Stage:
    """Tracker, mail service, model and Interlock, running; ends and removes them on exit."""

    def __init__(self, model: Model, *, keep: Path | None) -> None:
        self._exits = ExitStack()
        self._model = model
        if keep is None:
            folder = self._exits.enter_context(
                tempfile.TemporaryDirectory(prefix="interlock-demo-", ignore_cleanup_errors=True)
            )
            self.folder = Path(folder)
        else:
            keep.mkdir(parents=True)
            self.folder = keep.resolve()
        self.project = self.folder / "service_desk"
        self.crash_file = self.folder / "crash"
        self._secret_file = self.folder / "webhook-secret"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.tracker_url = ""
        self.approver_token = ""
        self._tokens: dict[str, str] = {}
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("INTERLOCK_")}
        # A proxy of the company is not asked for what is on this machine.
        self.env |= {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        self.env |= {
            "INTERLOCK_PORT": self.url.rpartition(":")[2],
            "INTERLOCK_CRASH_FILE": str(self.crash_file),
        }
        self.server = self._program("interlock", [_beside_python("interlock"), "serve"])

    def __enter__(self) -> Self:
        """Start nothing yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all processes and remove the folder."""
        self._exits.close()

    # --- the world around Interlock

    def start_world(self) -> None:
        """Make the tracker with its tickets, and serve it, the mail service and the model."""
        self._secret_file.touch(mode=0o600)
        self._secret_file.write_text(f"whsec_{b64encode(token_bytes(32)).decode()}")
        self._world("tracker.py", "init", self.folder / "tracker")
        webhook = [
            f"--webhook-url={self.url}/webhooks/roundup",
            f"--webhook-secret-file={self._secret_file}",
        ]
        commands = {
            "tracker": _script("tracker.py", "serve", self.folder / "tracker", *webhook),
            "mail": _script("mailbox.py", "serve", self.folder / "mail"),
        }
        if self._model.is_scripted:
            script = str(HERE / "models" / "demo.yaml")
            commands["model"] = [sys.executable, "-m", "interlock.testing.model", script]
        ports = {name: self.folder / f"{name}.port" for name in commands}
        programs = {}
        for name, command in commands.items():
            options = ["--port", "0", "--port-file", str(ports[name])]
            programs[name] = self._program(name, [*command, *options])
            programs[name].start(cwd=self.folder, env=self.env)
        for name, program in programs.items():
            program.wait_until(ports[name].exists)
        urls = {name: f"http://127.0.0.1:{int(file.read_text())}" for name, file in ports.items()}
        self.tracker_url = urls["tracker"]
        self._copy_project(urls)

    def open_ticket(self, title: str, text: str, *, user: str) -> str:
        """Open a ticket in the tracker as a person would, and return its number."""
        home = self.folder / "tracker"
        made = self._world("tracker.py", "add", home, title, "--user", user, "--text", text)
        return str(json.loads(made)["id"])

    def tracker(self) -> Object:
        """Return all that the tracker holds."""
        held: Object = json.loads(self._world("tracker.py", "export", self.folder / "tracker"))
        return held

    def mails(self) -> list[Object]:
        """Return the mails that were sent."""
        sent = self._world("mailbox.py", "export", self.folder / "mail")
        found: list[Object] = json.loads(sent)["messages"]
        return found

    def _copy_project(self, urls: dict[str, str]) -> None:
        """Copy the project, with the ports of this stage in its addresses."""
        self.project.mkdir()
        for name in PROJECT_PARTS:
            shutil.copytree(HERE / name, self.project / name)
        shutil.copy(HERE / "project.yaml", self.project)
        for file in (self.project / "servers").glob("*.yaml"):
            text = file.read_text(encoding="utf-8").replace(TRACKER_ADDRESS, urls["tracker"])
            file.write_text(text.replace(MAIL_ADDRESS, urls["mail"]), encoding="utf-8")
        port = int(urls.get("model", ":0").rpartition(":")[2])
        settings = self.project / "interlock.toml"
        settings.write_text(self._model.settings(port), encoding="utf-8")

    def _world(self, script: str, *arguments: str | Path) -> str:
        command = _script(script, *arguments)
        return _output(command, told=f"{script} {arguments[0]}", cwd=self.folder, env=self.env)

    # --- Interlock

    def use_postgres(self, url: str) -> None:
        """Keep Interlock's data in a fresh database on that server, dropped at the end."""
        server = postgres.server_at(url)
        database = server.create_database()
        self._exits.callback(server.drop_database, database)
        # Exits run in reverse: the server process must be gone before its database is.
        self._exits.callback(self.server.stop)
        self.env[DATABASE] = database

    def start_interlock(self) -> None:
        """Start the server and return once it takes requests."""
        self.server.start(cwd=self.project, env=self.env)
        self.server.wait_until(self._is_ready)

    def store_credentials(self) -> None:
        """Store what the tools and the webhook authenticate with."""
        password = (self.folder / "tracker" / "credentials" / "triage-bot").read_text()
        for name, value in {
            "triage-bot": f"triage-bot:{password}",
            "webhook": self._secret_file.read_text(),
        }.items():
            self.interlock("secret", "set", f"secret://servicedesk/dev/{name}", given=value)

    def interlock(self, *arguments: str, given: str = "", token: str | None = None) -> str:
        """Run the command `interlock` in the project's folder; return what it prints."""
        env = self.env if token is None else self.env | {"INTERLOCK_TOKEN": token}
        command = [_beside_python("interlock"), *arguments]
        told = " ".join(["interlock", *arguments])
        return _output(command, told=told, cwd=self.project, env=env, given=given)

    def ask(self, path: str) -> Object:
        """Return the answer of Interlock's REST interface to a GET."""
        address = json.loads((self.project / ".interlock" / "address.json").read_text())
        request = urllib.request.Request(  # noqa: S310  # our own address
            f"{self.url}/api/v1/{path}", headers={"Authorization": f"Bearer {address['token']}"}
        )
        with _open(request) as reply:
            answer: Object = json.load(reply)
        return answer

    def _is_ready(self) -> bool:
        try:
            with _open(urllib.request.Request(f"{self.url}/readyz")):  # noqa: S310  # as above
                return (self.project / ".interlock" / "address.json").exists()
        except OSError:
            return False

    def _program(self, name: str, command: list[str]) -> Program:
        program = Program(name, command, log=self.folder / f"{name}.log")
        self._exits.callback(program.stop)
        return program


def _script(name: str, *arguments: str | Path) -> list[str]:
    return [sys.executable, str(WORLD / name), *map(str, arguments)]


def _beside_python(name: str) -> str:
    """Return the path of a command of this environment."""
    return str(Path(sys.executable).with_name(name))


def _output(
    command: list[str], *, told: str, cwd: Path, env: dict[str, str], given: str = ""
) -> str:
    """Run a command to its end and return what it prints; an interrupted one is gone on return."""
    process = None
    try:
        with unbroken():
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        printed, errors = process.communicate(given)
    except BaseException:
        # `subprocess.run` kills as well, but does not wait after an interrupt.
        if process is not None:
            process.kill()
            process.wait()
        raise
    if process.returncode:
        last = (errors.strip().splitlines() or ["it printed nothing"])[-1]
        raise DemoError(f"`{told}` failed: {last.removeprefix('error: ')}")
    return printed


@contextmanager
def unbroken() -> Iterator[None]:
    """Put off Ctrl-C and SIGTERM: nobody could end a process whose start they break off."""
    held: list[int] = []
    ends = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(each, lambda number, _frame: held.append(number)) for each in ends]
    try:
        yield
    finally:
        for each, handler in zip(ends, handlers, strict=True):
            signal.signal(each, handler)
        for number in held:
            signal.raise_signal(number)


def _open(request: urllib.request.Request) -> Any:  # noqa: ANN401  # the library's own type
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return opener.open(request, timeout=10)
