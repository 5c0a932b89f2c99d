"""The walls: each test is code that really tries to get out."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interlock.domain.effect import Transport
from interlock.tools.sandbox import process
from tests.tools.sandbox.box import need_sandbox, ran

pytestmark = pytest.mark.usefixtures("walls")

TRY = """
def tried(attempt, *given):
    try:
        return repr(attempt(*given))
    except BaseException as error:
        return type(error).__name__
"""


@pytest.fixture
def walls() -> None:
    """Skip where there are none."""
    need_sandbox()


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    """Return a folder that everybody may write to, so that only the walls refuse."""
    tmp_path.chmod(0o777)
    return tmp_path


@pytest.fixture
def bystander() -> Iterator[int]:
    """Start a process of ours that waits; returns its id."""
    waiting = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield waiting.pid
    assert waiting.poll() is None
    waiting.kill()
    waiting.communicate()


async def test_files_of_the_machine_are_not_there(tmp_path: Path) -> None:
    """Neither those of the data folder nor those that everybody may read, also not by a link."""
    kept = tmp_path / "kept"
    kept.write_text("secret")
    kept.chmod(0o644)
    code = (
        TRY
        + """
import os
def f(path):
    def by_link():
        os.symlink(path, "link")
        return open("link").read()
    return [
        tried(open, path), tried(open, "/etc/passwd"), tried(open, "/proc/1/environ"),
        tried(open, "../../.." + path), tried(by_link), tried(os.listdir, "/"),
        str(os.path.exists(path)),
    ]
"""
    )
    reply = await ran(code, arguments={"path": str(kept)})

    gone = "FileNotFoundError"
    assert [gone, gone, gone, gone, gone, "PermissionError", "False"] == reply.body


async def test_nothing_is_written_outside_and_scratch_is_gone_afterwards(open_to_all: Path) -> None:
    """What a call writes is its own, bounded, and ends with it."""
    code = (
        TRY
        + """
import os
def f(path):
    before = sorted(os.listdir("."))
    with open("mine", "w") as file:
        file.write("x")
    big = tried(lambda: open("big", "wb").write(bytes(64 << 20)))
    return [
        before, big, tried(open, path, "w"), tried(open, "/x", "w"),
        tried(open, os.__file__, "a"), tried(os.chmod, os.__file__, 0o777),
    ]
"""
    )
    first = await ran(code, arguments={"path": str(open_to_all / "new")})
    second = await ran(code, arguments={"path": str(open_to_all / "new")})

    refused = ["OSError", "FileNotFoundError", "PermissionError", "PermissionError"]
    assert [["m.py"], *refused, "OSError"] == first.body
    assert first.body == second.body
    assert not any(open_to_all.iterdir())  # noqa: ASYNC240  # a folder of the test


async def test_environment_and_descriptors_of_the_server_stay_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its variables nor a file that it has open, though that may be inherited."""
    monkeypatch.setenv("INTERLOCK_SECRET", "s3cret")
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003  # it takes no name
        reply = await ran("""
import os
def f():
    fds = []
    for fd in range(64):
        try:
            os.fstat(fd)
            fds.append(fd)
        except OSError:
            pass
    return [sorted(set(os.environ) - {"LC_CTYPE"}), len(fds)]
""")

    # Where it prints to (nowhere), twice, and where its answer goes.
    assert [[], 3] == reply.body


async def test_no_socket_of_any_kind(tmp_path: Path) -> None:
    """Not to loopback, not to a path, not to an abstract name; not even a pair."""
    inet = socket.create_server(("127.0.0.1", 0))
    local = socket.socket(socket.AF_UNIX)
    local.bind(str(tmp_path / "socket"))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0{tmp_path}")
    code = (
        TRY
        + """
import _socket
def f(port, path):
    def to(family, address):
        _socket.socket(family, 1).connect(address)
    return [
        tried(to, 2, ("127.0.0.1", port)), tried(to, 1, path + "/socket"),
        tried(to, 1, chr(0) + path), tried(_socket.socket, 17, 3), tried(_socket.socketpair),
    ]
"""
    )
    with inet, local, abstract:
        port = inet.getsockname()[1]
        reply = await ran(code, arguments={"port": port, "path": str(tmp_path)})

    assert ["PermissionError"] * 5 == reply.body


