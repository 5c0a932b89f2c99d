"""Tools that are functions of this installation's own code; untrusted code is not run."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Mapping
from functools import partial

from interlock.domain.canonical import Json, JsonObject, parse
from interlock.domain.effect import Reply, Transport
from interlock.domain.errors import JsonError
from interlock.domain.tool import PythonCall
from interlock.tools.apart import run_apart
from interlock.tools.connectors.drain import Drain
from interlock.tools.connectors.port import OutgoingCall
from interlock.tools.functions import EffectContext, PythonFunction

_MESSAGE_LENGTH = 200


class PythonConnector:
    """Calls registered functions: coroutines in the loop, plain functions in a thread.

    A function that is late is left behind: a thread cannot be stopped, so its outcome is unknown.
    """

    def __init__(self, functions: Mapping[str, PythonFunction]) -> None:
        self._functions = functions
        self._drain = Drain()

    async def prepare(self, call: OutgoingCall) -> JsonObject | None:
        """Return None: a function has no guard that is fetched."""
        del call
        return None  # the port's type says `JsonObject | None`

    async def send(self, call: OutgoingCall) -> Reply:
        """Call the function once with the arguments by name."""
        declared = call.binding.tool.request
        # INVARIANT: a tool with connector `python` was loaded with a function's name.
        assert isinstance(declared, PythonCall)
        function = self._functions.get(declared.function)
        if function is None:
            return _not_sent(f"no function is registered as `{declared.function}`")
        with self._drain.call() as is_open:
            if not is_open:
                return _not_sent("the connector is closed")
            try:
                async with asyncio.timeout(call.timeout_s):
                    result = await _result(function, call)
            except TimeoutError:
                return Reply(
                    transport=Transport.UNKNOWN, problem=f"no result within {call.timeout_s:g} s"
                )
            except Exception as error:  # noqa: BLE001  # the connector's edge: a raise is a reply
                text = f"{type(error).__name__}: {error}"[:_MESSAGE_LENGTH]
                return Reply(transport=Transport.REPLY, status=200, is_error=True, problem=text)
        return _reply(result, limit=call.binding.tool.limits.response_bytes)

    async def aclose(self) -> None:
        """Wait for the calls under way."""
        await self._drain.close()


async def _result(function: PythonFunction, call: OutgoingCall) -> object:
    context = EffectContext(
        effect_id=call.effect_id,
        key=call.idem_key,
        attempt=call.attempt,
        timeout_s=call.timeout_s,
        secret=call.secret,
    )
    arguments = (context,) if function.takes_context else ()
    if inspect.iscoroutinefunction(function.function):
        return await function.function(*arguments, **call.arguments)
    return await run_apart(partial(function.function, *arguments, **call.arguments))


def _reply(result: object, *, limit: int) -> Reply:
    """Pass a result through JSON text, so that what is handed on is plain JSON within its limit."""
    body: Json = None
    problem = None
    try:
        body = parse(json.dumps(result), max_bytes=limit)
    except (JsonError, TypeError, ValueError, RecursionError) as error:
        problem = f"the result is not JSON: {error}"[:_MESSAGE_LENGTH]
    return Reply(transport=Transport.REPLY, status=200, body=body, problem=problem)


def _not_sent(problem: str) -> Reply:
    return Reply(transport=Transport.NOT_SENT, problem=problem)
