"""Tools that are functions nobody trusts: each call in a process of its own that only computes."""

from __future__ import annotations

import asyncio
import json

from interlock.domain.canonical import JsonObject
from interlock.domain.effect import Reply, Transport
from interlock.domain.tool import PythonCall, Server
from interlock.tools.connectors.drain import Drain
from interlock.tools.connectors.port import OutgoingCall
from interlock.tools.sandbox.process import ask

MAX_AT_ONCE = 8
"""Processes of one server at a time; a call that finds no place until its deadline is not sent."""


class SandboxConnector:
    """Calls the functions of one server's code; they see their arguments and nothing else."""

    def __init__(self, server: Server) -> None:
        self._code = dict(server.code)
        self._drain = Drain()
        self._places = asyncio.Semaphore(MAX_AT_ONCE)

    async def prepare(self, call: OutgoingCall) -> JsonObject | None:
        """Return None: a function has no guard that is fetched."""
        del call
        return None  # the port's type says `JsonObject | None`

    async def send(self, call: OutgoingCall) -> Reply:
        """Start a process, and hand it code and arguments once its walls stand."""
        declared, limits = call.binding.tool.request, call.binding.tool.limits
        # INVARIANT: a tool with connector `python` was loaded with a function's name.
        assert isinstance(declared, PythonCall)
        if f"{declared.function.partition('.')[0]}.py" not in self._code:
            return _not_sent(f"the server's folder has no module for `{declared.function}`")
        if len(json.dumps(call.arguments)) > limits.request_bytes:
            return _not_sent(f"the arguments are over {limits.request_bytes} bytes")
        context: JsonObject = {
            "effect_id": call.effect_id,
            "key": call.idem_key,
            "attempt": call.attempt,
            "timeout_s": call.timeout_s,
            "secret": call.secret,
        }
        request: JsonObject = {
            "code": dict(self._code),
            "function": declared.function,
            "arguments": call.arguments,
            "context": context,
        }
        with self._drain.call() as is_open:
            if not is_open:
                return _not_sent("the connector is closed")
            return await ask(
                request,
                timeout_s=call.timeout_s,
                limit=limits.response_bytes,
                places=self._places,
            )

    async def aclose(self) -> None:
        """Wait for the calls under way."""
        await self._drain.close()


def _not_sent(problem: str) -> Reply:
    return Reply(transport=Transport.NOT_SENT, problem=problem)