async def test_other_processes_cannot_be_signalled_or_traced(bystander: int) -> None:
    """They have no number inside; and the calls that reach into others are refused."""
    code = (
        TRY
        + """
import ctypes, os
def f(pids):
    libc = ctypes.CDLL(None, use_errno=True)
    killed = [tried(os.kill, pid, 9) for pid in pids]
    traced = [(libc.ptrace(16, pid, 0, 0), ctypes.get_errno()) for pid in pids]
    everybody = tried(os.kill, -1, 9)
    return [killed, traced, everybody]
"""
    )
    reply = await ran(code, arguments={"pids": [bystander, os.getpid()]})

    gone = "ProcessLookupError"
    assert [[gone] * 2, [[-1, 1]] * 2, gone] == reply.body


async def test_no_further_process_and_no_flood_of_threads() -> None:
    """A fork bomb ends at its first fork, a program is not started, threads are bounded."""
    code = (
        TRY
        + """
import os, threading
def f():
    ended, count = threading.Event(), 0
    try:
        while count < 1000:
            threading.Thread(target=ended.wait, daemon=True).start()
            count += 1
    except RuntimeError:
        pass
    ended.set()
    return [tried(os.fork), tried(os.execv, os.__file__, ["x"]), tried(os.setsid), count < 20]
"""
    )
    reply = await ran(code)

    assert ["PermissionError", "PermissionError", "PermissionError", True] == reply.body


async def test_privileges_cannot_be_had_again() -> None:
    """Neither by new namespaces, nor by mounts, nor by loosening how it is killed."""
    code = """
import ctypes, os
def f():
    libc = ctypes.CDLL(None, use_errno=True)
    return [
        libc.unshare(0x10000000), libc.unshare(0x20000), libc.prctl(1, 0),
        libc.mount(b"none", b"/scratch", b"tmpfs", 0, None), libc.chroot(b"."), os.getuid() == 0,
    ]
"""
    reply = await ran(code)

    assert [-1, -1, -1, -1, -1, False] == reply.body


async def test_a_gibibyte_of_memory_is_refused() -> None:
    """The function sees `MemoryError`; the machine does not see the memory."""
    reply = await ran("def f():\n    return len(bytearray(1 << 30))")

    assert (Transport.REPLY, True) == (reply.transport, reply.is_error)
    assert str(reply.problem).startswith("MemoryError")


@pytest.mark.parametrize("ending", ["while True: pass", "threading.Event().wait()"])
async def test_nothing_is_left_running_after_the_deadline(ending: str) -> None:
    """Busy or idle, it is killed, with what it holds; the outcome is unknown."""
    reply = await ran(f"import threading\ndef f():\n    {ending}", timeout_s=1.0)

    assert Transport.UNKNOWN is reply.transport
    assert not _alive()


async def test_nothing_is_left_running_after_a_cancellation() -> None:
    """Whoever gives up leaves no process behind."""
    call = asyncio.ensure_future(ran("def f():\n    while True: pass"))
    async with asyncio.timeout(20):
        while len(_alive()) < 2:  # noqa: ASYNC110  # the one that waits, and the one inside
            await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.wait([call])

    assert call.cancelled()
    assert not _alive()


def test_nothing_is_left_running_when_the_server_dies() -> None:
    """Killed at once, it can end nobody; the kernel does."""
    program = """
import asyncio
from tests.tools.sandbox.box import ran
asyncio.run(ran("import time\\ndef f():\\n    time.sleep(600)", timeout_s=600))
"""
    server = subprocess.Popen([sys.executable, "-c", program])
    _until(lambda: len(_alive()) == 2)  # the one that waits, and the one inside
    server.kill()
    server.wait()

    _until(lambda: not _alive())


async def test_calls_at_the_same_time_do_not_see_each_other() -> None:
    """The secret of one call is not where another can look."""
    code = """
import os, time
def f(context):
    with open(context.secret, "w") as file:
        file.write(context.secret)
    time.sleep(0.2)
    return [sorted(os.listdir(".")), os.getpid()]
"""
    one, two = await asyncio.gather(ran(code, secret="one"), ran(code, secret="two"))

    assert [["m.py", "one"], 1] == one.body
    assert [["m.py", "two"], 1] == two.body


def _until(condition: Callable[[], bool]) -> None:
    """Look again until it holds; the kernel tells nobody when it has ended a process."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def _alive() -> list[int]:
    """Return the processes that run our program and have not ended."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(process.INSIDE) in command:
            found.append(int(folder.name))
    return found
