"""Keeps a failed HTTP exchange from ending an MCP session with all calls that share it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus

import httpx2

from interlock.tools.egress import WIRE, Wire, broken_by, retry_after_s

_REDIRECTS = range(300, 400)


class ContainedTransport(httpx2.AsyncBaseTransport):
    """Turns a failed exchange into an answer, so that it fails one call.

    The SDK lets an exception of the transport end the session with all calls under way. What is
    known of the failure stands in the call's `Wire`.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; whatever the wire does, there is an answer."""
        wire = WIRE.get() or Wire()
        try:
            response = await self._inner.handle_async_request(request)
        except httpx2.HTTPError as error:
            wire.problem = broken_by(error)
            return httpx2.Response(HTTPStatus.SERVICE_UNAVAILABLE)
        wire.status = wire.status or response.status_code
        wire.retry_after_s = retry_after_s(response.headers.get("retry-after"))
        if response.status_code in _REDIRECTS:
            # Its body would pass for an answer.
            await response.aclose()
            return httpx2.Response(HTTPStatus.BAD_GATEWAY)
        # INVARIANT: the asynchronous transport answers with asynchronous streams.
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _ContainedStream(response.stream, wire)
        return response

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


class _ContainedStream(httpx2.AsyncByteStream):
    """A body that ends where it breaks."""

    def __init__(self, stream: httpx2.AsyncByteStream, wire: Wire) -> None:
        self._stream = stream
        self._wire = wire

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except httpx2.HTTPError as error:
            self._wire.problem = broken_by(error)

    async def aclose(self) -> None:
        await self._stream.aclose()
