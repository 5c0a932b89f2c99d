"""A tool's server that keeps what it is sent, and the project of an agent that may call it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer

from interlock.testing.httpd import JsonHandler

READ, WRITE, SECRET = "shop__order__read", "shop__order__cancel", "shop__till__open"
UNTRUSTED, NOTE = "shop__review__read", "shop__order__note"

_PROJECT = """
interlock: v1
kind: Project
name: shop
title: A shop
include: [defaults]
teams: [platform, security]
---
interlock: v1
kind: System
name: shop
title: Shop
owner: platform
---
interlock: v1
kind: Server
name: shop-dev
system: shop
environment: dev
protocol: http
url: {url}
breaker_open_s: 0.1
---
interlock: v1
kind: Agent
name: clerk
version: 1
title: An agent of another framework
owner: platform
sponsor: sam
outside: true
---
interlock: v1
kind: Workflow
name: orders
version: 1
title: Orders by an assistant
owner: platform
department: it
triggers:
  gateway: {{session: clerk, environment: dev}}
inputs: {{type: object, additionalProperties: false}}
agents:
  clerk: {{tools: [shop.order.read, shop.order.cancel, shop.order.note, shop.review.read]}}
approvals:
  - {{tool: shop.order.cancel, by: security, why: a person decides}}
fallbacks:
  - {{code: "*", then: stop}}
success: {{end_state: closed, counts: [closed], objective: 0.9, within_s: 60}}
autonomy: {{dev: {{level: 3, by: ops, reason: tests}}}}
"""
_TOOL = """
---
interlock: v1
kind: Tool
name: {name}
version: 1
owner: platform
title: {name}
description: {name}
system: shop
group: {group}
connector: http
request:
  method: {method}
  path: /{path}/{{id}}
  path_args: {{id: "in:/id"}}
  query: {{note: "in:/note"}}
contract:
  input:
    type: object
    additionalProperties: false
    required: [id]
    properties: {{id: {{type: string, maxLength: 80}}, note: {{type: string, maxLength: 80}}}}
  output:
    type: object
    required: [ok]
    properties: {{ok: {{type: boolean}}}}
    additionalProperties: false
effect: {{class: {effect}}}
source: {{labels: [], trusted: {trusted}}}
sink: {{accepts: [], external: false}}
environments: {{dev: {{server: shop-dev}}}}
"""
_GRANT = """
@id("orders-may-be-cancelled") @owner("platform") @why("The assistant cancels orders")
permit (principal, action in Action::"write", resource in System::"shop");
"""


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass(kw_only=True)
class Wiretap:
    """A running server; `answer` is what it says next."""

    url: str
    heard: list[Heard] = field(default_factory=list)
    answer: object = field(default_factory=lambda: {"ok": True})

    def project(self) -> dict[str, str]:
        """Return the project whose tools this server has."""
        tools = [
            ("shop.order.read", "read", "GET", "orders", "read", "true"),
            ("shop.review.read", "read", "GET", "reviews", "read", "false"),
            ("shop.order.cancel", "write", "POST", "orders", "blind", "true"),
            ("shop.order.note", "write", "POST", "notes", "blind", "true"),
            ("shop.till.open", "write", "POST", "tills", "blind", "true"),
        ]
        keys = ("name", "group", "method", "path", "effect", "trusted")
        texts = [_TOOL.format(**dict(zip(keys, tool, strict=True))) for tool in tools]
        return {
            "project.yaml": _PROJECT.format(url=self.url) + "".join(texts),
            "policies/grants/shop.cedar": _GRANT,
        }


@contextmanager
def listening() -> Iterator[Wiretap]:
    """Run the server."""
    tap = Wiretap(url="")

    class Handler(JsonHandler):
        def do_GET(self) -> None:  # noqa: N802  # the name that the library calls
            tap.heard.append(
                Heard(method=self.command, target=self.path, headers=dict(self.headers.items()))
            )
            self.body()
            self.send_bytes(200, json.dumps(tap.answer).encode())

        do_POST = do_GET  # noqa: N815  # as above

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        tap.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield tap
        server.shutdown()
        thread.join()
