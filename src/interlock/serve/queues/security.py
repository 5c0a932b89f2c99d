"""How a reader proves who it is to a broker, and the broker to it."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from faststream.security import BaseSecurity, SASLPlaintext

from interlock.domain.errors import InputError
from interlock.serve.queues.port import Login

_TLS = frozenset({"tls", "amqps"})


def security_of(login: Login) -> BaseSecurity | None:
    """Return user, password and TLS; Redis takes TLS from the scheme of its address alone."""
    has_tls = urlsplit(login.queue.url).scheme in _TLS
    context = ssl.create_default_context() if has_tls else None
    if login.secret is None:
        return BaseSecurity(ssl_context=context, use_ssl=True) if has_tls else None
    user, colon, password = login.secret.partition(":")
    if not colon:
        raise InputError(f"the secret at `{login.queue.secret}` is not `user:password`")
    return SASLPlaintext(user, password, ssl_context=context, use_ssl=has_tls)
