"""Processes behind stdio: bounded lines, and nothing left running."""

from __future__ import annotations

import hashlib
import os
import sys
import textwrap
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from interlock.domain.errors import UnreachableError
from interlock.tools.connectors.mcp import stdio
from interlock.tools.connectors.mcp.stdio import stdio_transport


def _program(tmp_path: Path, text: str) -> tuple[str, ...]:
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(text))
    return (sys.executable, "-u", str(path))


async def test_endless_line_ends_the_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never ends its line cannot fill our memory."""
    monkeypatch.setattr(stdio, "MAX_LINE", 100_000)
    argv = _program(
        tmp_path,
        """
        import sys
        while True:
            sys.stdout.write("x" * 10_000)
        """,
    )
    ended = anyio.Event()

    async with stdio_transport(argv, {}, on_end=ended.set) as (incoming, _):
        with anyio.fail_after(20):
            with pytest.raises(anyio.EndOfStream):
                await incoming.receive()
            await ended.wait()


async def test_line_that_is_no_message_is_an_error_in_its_place(tmp_path: Path) -> None:
    """Nonsense on standard output is reported and does not end the session."""
    argv = _program(
        tmp_path,
        """
        import sys
        print("Starting up...")
        print('{"jsonrpc": "2.0", "method": "notifications/initialized"}')
        sys.stdin.read()
        """,
    )

    async with stdio_transport(argv, {}, on_end=lambda: None) as (incoming, _):
        with anyio.fail_after(20):
            first, second = await incoming.receive(), await incoming.receive()

    assert isinstance(first, ValueError)
    assert not isinstance(second, Exception)


async def test_process_that_ignores_its_end_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed input, then a signal, then a kill of the whole group."""
    monkeypatch.setattr(stdio, "_STOP_S", 0.2)
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    alive = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    argv = _program(
        tmp_path,
        f"""
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        held = open({str(fifo)!r}, "w")
        os.fork()
        print("{{}}")
        while True:
            time.sleep(1)
        """,
    )

    async with stdio_transport(argv, {}, on_end=lambda: None) as (incoming, _):
        with anyio.fail_after(20):
            await incoming.receive()
            await incoming.receive()

    # The pipe ends when the last process that holds it has ended.
    os.set_blocking(alive, True)
    with anyio.fail_after(20):
        assert b"" == await anyio.to_thread.run_sync(os.read, alive, 1)
    os.close(alive)


async def test_only_the_program_that_was_reviewed_is_started(tmp_path: Path) -> None:
    """Found by `PATH` as the start finds it; another one says its digest, and never runs."""
    ran = tmp_path / "ran"
    program = tmp_path / "serve"
    line = '{"jsonrpc": "2.0", "method": "notifications/initialized"}'
    program.write_text(f"#!/bin/sh\ntouch {ran}\necho '{line}'\ncat > /dev/null\n")
    program.chmod(0o755)
    pin = f"sha256:{hashlib.sha256(program.read_bytes()).hexdigest()}"
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin"}

    async with stdio_transport(("serve",), variables, on_end=lambda: None, pin=pin) as (said, _):
        with anyio.fail_after(20):
            await said.receive()
    ran.unlink()
    program.write_text(program.read_text() + "# and more\n")
    changed = hashlib.sha256(program.read_bytes()).hexdigest()
    for argv, why in ((("serve",), f"has the digest sha256:{changed}"), (("none",), "not found")):
        with pytest.raises(UnreachableError, match=why):
            async with stdio_transport(argv, variables, on_end=lambda: None, pin=pin):
                pass

    assert not ran.exists()
