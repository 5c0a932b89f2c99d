"""The one way out: an HTTP client that reaches one server entry and nothing else.

Every address is checked when the name is resolved and the connection goes to the checked one.
Redirects and cookies never reach the code above, replies are bounded after decompression.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from ipaddress import ip_address

import httpx2

from interlock.domain.effect import Reply, Transport
from interlock.domain.errors import InputError, UnreachableError
from interlock.domain.tool import Environment
from interlock.tools.addresses import Address, Target, target_of, why_refused

DEFAULT_REPLY_BYTES = 16 * 1024 * 1024
RESOLVED_FOR_S = 30.0
CONNECT_S = 10.0
_LONGEST_RETRY_AFTER_S = 3600.0

Resolver = Callable[[str, int], Awaitable[tuple[Address, ...]]]
"""Host and port to addresses, in the order to try."""


@dataclass(slots=True)
class Wire:
    """What is known of one exchange: its bound, whether its first byte may have left, what broke.

    The sender puts one into `WIRE` before it sends; the transport fills it in. A context variable
    carries it, because the MCP SDK sends in tasks of its own and hands on only the context.
    `is_refused` if the address is one that we do not go to: that speaks not against the server.
    """

    reply_bytes: int = DEFAULT_REPLY_BYTES
    is_sent: bool = False
    status: int | None = None
    problem: str | None = None
    is_refused: bool = False
    retry_after_s: float | None = None

    def lost(self, problem: str) -> Reply:
        """Return what is known of a call to which no answer came."""
        if self.is_sent:
            return Reply(transport=Transport.UNKNOWN, problem=problem)
        return Reply(
            transport=Transport.NOT_SENT, problem=problem, is_unreachable=not self.is_refused
        )


WIRE: ContextVar[Wire | None] = ContextVar("interlock_wire", default=None)


def open_client(url: str, environment: Environment) -> httpx2.AsyncClient:
    """Return a client for URLs under the origin of `url`; raises `InputError` if refused.

    It follows no redirect, keeps no cookie, reads no proxy variable and never retries.
    """
    return client_of(target_of(url, environment))


def client_of(
    target: Target, *, transport: httpx2.AsyncBaseTransport | None = None
) -> httpx2.AsyncClient:
    """Return a client whose every request is checked against a target."""
    return httpx2.AsyncClient(
        transport=transport or CheckedTransport(target),
        trust_env=False,
        follow_redirects=False,
        # A compressed representation has an ETag of its own, which is no version to write against.
        headers={"Accept-Encoding": "identity", "User-Agent": "interlock"},
        timeout=httpx2.Timeout(30.0),
    )


async def resolve(host: str, port: int) -> tuple[Address, ...]:
    """Ask the system for the addresses of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(ip_address(entry[4][0]) for entry in found))


async def checked_addresses(target: Target, resolver: Resolver = resolve) -> tuple[Address, ...]:
    """Return the addresses of a target, each of which may be reached.

    Raises `InputError` if any of them may not, `OSError` if the name has none.
    """
    if len(target.named) == 1:
        return tuple(target.named)
    addresses = await resolver(target.host, target.port)
    for address in addresses:
        why = why_refused(address, target)
        if why is not None:
            raise InputError(why)
    return addresses


async def connect(
    target: Target, *, tls: ssl.SSLContext | None = None, within_s: float = CONNECT_S
) -> str:
    """Open a connection to a checked address, with TLS where the target has it, and close it.

    No request is sent. Returns the address; raises `UnreachableError`.
    """
    transport = CheckedTransport(target, tls=tls)
    try:
        async with asyncio.timeout(within_s):
            return await transport.connect()
    except TimeoutError:
        msg = f"`{target.host}` did not answer within {within_s:g} s"
        raise UnreachableError(msg) from None
    except (httpx2.ConnectError, OSError) as error:
        raise UnreachableError(f"`{target.host}` cannot be reached: {error}") from None
    finally:
        await transport.aclose()


