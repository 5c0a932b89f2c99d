"""A process that speaks MCP over its standard input and output, started without a shell.

The SDK has such a transport, but it passes on variables that were not listed (`HOME`, `PATH`, ...)
and buffers a line of any length.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
import anyio.to_thread
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from interlock.domain.errors import UnreachableError

MAX_LINE = 8 * 1024 * 1024

_STOP_S = 2.0
_BROKEN = (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError)

Incoming = MemoryObjectReceiveStream[SessionMessage | Exception]
Outgoing = MemoryObjectSendStream[SessionMessage]


@asynccontextmanager
async def stdio_transport(
    argv: Sequence[str],
    variables: Mapping[str, str],
    *,
    on_end: Callable[[], None],
    pin: str | None = None,
) -> AsyncIterator[tuple[Incoming, Outgoing]]:
    """Start a server with exactly these variables and stop it, with its children, at the end.

    With a `pin`, only a program of that digest is started: the file that is looked at is the one
    that is then run, whatever `PATH` leads to later. `on_end` is called once its output has ended
    or broken a rule (a line over `MAX_LINE`). Raises `UnreachableError` if there is no such
    program, or another one than was pinned, or it ended instead of answering, `OSError` if it
    cannot be started otherwise.
    """
    # What it writes to its standard error may hold content, and belongs to nobody here.
    try:
        if pin is not None:
            argv = (await anyio.to_thread.run_sync(_pinned, argv[0], variables, pin), *argv[1:])
        process = await anyio.open_process(
            list(argv), env=dict(variables), stderr=subprocess.DEVNULL, start_new_session=True
        )
    except FileNotFoundError:
        msg = "its program was not found: give its whole path, or list `PATH` in `variables`"
        raise UnreachableError(msg) from None
    to_session, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outgoing, to_process = anyio.create_memory_object_stream[SessionMessage](0)
    # INVARIANT: `open_process` makes pipes for both unless told otherwise.
    assert process.stdin is not None
    assert process.stdout is not None
    has_ended = anyio.Event()

    def end() -> None:
        has_ended.set()
        on_end()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_read, process.stdout, to_session, end)
        tasks.start_soon(_write, process.stdin, to_process)
        try:
            yield incoming, outgoing
        except Exception as error:
            if has_ended.is_set():
                await _refuse_ended(process, error)
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await _stop(process)
            tasks.cancel_scope.cancel()
            incoming.close()
            outgoing.close()


def _pinned(program: str, variables: Mapping[str, str], pin: str) -> str:
    """Return the whole path of a program that has this digest."""
    path = shutil.which(program, path=variables.get("PATH", os.defpath))
    if path is None:
        raise FileNotFoundError(program)
    with open(path, "rb") as file:  # noqa: PTH123  # hashlib takes a file
        found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if found != pin:
        raise UnreachableError(
            f"its program is not the one that was reviewed: `{path}` has the digest {found}"
        )
    return os.path.abspath(path)  # noqa: PTH100  # links stay as they are: some programs look


async def _refuse_ended(process: Process, error: Exception) -> None:
    """Raise `UnreachableError` if the process has ended by itself, which explains `error`."""
    with anyio.move_on_after(_STOP_S):
        await process.wait()
    if process.returncode is not None:
        msg = (
            f"its program ended with code {process.returncode} before it answered: run `argv` in a"
            " terminal, with no more than its `variables`, to see why"
        )
        raise UnreachableError(msg) from error


async def _read(
    stdout: ByteReceiveStream,
    to_session: MemoryObjectSendStream[SessionMessage | Exception],
    on_end: Callable[[], None],
) -> None:
    buffer = b""
    try:
        async with to_session:
            async for chunk in stdout:
                *lines, buffer = (buffer + chunk).split(b"\n")
                for line in lines:
                    await to_session.send(_message(line))
                if len(buffer) > MAX_LINE:
                    return
    except _BROKEN:
        return
    finally:
        on_end()


async def _write(
    stdin: ByteSendStream, to_process: MemoryObjectReceiveStream[SessionMessage]
) -> None:
    # A server that closed its input will close its output too, which ends the session.
    with suppress(*_BROKEN):
        async with to_process:
            async for item in to_process:
                text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
                await stdin.send(text.encode() + b"\n")


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error


async def _stop(process: Process) -> None:
    """Close its input, then ask, then kill the whole group."""
    # INVARIANT: as in `stdio_transport`.
    assert process.stdin is not None
    with suppress(*_BROKEN):
        await process.stdin.aclose()
    for number in (signal.SIGTERM, signal.SIGKILL):
        with anyio.move_on_after(_STOP_S):
            await process.wait()
            break
        _signal(process, number)
    with anyio.move_on_after(_STOP_S):
        await process.wait()
    # Children that outlived their parent share its group.
    _signal(process, signal.SIGKILL)
    with suppress(*_BROKEN):
        await process.aclose()


def _signal(process: Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
