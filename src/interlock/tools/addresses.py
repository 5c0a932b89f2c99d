"""Which network addresses may be reached: our own table, because the library's says yes to some."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

import httpx2

from interlock.domain.errors import InputError
from interlock.domain.tool import Environment

Address = IPv4Address | IPv6Address
_Networks = tuple[IPv4Network | IPv6Network, ...]

# IANA special-purpose registries, read 2026-01; `ipaddress.is_global` differs on Python 3.11.
_LOOPBACK = tuple(map(ip_network, ("127.0.0.0/8", "::1/128")))
_PRIVATE = tuple(
    map(ip_network, ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"))
)
_NEVER = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/8",
            "100.100.100.200/32",  # metadata (Alibaba)
            "168.63.129.16/32",  # metadata (Azure), a public address
            "169.254.0.0/16",  # link-local and metadata
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "fd00:ec2::254/128",  # metadata (AWS)
            "fd20:ce::254/128",  # metadata (Google)
            "2001::/23",  # Teredo, ORCHID and other protocol assignments
            "2001:db8::/32",
            "2002::/16",  # 6to4 carries any IPv4 address inside
            "3fff::/20",
        ),
    )
)
_UNICAST_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_DEFAULT_PORTS = {"http": 80, "https": 443, "postgres": 5432}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What one server entry allows to be reached: one origin and everything under its path.

    `named` are the addresses that the entry names exactly; private and loopback ones are reached
    only so. `path` has no trailing slash.
    """

    scheme: str
    host: str
    port: int
    path: str
    environment: Environment
    named: frozenset[Address] = frozenset()

    @property
    def origin(self) -> str:
        """Return scheme, host and port as the start of a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    def has_origin_of(self, url: httpx2.URL) -> bool:
        """Return whether a URL has this scheme, host and port."""
        port = url.port or _DEFAULT_PORTS.get(url.scheme)
        return (url.scheme, url.host, port) == (self.scheme, self.host, self.port)


def target_of(url: str, environment: Environment) -> Target:
    """Read the URL of a server entry; raises `InputError` if it may not be reached at all.

    https only, or http to a loopback address (or `localhost`) in `dev`. No user, query, fragment,
    dot segments or hosts that are numbers in disguise.
    """
    parsed = _parsed(url)
    named = _named(parsed.host)
    is_loopback = bool(named) and all(_within(a, _LOOPBACK) for a in named)
    if not named and (":" in parsed.host or _NUMERIC_LABEL.fullmatch(_last_label(parsed.host))):
        msg = f"the host `{parsed.host}` is a number and not an exact address"
        raise InputError(msg)
    if parsed.scheme == "http" and not (is_loopback and environment == "dev"):
        msg = f"`{url}` needs https: plain http goes to a loopback address in `dev` only"
        raise InputError(msg)
    target = Target(
        scheme=parsed.scheme,
        host=parsed.host,
        port=parsed.port or _DEFAULT_PORTS[parsed.scheme],
        path=parsed.raw_path.decode().rstrip("/"),
        environment=environment,
        named=named,
    )
    for address in named:
        why = why_refused(address, target)
        if why is not None:
            raise InputError(why)
    return target


def why_refused(address: Address, target: Target) -> str | None:
    """Return why an address may not be reached for a target, or None if it may."""
    inner = _embedded(address)
    if _within(inner, _NEVER):
        return f"the address `{address}` is reserved or serves metadata and is never reached"
    if _within(inner, _LOOPBACK):
        if address in target.named and target.environment == "dev":
            return None
        return f"the loopback address `{address}` may only be named exactly, by a `dev` server"
    if _within(inner, _PRIVATE):
        if address in target.named:
            return None
        return f"the private address `{address}` must be named exactly by the server entry"
    if isinstance(inner, IPv6Address) and inner not in _UNICAST_V6:
        return f"the address `{address}` is not a public unicast address"
    return None


def _parsed(url: str) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError, UnicodeError):
        msg = f"`{url}` is not a URL"
        raise InputError(msg) from None
    if parsed.scheme not in _DEFAULT_PORTS or not parsed.host:
        msg = f"`{url}` must start with https:// and name a host"
        raise InputError(msg)
    if parsed.userinfo or parsed.query or parsed.fragment or "?" in url or "#" in url:
        msg = f"the URL of `{parsed.host}` must have no user, query or fragment"
        raise InputError(msg)
    if not url.isascii() or re.search(r"/\.{1,2}(/|$)|%|\\|[\x00-\x20\x7f]|[^:]//", url):
        msg = f"the path of `{url}` must be plain: no dot segments, escapes or empty segments"
        raise InputError(msg)
    return parsed


def _named(host: str) -> frozenset[Address]:
    if host == "localhost":
        return frozenset({ip_address("127.0.0.1"), ip_address("::1")})
    try:
        address = ip_address(host)
    except ValueError:
        return frozenset()
    return frozenset({address}) if str(address) == host.lower() else frozenset()


def _last_label(host: str) -> str:
    return host.rstrip(".").rpartition(".")[2]


def _embedded(address: Address) -> Address:
    """Return the IPv4 address inside a mapped or NAT64 one, else the address itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _within(address: Address, networks: _Networks) -> bool:
    return any(address in network for network in networks)
