from __future__ import annotations

import ssl

import pytest
from faststream.security import SASLPlaintext

from interlock.domain.errors import InputError
from interlock.domain.workflow import Queue
from interlock.serve.queues.port import Login
from interlock.serve.queues.security import security_of


def login(url: str, secret: str | None = None) -> Login:
    """Return how a queue at an address is reached."""
    return Login(queue=Queue(url=url, name="orders", secret="secret://mq/dev/in"), secret=secret)


def test_a_secret_is_user_and_password() -> None:
    """The password may hold a colon; what has none is named, and its text is not."""
    found = security_of(login("nats://mq", "bot:a:b"))

    assert isinstance(found, SASLPlaintext)
    assert ("bot", "a:b", False) == (found.username, found.password, found.use_ssl)
    with pytest.raises(InputError, match="`secret://mq/dev/in` is not `user:password`"):
        security_of(login("nats://mq", "hunter2"))


@pytest.mark.parametrize("url", ["tls://mq", "amqps://mq"])
@pytest.mark.parametrize("secret", [None, "bot:word"])
def test_tls_names_the_server(url: str, secret: str | None) -> None:
    """Its certificate is checked, with its host name."""
    found = security_of(login(url, secret))

    assert found is not None
    assert isinstance(found.ssl_context, ssl.SSLContext)
    assert (True, ssl.CERT_REQUIRED) == (
        found.ssl_context.check_hostname,
        found.ssl_context.verify_mode,
    )


def test_without_a_secret_nothing_is_said() -> None:
    """In `dev`, on a broker that asks for nothing."""
    assert None is security_of(login("redis://mq"))
