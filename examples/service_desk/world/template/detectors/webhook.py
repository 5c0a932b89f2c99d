"""Queues one webhook for each ticket that a person opens.

The row is written in the transaction that stores the ticket: either both exist or neither. The
server (delivery.py) sends it after the commit, so a receiver that is down never fails a ticket.
"""

import json


def queue(db, cl, nodeid, oldvalues):
    """Store the message about a new ticket, unless an agent or the seeding program opened it."""
    reporter = cl.get(nodeid, "creator")
    if db.tx_Source == "seed" or db.user.has_role(reporter, "Agent"):
        return
    priority = cl.get(nodeid, "priority")
    created = cl.get(nodeid, "creation").pretty("%Y-%m-%dT%H:%M:%SZ")
    body = {
        "type": "ticket.created",
        "timestamp": created,
        "data": {
            "id": nodeid,
            "title": cl.get(nodeid, "title"),
            "text": cl.get(nodeid, "description") or "",
            "kind": cl.get(nodeid, "kind"),
            "priority": db.priority.get(priority, "name") if priority else None,
            "reporter": db.user.get(reporter, "username"),
            "reporter_name": db.user.get(reporter, "realname"),
            "created": created,
        },
    }
    db.delivery.create(name=f"issue-{nodeid}", body=json.dumps(body), state="pending", attempts=0)


def init(db):
    """Register the reaction with Roundup."""
    db.issue.react("create", queue)
