"""The process of one call of untrusted code: started with nothing, asked once, killed."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

from interlock.domain.canonical import JsonObject, parse
from interlock.domain.effect import Reply, Transport
from interlock.domain.errors import InputError, JsonError, UnavailableError
from interlock.domain.tool import Server
from interlock.tools.functions import FunctionContract

INSIDE = Path(__file__).with_name("inside.py")
_START_S = 20.0
_DESCRIBE_BYTES = 1024 * 1024
_MESSAGE_LENGTH = 200
_CHUNK = 65_536
_FRAME = len('{"result": }\n')


async def ask(
    request: JsonObject,
    *,
    timeout_s: float,
    limit: int,
    places: asyncio.Semaphore,
    describe: bool = False,
) -> Reply:
    """Start a process, and hand it a request once its walls stand; returns what is known then."""
    is_sent = False
    more = ("describe",) if describe else ()
    try:
        async with (
            asyncio.timeout(timeout_s),
            places,
            _started(limit + _FRAME, math.ceil(timeout_s) + 1, *more) as process,
        ):
            problem = _refusal(await _line(process))
            if problem is not None:
                return _not_sent(problem)
            is_sent = True
            await _hand_over(process, request)
            return _reply(await _line(process), limit)
    except TimeoutError:
        transport = Transport.UNKNOWN if is_sent else Transport.NOT_SENT
        return Reply(transport=transport, problem=f"no result within {timeout_s:g} s")
    except OSError as error:
        return _not_sent(f"the sandbox cannot be started: {error.strerror}")


async def described(server: Server) -> tuple[FunctionContract, ...]:
    """Import a server's code inside, and return what its functions say of themselves.

    Raises `UnavailableError` where there is no sandbox, `InputError` for code that does not load or
    has a signature without a contract.
    """
    modules = sorted(path.removesuffix(".py") for path in server.code if "/" not in path)
    request: JsonObject = {"code": dict(server.code), "modules": [*modules]}
    reply = await ask(
        request,
        timeout_s=_START_S,
        limit=_DESCRIBE_BYTES,
        places=asyncio.Semaphore(1),
        describe=True,
    )
    if reply.transport is Transport.NOT_SENT:
        raise UnavailableError(str(reply.problem))
    if not isinstance(reply.body, list):
        raise InputError(f"the code of `{server.name}` does not load: {reply.problem}")
    return tuple(_contract(one, server) for one in reply.body)


def missing() -> str | None:
    """Return why this machine cannot run untrusted code, or None if it can."""
    try:
        done = subprocess.run(  # noqa: S603  # our own interpreter and file
            _argv(5, "describe"),
            input=b'{"code": {}, "modules": []}',
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            timeout=_START_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the sandbox cannot be started: {str(error)[:_MESSAGE_LENGTH]}"
    return _refusal(done.stdout.partition(b"\n")[0])


def _contract(said: object, server: Server) -> FunctionContract:
    """Take what the inside says of a function; code that is clever could say anything."""
    one = cast("Mapping[str, object]", said if isinstance(said, dict) else {})
    name, title = one.get("name"), one.get("title")
    inputs, output = one.get("input"), one.get("output")
    if not (isinstance(name, str) and isinstance(title, str)) or not (
        isinstance(inputs, dict) and isinstance(output, dict)
    ):
        raise InputError(f"the code of `{server.name}` describes no functions")
    return FunctionContract(name=name, title=title, input_schema=inputs, output_schema=output)


@asynccontextmanager
async def _started(limit: int, cpu_s: int, *more: str) -> AsyncIterator[Process]:
    """Start a process with nothing of ours, and kill it with all that it started at the end."""
    process = await asyncio.create_subprocess_exec(
        *_argv(cpu_s, *more),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        limit=limit,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        # What is left in the pipe would keep `wait` waiting; nobody writes to it any more.
        # INVARIANT: a pipe was asked for.
        assert process.stdout is not None
        while await process.stdout.read(_CHUNK):
            pass
        await process.wait()


def _argv(cpu_s: int, *more: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-B", str(INSIDE), str(cpu_s), *more]


async def _line(process: Process) -> bytes | None:
    """Return the next whole line; empty if it ended before, None if the line is too long."""
    # INVARIANT: `_started` asks for pipes.
    assert process.stdout is not None
    try:
        return await process.stdout.readuntil()
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError:
        return None


async def _hand_over(process: Process, request: JsonObject) -> None:
    # INVARIANT: `_started` asks for pipes.
    assert process.stdin is not None
    with suppress(ConnectionError):  # it has ended, which its missing answer tells
        process.stdin.write(json.dumps(request).encode())
        await process.stdin.drain()
        process.stdin.close()


def _refusal(line: bytes | None) -> str | None:
    """Return None if the first line says that all walls stand; it is written by our own code."""
    said = json.loads(line) if line else {}
    if said == {"ready": True}:
        return None
    reason = said.get("refused", "its process did not start; it needs Linux 6.2 or later")
    return f"untrusted code is not run, since there is no sandbox: {reason}"[:_MESSAGE_LENGTH]


def _reply(line: bytes | None, limit: int) -> Reply:
    if line is None:
        problem = f"the result is over {limit} bytes"
        return Reply(transport=Transport.REPLY, status=200, problem=problem)
    if not line:
        problem = "the function's process ended without an answer: a crash, or a limit"
        return Reply(transport=Transport.UNKNOWN, problem=problem)
    try:
        answer = parse(line, max_bytes=limit + _FRAME)
    except JsonError as error:
        problem = f"the result is not JSON: {error}"[:_MESSAGE_LENGTH]
        return Reply(transport=Transport.REPLY, status=200, problem=problem)
    if isinstance(answer, dict) and "result" in answer:
        return Reply(transport=Transport.REPLY, status=200, body=answer["result"])
    raised = answer.get("raised") if isinstance(answer, dict) else None
    text = str(raised)[:_MESSAGE_LENGTH]
    return Reply(transport=Transport.REPLY, status=200, is_error=True, problem=text)


def _not_sent(problem: str) -> Reply:
    return Reply(transport=Transport.NOT_SENT, problem=problem)
