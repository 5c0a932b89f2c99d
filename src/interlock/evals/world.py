"""The world of a case: outside programs in processes of their own, started anew for each repeat."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from interlock.domain.canonical import Json, parse
from interlock.domain.errors import UnavailableError
from interlock.evals.suite import Program

START_S = 60.0
COMMAND_S = 120.0
_LOG_END = 2000


class World:
    """Programs by name, all serving between enter and exit, each with a home of its own.

    `prepared` holds the homes that `prepare` filled; `paths` are what `{name}` stands for.
    """

    def __init__(
        self,
        programs: Mapping[str, Program],
        *,
        folder: Path,
        prepared: Path,
        paths: Mapping[str, Path],
    ) -> None:
        self._programs = programs
        self._folder = folder
        self._prepared = prepared
        self._paths = paths
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.urls: dict[str, str] = {}

    def __enter__(self) -> Self:
        """Start every program; return when all of them listen.

        Raises `UnavailableError` with the end of its log if one does not start.
        """
        try:
            for name, program in self._programs.items():
                shutil.copytree(self._prepared / name, self.home(name))
                self._processes[name] = self._serve(name, program)
            for name in self._programs:
                self.urls[name] = f"http://127.0.0.1:{self._port(name)}"
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every program."""
        self._stop()

    def home(self, name: str) -> Path:
        """Return the folder of a program."""
        return self._folder / name

    def secrets(self) -> dict[str, str]:
        """Return the secrets that the programs invented, by reference."""
        return {
            secret.reference: secret.prefix + _text(self.home(name) / secret.file)
            for name, program in self._programs.items()
            for secret in program.secrets
        }

    def export(self) -> dict[str, Json]:
        """Return what each program that exports holds now."""
        return {
            name: parse(run(program.export, self._named(name), what=f"export of `{name}`"))
            for name, program in self._programs.items()
            if program.export
        }

    def _named(self, name: str) -> dict[str, Path]:
        return {**self._paths, "home": self.home(name)}

    def _serve(self, name: str, program: Program) -> subprocess.Popen[bytes]:
        command = words(program.serve, self._named(name))
        options = ["--port", "0", "--port-file", str(self._port_file(name))]
        with self._log(name).open("wb") as log:
            return subprocess.Popen(  # noqa: S603  # the commands that the suite names
                [*command, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _port(self, name: str) -> int:
        file, deadline_s = self._port_file(name), time.monotonic() + START_S
        while not file.exists():
            if self._processes[name].poll() is not None or time.monotonic() > deadline_s:
                end = _text(self._log(name))[-_LOG_END:]
                raise UnavailableError(f"the program `{name}` does not start: {end}")
            time.sleep(0.01)
        return int(_text(file))

    def _port_file(self, name: str) -> Path:
        return self._folder / f"{name}.port"

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _stop(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(timeout=START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def prepare(programs: Mapping[str, Program], *, folder: Path, paths: Mapping[str, Path]) -> None:
    """Fill the home of each program under `folder`, once for a suite."""
    for name, program in programs.items():
        home = folder / name
        home.mkdir(parents=True)
        if program.prepare:
            run(program.prepare, {**paths, "home": home}, what=f"preparation of `{name}`")


def run(command: Sequence[str], paths: Mapping[str, Path], *, what: str) -> bytes:
    """Run a command to its end and return what it printed; raises `UnavailableError`."""
    try:
        done = subprocess.run(  # noqa: S603  # the commands that the suite names
            words(command, paths), capture_output=True, check=False, timeout=COMMAND_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"the {what} failed: {error}") from None
    if done.returncode:
        end = done.stderr.decode(errors="replace")[-_LOG_END:]
        raise UnavailableError(f"the {what} failed with {done.returncode}: {end}")
    return done.stdout


def words(command: Sequence[str], paths: Mapping[str, Path]) -> list[str]:
    """Return a command with its names replaced; `{python}` is this interpreter.

    >>> words(["{home}/run", "-x"], {"home": Path("/tmp/a")})
    ['/tmp/a/run', '-x']
    """
    replaced = []
    for word in command:
        text = word.replace("{python}", sys.executable)
        for name, path in paths.items():
            text = text.replace(f"{{{name}}}", str(path))
        replaced.append(text)
    return replaced


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise UnavailableError(f"`{file.name}` cannot be read: {error.strerror}") from None