class CheckedTransport(httpx2.AsyncBaseTransport):
    """Sends requests of one target to addresses that were checked.

    A refusal raises `httpx2.ConnectError`: nothing was sent. If any address of a name is refused,
    the name is refused.
    """

    def __init__(
        self, target: Target, *, tls: ssl.SSLContext | None = None, resolver: Resolver = resolve
    ) -> None:
        self._target = target
        self._resolver = resolver
        self._resolved: tuple[float, tuple[Address, ...]] = (0.0, ())
        self._tls = tls or _tls_context()
        self._inner = httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request; addresses are tried in turn until one connects."""
        wire = WIRE.get() or Wire()
        if not self._target.has_origin_of(request.url):
            wire.is_refused = True
            msg = f"`{request.url.host}` is not the host of this server entry"
            raise httpx2.ConnectError(msg)
        failure: httpx2.TransportError = httpx2.ConnectError("the host has no address")
        for address in await self._addresses(wire):
            try:
                response = await self._inner.handle_async_request(
                    self._pinned(request, address, wire)
                )
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
            else:
                return _bounded(response, wire)
        raise failure

    async def connect(self) -> str:
        """Connect to the first checked address that answers, close again, and return it.

        Raises `httpx2.ConnectError` for an address that is refused, `OSError` if none answers.
        """
        failure: OSError = OSError("the host has no address")
        is_tls = self._target.scheme == "https"
        for address in await self._addresses(Wire()):
            try:
                _, writer = await asyncio.open_connection(
                    str(address),
                    self._target.port,
                    ssl=self._tls if is_tls else None,
                    server_hostname=self._target.host if is_tls else None,
                )
            except OSError as error:
                failure = error
                continue
            writer.transport.abort()
            return str(address)
        raise failure

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()

    async def _addresses(self, wire: Wire) -> tuple[Address, ...]:
        until_s, addresses = self._resolved
        if time.monotonic() < until_s:
            return addresses
        try:
            addresses = await checked_addresses(self._target, self._resolver)
        except OSError as error:
            msg = f"the host `{self._target.host}` has no address: {error.strerror}"
            raise httpx2.ConnectError(msg) from error
        except InputError as error:
            wire.is_refused = True
            raise httpx2.ConnectError(error.message) from error
        self._resolved = (time.monotonic() + RESOLVED_FOR_S, addresses)
        return addresses

    def _pinned(self, request: httpx2.Request, address: Address, wire: Wire) -> httpx2.Request:
        async def trace(event: str, _info: object) -> None:
            if event == "http11.send_request_headers.started":
                wire.is_sent = True

        return httpx2.Request(
            request.method,
            request.url.copy_with(host=str(address)),
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, "sni_hostname": self._target.host, "trace": trace},
        )


def broken_by(error: Exception) -> str:
    """Say what broke an exchange, never in words of the other side."""
    if isinstance(error, httpx2.RemoteProtocolError):
        # Its text may repeat the line that is no HTTP.
        return "the answer was cut off or is no HTTP"
    return str(error) or type(error).__name__


def retry_after_s(value: str | None) -> float | None:
    """Read `Retry-After` (RFC 9110, 10.2.3): seconds or a date, at most an hour."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), _LONGEST_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    wait_s = (at.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    return min(max(wait_s, 0.0), _LONGEST_RETRY_AFTER_S)


@cache
def _tls_context() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def _bounded(response: httpx2.Response, wire: Wire) -> httpx2.Response:
    encoding = response.headers.get("content-encoding", "identity").lower()
    dropped = {"set-cookie", "content-encoding"}
    if response.has_redirect_location:
        dropped.add("location")
    if encoding != "identity":
        dropped.add("content-length")
    # INVARIANT: the asynchronous transport answers with asynchronous streams.
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    return httpx2.Response(
        response.status_code,
        headers=[(k, v) for k, v in response.headers.multi_items() if k.lower() not in dropped],
        stream=_BoundedStream(response.stream, encoding=encoding, limit=wire.reply_bytes),
        extensions=response.extensions,
    )


class _BoundedStream(httpx2.AsyncByteStream):
    """A body, decompressed and cut off with `httpx2.DecodingError` at its limit."""

    def __init__(self, stream: httpx2.AsyncByteStream, *, encoding: str, limit: int) -> None:
        self._stream = stream
        self._encoding = encoding
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        left = self._limit
        decoder = None if self._encoding == "identity" else _gzip(self._encoding)
        is_begun = False
        async for part in self._stream:
            is_begun = is_begun or bool(part)
            data = part if decoder is None else _decoded(decoder, part, left + 1)
            left -= len(data)
            if left < 0:
                msg = f"the reply has more than {self._limit} bytes"
                raise httpx2.DecodingError(msg)
            yield data
        if decoder is not None and is_begun and not decoder.eof:
            raise httpx2.DecodingError("the compressed reply was cut")

    async def aclose(self) -> None:
        await self._stream.aclose()


def _gzip(encoding: str) -> zlib._Decompress:
    if encoding not in {"gzip", "x-gzip"}:
        msg = "the reply is encoded in a way that was not asked for"
        raise httpx2.DecodingError(msg)
    return zlib.decompressobj(zlib.MAX_WBITS | 16)


def _decoded(decoder: zlib._Decompress, part: bytes, most: int) -> bytes:
    """Decompress at most `most` bytes: what a small part would swell to never exists."""
    try:
        data = decoder.decompress(part, most)
    except zlib.error as error:
        msg = f"the reply is not what its encoding says: {error}"
        raise httpx2.DecodingError(msg) from None
    if decoder.unused_data:
        raise httpx2.DecodingError("the compressed reply goes on after its end")
    return data
