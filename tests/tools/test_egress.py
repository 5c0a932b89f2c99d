"""The way out: only to checked addresses, without redirects, cookies, proxies or swollen bodies."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from interlock.domain.effect import Transport
from interlock.domain.errors import UnreachableError
from interlock.tools.addresses import Address, Target, target_of
from interlock.tools.egress import WIRE, CheckedTransport, Wire, client_of, connect, open_client
from tests.tools.outside import Answer, Site
from tests.tools.outside import site as open_site

NAME = "tracker.example"


class Names:
    """A resolver with fixed answers that counts its questions."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = tuple(map(ip_address, addresses))
        self.asked = 0

    async def __call__(self, _host: str, _port: int) -> tuple[Address, ...]:
        """Answer as told."""
        self.asked += 1
        return self.addresses


@pytest.fixture
def url(site: Site) -> str:
    """The address of the plain server."""
    return f"http://127.0.0.1:{site.port}"


async def test_request_arrives_and_answer_comes_back(site: Site, url: str) -> None:
    """The client works, and asks for the plain representation, whose ETag is the version."""
    site.then(Answer(body=b'{"a": 1}'))

    async with open_client(url, "dev") as client:
        response = await client.get(f"{url}/x")

    assert (200, {"a": 1}) == (response.status_code, response.json())
    assert site.seen[0].headers["accept-encoding"] == "identity"


async def test_other_origin_is_refused_before_it_is_resolved(site: Site, url: str) -> None:
    """A URL outside the entry never leaves, whoever wrote it."""
    async with open_client(url, "dev") as client:
        with pytest.raises(httpx2.ConnectError, match="not the host"):
            await client.get(f"http://localhost:{site.port}/x")
        with pytest.raises(httpx2.ConnectError):
            await client.get(f"http://127.0.0.1:{site.port + 1}/x")

    assert [] == site.seen


async def test_redirect_is_an_answer_without_a_way_on(site: Site, url: str) -> None:
    """Not even code that wants to follow a redirect can see where it leads."""
    site.then(Answer(status=307, headers={"Location": f"{url}/elsewhere"}))

    async with open_client(url, "dev") as client:
        response = await client.get(f"{url}/x", follow_redirects=True)

    assert (307, None) == (response.status_code, response.headers.get("location"))
    assert len(site.seen) == 1


async def test_cookie_is_not_kept(site: Site, url: str) -> None:
    """What one answer sets is not carried to the next request."""
    site.then(Answer(headers={"Set-Cookie": "session=1"}))

    async with open_client(url, "dev") as client:
        await client.get(f"{url}/x")
        await client.get(f"{url}/x")

    assert "cookie" not in site.seen[1].headers


