"""Rules of tickets, replies and grants: defaults, allowed values, and replies join their ticket."""

from roundup.date import Date

KINDS = ("incident", "request", "access", "question")
LEVELS = ("read", "write")
STATES = ("active", "revoked")


def _one_of(newvalues, name, allowed):
    value = newvalues.get(name)
    if value is not None and value not in allowed:
        raise ValueError(f"{name} `{value}` is not one of {', '.join(allowed)}")


def check_ticket(db, cl, nodeid, newvalues):
    """Give a new ticket its status, and refuse an empty title or an unknown kind."""
    if (nodeid is None or "title" in newvalues) and not (newvalues.get("title") or "").strip():
        raise ValueError("a ticket needs a title")
    _one_of(newvalues, "kind", KINDS)
    if nodeid is None and not newvalues.get("status"):
        newvalues["status"] = db.status.lookup("new")


def check_grant(db, cl, nodeid, newvalues):
    """Give a new grant its state, and refuse one without a person or a share."""
    if nodeid is None:
        for name in ("user", "share", "level"):
            if not newvalues.get(name):
                raise ValueError(f"a grant needs `{name}`")
        newvalues.setdefault("state", "active")
    _one_of(newvalues, "level", LEVELS)
    _one_of(newvalues, "state", STATES)


def sign_reply(db, cl, nodeid, newvalues):
    """Set author, date and summary of a new reply, as Roundup's own forms do."""
    newvalues["author"] = db.getuid()
    newvalues["date"] = Date(".")
    newvalues.setdefault("summary", (newvalues.get("content") or "").partition("\n")[0][:80])


def link_reply(db, cl, nodeid, oldvalues):
    """Add a new reply to the messages of its ticket, in the same transaction."""
    ticket = cl.get(nodeid, "issue")
    if ticket:
        db.issue.set(ticket, messages=[*db.issue.get(ticket, "messages"), nodeid])


def init(db):
    """Register the rules with Roundup."""
    db.issue.audit("create", check_ticket)
    db.issue.audit("set", check_ticket)
    db.grant.audit("create", check_grant)
    db.grant.audit("set", check_grant)
    db.msg.audit("create", sign_reply)
    db.msg.react("create", link_reply)
