"""Programs that proofs start: until they listen, and what they have cost since."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

_STARTED_S = 120.0
_STOPPED_S = 30.0
_LOOK_S = 0.1


@contextmanager
def listening(
    command: Sequence[str | Path],
    *,
    folder: Path,
    port: int,
    environment: Mapping[str, str] | None = None,
) -> Iterator[psutil.Process]:
    """Run a program in a folder; give it once it listens at its port.

    Raises `RuntimeError` with the end of what it wrote if that takes over two minutes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    with log.open("wb") as output:
        process = psutil.Popen(
            [str(word) for word in command],
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline_s = time.monotonic() + _STARTED_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline_s:
                end = log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise RuntimeError(f"`{Path(command[0]).name}` does not start: {end}")
            time.sleep(_LOOK_S)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOPPED_S)
        except psutil.TimeoutExpired:
            process.kill()


def cpu_s(roots: Iterable[psutil.Process]) -> float:
    """Return the processor time, user and system, of processes and all their descendants so far.

    What has ended counts as its parent's, which has waited for it.
    """
    total = 0.0
    for root in roots:
        for process in (root, *root.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system + times.children_user + times.children_system
    return total


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