async def test_proxy_variables_are_not_read(
    site: Site, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment cannot send requests another way."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async with open_client(url, "dev") as client:
        assert (await client.get(f"{url}/x")).status_code == 200

    assert len(site.seen) == 1


async def test_compressed_answer_is_read(site: Site, url: str) -> None:
    """What was compressed with gzip is undone."""
    site.then(Answer(body=gzip.compress(b'{"a": 1}'), headers={"Content-Encoding": "gzip"}))

    async with open_client(url, "dev") as client:
        assert {"a": 1} == (await client.get(f"{url}/x")).json()


@pytest.mark.parametrize(
    ("body", "encoding", "expected"),
    [
        (gzip.compress(b"0" * 50_000_000), "gzip", "more than 1000 bytes"),
        (b"0" * 5000, "identity", "more than 1000 bytes"),
        (gzip.compress(b"0" * 500)[:-4], "gzip", "cut"),
        (gzip.compress(b"0") + b"more", "gzip", "after its end"),
        (b"not gzip", "gzip", "not what its encoding says"),
        (b"anything", "br", "not asked for"),
    ],
    # Named, since compressed bytes hold the time and workers must collect the same tests.
    ids=["bomb", "long", "cut", "more", "no gzip", "other encoding"],
)
async def test_body_is_bounded_after_decompression(
    site: Site, url: str, body: bytes, encoding: str, expected: str
) -> None:
    """Bombs, cut streams and encodings that were not asked for end in an error, not in memory."""
    site.then(Answer(body=body, headers={"Content-Encoding": encoding}))
    WIRE.set(Wire(reply_bytes=1000))

    async with open_client(url, "dev") as client:
        with pytest.raises(httpx2.DecodingError, match=expected):
            await client.get(f"{url}/x")


async def test_wire_knows_whether_anything_was_sent(site: Site, url: str) -> None:
    """The first byte of a request marks it as sent, a refused connection does not."""
    wire = Wire()
    WIRE.set(wire)

    async with open_client(f"http://127.0.0.1:{site.port}", "dev") as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get("http://127.0.0.1:1/x")
        assert wire.is_sent is False
        await client.get(f"{url}/x")

    assert wire.is_sent is True


@pytest.mark.parametrize("inside", ["127.0.0.1", "10.0.0.7", "169.254.169.254", "::1"])
async def test_name_that_leads_inside_is_refused(inside: str) -> None:
    """One address that is not public is enough, even if another is."""
    names = Names("93.184.215.14", inside)
    transport = CheckedTransport(target_of(f"https://{NAME}", "dev"), resolver=names)

    wire = Wire()
    WIRE.set(wire)

    async with httpx2.AsyncClient(transport=transport) as client:
        with pytest.raises(httpx2.ConnectError, match="address"):
            await client.get(f"https://{NAME}/x")

    refused = wire.lost("refused")
    assert (Transport.NOT_SENT, False) == (refused.transport, refused.is_unreachable)


async def test_name_that_cannot_be_resolved_was_sent_nothing() -> None:
    """A failed look-up is a failed connection."""

    async def nowhere(_host: str, _port: int) -> tuple[Address, ...]:
        raise OSError(1, "no such name")

    transport = CheckedTransport(target_of(f"https://{NAME}", "prod"), resolver=nowhere)
    wire = Wire()
    WIRE.set(wire)

    async with httpx2.AsyncClient(transport=transport) as client:
        with pytest.raises(httpx2.ConnectError, match="no such name"):
            await client.get(f"https://{NAME}/x")

    assert wire.lost("no such name").is_unreachable


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for NAME, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls_site(certificate: Path) -> Iterator[Site]:
    """A TLS server that shows the certificate of NAME."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with open_site(tls=context) as opened:
        yield opened


def _named_loopback(host: str, port: int) -> Target:
    """Return a target whose name may lead to this machine, as no entry can say."""
    return Target(
        scheme="https",
        host=host,
        port=port,
        path="",
        environment="dev",
        named=frozenset({ip_address("127.0.0.1"), ip_address("127.0.0.2")}),
    )


async def test_checked_address_is_the_one_connected_to(tls_site: Site, certificate: Path) -> None:
    """The name is resolved once, stays in TLS and Host, and the second address is tried too."""
    names = Names("127.0.0.2", "127.0.0.1")
    transport = CheckedTransport(
        _named_loopback(NAME, tls_site.port),
        tls=ssl.create_default_context(cafile=certificate),
        resolver=names,
    )

    async with httpx2.AsyncClient(transport=transport) as client:
        for _ in range(2):
            response = await client.get(f"https://{NAME}:{tls_site.port}/x")
            assert response.status_code == 200

    assert f"{NAME}:{tls_site.port}" == tls_site.seen[0].headers["host"]
    assert names.asked == 1


async def test_certificate_of_another_name_is_refused(tls_site: Site, certificate: Path) -> None:
    """Connecting to an address does not weaken the check of the name."""
    target = _named_loopback("other.example", tls_site.port)
    transport = CheckedTransport(
        target,
        tls=ssl.create_default_context(cafile=certificate),
        resolver=Names("127.0.0.1"),
    )

    async with client_of(target, transport=transport) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get(f"https://other.example:{tls_site.port}/x")

    assert [] == tls_site.seen


async def test_connection_alone_keeps_the_rules_and_sends_nothing(
    tls_site: Site, certificate: Path, url: str, site: Site
) -> None:
    """A try-out checks addresses and names as a call does, and is no call."""
    tls = ssl.create_default_context(cafile=certificate)
    good = CheckedTransport(
        _named_loopback(NAME, tls_site.port), tls=tls, resolver=Names("127.0.0.2", "127.0.0.1")
    )
    bad_name = CheckedTransport(
        _named_loopback("other.example", tls_site.port), tls=tls, resolver=Names("127.0.0.1")
    )
    bad_address = CheckedTransport(
        target_of(f"https://{NAME}", "dev"), resolver=Names("169.254.169.254")
    )

    assert "127.0.0.1" == await good.connect()
    assert "127.0.0.1" == await connect(target_of(url, "dev"))
    with pytest.raises(ssl.SSLCertVerificationError):
        await bad_name.connect()
    with pytest.raises(httpx2.ConnectError, match="never reached"):
        await bad_address.connect()
    with pytest.raises(UnreachableError, match="cannot be reached"):
        await connect(target_of("http://127.0.0.1:9", "dev"))
    assert [] == [*site.seen, *tls_site.seen]
