"""Addresses: what a server entry may name, and what a name may lead to."""

from __future__ import annotations

from ipaddress import ip_address

import httpx2
import pytest

from interlock.domain.errors import InputError
from interlock.domain.tool import Environment
from interlock.tools.addresses import target_of, why_refused


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("https://api.example.org/v1", "prod"),
        ("https://8.8.8.8/", "prod"),
        ("https://10.1.2.3:8443/api", "prod"),
        ("http://127.0.0.1:8080/tracker", "dev"),
        ("http://[::1]:8080", "dev"),
        ("http://localhost:8080", "dev"),
    ],
)
def test_entry_that_may_be_reached(url: str, environment: Environment) -> None:
    """Public names, exact private addresses, and loopback over plain http in `dev`."""
    assert target_of(url, environment).environment == environment


@pytest.mark.parametrize(
    ("url", "environment"),
    [
        ("http://api.example.org", "dev"),
        ("http://127.0.0.1:8080", "prod"),
        ("https://127.0.0.1", "prod"),
        ("http://10.0.0.1", "dev"),
        ("https://169.254.169.254/latest", "dev"),
        ("https://168.63.129.16", "dev"),
        ("https://0.0.0.0", "dev"),
        ("https://[::]", "dev"),
        ("https://[::ffff:169.254.169.254]", "dev"),
        ("https://[64:ff9b::a9fe:a9fe]", "dev"),
        ("https://[2002:a9fe:a9fe::1]", "dev"),
        ("https://[fe80::1]", "dev"),
        ("http://127.1:80", "dev"),
        ("http://0x7f.1", "dev"),
        ("http://2130706433", "dev"),
        ("https://017700000001", "dev"),
        ("https://1.2.3.4.", "dev"),
        ("https://user:pass@example.org", "prod"),
        ("https://example.org/?a=1", "prod"),
        ("https://example.org/a/../b", "prod"),
        ("https://example.org/%2e%2e/b", "prod"),
        ("https://example.org//b", "prod"),
        ("https://example.org/a#b", "prod"),
        ("file:///etc/passwd", "dev"),
        ("ftp://example.org", "prod"),
        ("example.org", "prod"),
        ("", "dev"),
    ],
)
def test_entry_that_may_not_be_reached(url: str, environment: Environment) -> None:
    """Plain http, metadata, disguised numbers and tricks with the URL are refused at load."""
    with pytest.raises(InputError):
        target_of(url, environment)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.1.1",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",  # noqa: S104  # to be refused
        "::",
        "::1",
        "::10.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_name_may_not_lead_inside(address: str) -> None:
    """A public name that resolves to anything not public is refused, in `dev` too."""
    assert why_refused(ip_address(address), target_of("https://example.org", "dev"))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_name_may_lead_to_the_public(address: str) -> None:
    """Public addresses are reached, also through NAT64."""
    assert why_refused(ip_address(address), target_of("https://example.org", "prod")) is None


def test_private_address_is_reached_only_if_it_is_the_one_named() -> None:
    """Naming one private address opens that one."""
    target = target_of("https://10.1.2.3", "prod")

    assert why_refused(ip_address("10.1.2.3"), target) is None
    assert why_refused(ip_address("10.1.2.4"), target)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.org/anything", True),
        ("https://example.org:443/", True),
        ("https://example.org:444/", False),
        ("http://example.org/", False),
        ("https://example.org.evil.org/", False),
        ("https://evil.org/example.org", False),
    ],
)
def test_origin_is_scheme_host_and_port(*, url: str, expected: bool) -> None:
    """Only URLs of the same origin belong to a target."""
    target = target_of("https://example.org/base", "prod")

    assert target.has_origin_of(httpx2.URL(url)) is expected
