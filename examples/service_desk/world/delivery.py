"""Sends the queued webhooks, signed by the Standard Webhooks rules, until each was accepted.

At least once: a delivery is marked after the receiver's answer, so a crash between the two sends
it again, under the same `webhook-id`.
Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from roundup.instance import Tracker

FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
TIMEOUT_S = 10.0
TOO_MANY_REQUESTS = 429


def signature(secret: str, *, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the `webhook-signature` header; the secret is `whsec_` and Base64."""
    key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class Sender:
    """Sends what waits in the tracker's `delivery` class; one thread runs it."""

    def __init__(
        self,
        tracker: Tracker,
        *,
        url: str,
        secret: str,
        writing: threading.Lock,
        wrote: threading.Event,
        refused: Path,
    ) -> None:
        """Take the lock that guards writes, the signal that follows them, and a folder.

        The folder receives a file for each delivery that the receiver refused for good.
        """
        signature(secret, message_id="", timestamp=0, body=b"")  # an unreadable secret fails here
        self._tracker = tracker
        self._url = urlsplit(url)
        self._secret = secret
        self._writing = writing
        self._wrote = wrote
        self._refused = refused
        self._due: dict[str, float] = {}

    def run(self) -> None:
        """Send for ever: after each write, and each second for what waits to be tried again."""
        while True:
            self._wrote.wait(timeout=1.0)
            self._wrote.clear()
            try:
                self.send_due()
            except Exception as error:  # noqa: BLE001 - the thread must outlive a busy database
                print(f"webhook sender: {error!r}, goes on", file=sys.stderr)

    def send_due(self) -> None:
        """Try each pending delivery whose time has come, once."""
        for number, name, body, earlier in self._pending():
            if self._due.get(number, 0.0) > time.monotonic():
                continue
            status, answer = self._post(name, body.encode())
            state = _state_after(status)
            if state == "pending":
                delay = min(FIRST_DELAY_S * 2**earlier, LONGEST_DELAY_S)
                self._due[number] = time.monotonic() + delay
            if state == "refused":
                self._report(name, body, answer)
            self._mark(number, state=state, attempts=earlier + 1, answer=answer)

    def _pending(self) -> list[tuple[str, str, str, int]]:
        with closing(self._tracker.open("admin")) as db:
            get = db.delivery.get
            found = db.delivery.filter(None, {}, exact_match_spec={"state": "pending"})
            return [
                (n, get(n, "name"), get(n, "body"), get(n, "attempts"))
                for n in sorted(found, key=int)
            ]

    def _post(self, name: str, body: bytes) -> tuple[int, str]:
        """Send one delivery and return the status and its words; status 0 means no answer."""
        timestamp = int(time.time())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(
                self._secret, message_id=name, timestamp=timestamp, body=body
            ),
        }
        secure = self._url.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        with closing(kind(self._url.netloc, timeout=TIMEOUT_S)) as connection:
            try:
                target = self._url._replace(scheme="", netloc="").geturl() or "/"
                connection.request("POST", target, body=body, headers=headers)
                reply = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                return 0, f"no answer: {error}"
            return reply.status, f"{reply.status} {reply.reason}"

    def _mark(self, number: str, **values: object) -> None:
        with self._writing, closing(self._tracker.open("admin")) as db:
            db.delivery.set(number, **values)
            db.commit()

    def _report(self, name: str, body: str, answer: str) -> None:
        self._refused.mkdir(exist_ok=True)
        file = self._refused / f"{name}.json"
        file.write_text(body, encoding="utf-8")
        print(f"webhook {name} refused with {answer}, kept in {file}", file=sys.stderr)


def _state_after(status: int) -> str:
    """Decide what an answer means: accepted, refused for good, or to be tried again."""
    if status // 100 == 2:  # noqa: PLR2004 - 2xx
        return "delivered"
    if status // 100 == 4 and status != TOO_MANY_REQUESTS:  # noqa: PLR2004 - 4xx
        return "refused"
    return "pending"
