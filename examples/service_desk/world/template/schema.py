"""Schema and rights of the service desk's tracker (Roundup executes this file at every start).

Roundup's classic schema, with what this service desk adds: a description and our reference on
tickets, replies that name their ticket, a knowledge base, and grants of access to file shares.
"""

# ---- vocabularies ----------------------------------------------------------------------------

priority = Class(db, "priority", name=String(), order=Number())
priority.setkey("name")

status = Class(db, "status", name=String(), order=Number())
status.setkey("name")

keyword = Class(db, "keyword", name=String())
keyword.setkey("name")

share = Class(db, "share", name=String(), path=String(), owner=Link("user"))
share.setkey("name")

# ---- people ----------------------------------------------------------------------------------

query = Class(db, "query", klass=String(), name=String(), url=String(), private_for=Link("user"))

user = Class(
    db,
    "user",
    username=String(),
    password=Password(),
    address=String(),
    realname=String(),
    phone=String(),
    organisation=String(),
    alternate_addresses=String(),
    queries=Multilink("query"),
    roles=String(),
    timezone=String(),
)
user.setkey("username")

# ---- tickets and replies ---------------------------------------------------------------------

# `issue` lets a reply be posted in one request: detectors/tickets.py links it into the ticket.
msg = FileClass(
    db,
    "msg",
    author=Link("user", do_journal="no"),
    recipients=Multilink("user", do_journal="no"),
    date=Date(),
    summary=String(),
    files=Multilink("file"),
    messageid=String(),
    inreplyto=String(),
    issue=Link("issue"),
    external_ref=String(),
)

file = FileClass(db, "file", name=String())

issue = IssueClass(
    db,
    "issue",
    description=String(),
    kind=String(),
    assignedto=Link("user"),
    keyword=Multilink("keyword"),
    priority=Link("priority"),
    status=Link("status"),
    partof=Link("issue"),
    external_ref=String(),
)

# ---- knowledge base and access ---------------------------------------------------------------

article = Class(
    db, "article", title=String(indexme="yes"), body=String(), keyword=Multilink("keyword")
)
article.setlabelprop("title")

grant = Class(
    db,
    "grant",
    user=Link("user"),
    share=Link("share"),
    level=String(),
    state=String(),
    issue=Link("issue"),
    external_ref=String(),
)
grant.setlabelprop("id")

# ---- webhooks waiting to be sent -------------------------------------------------------------

# A row is stored in the transaction of its ticket (detectors/webhook.py), so none is ever lost.
delivery = Class(
    db,
    "delivery",
    name=String(),
    body=String(),
    state=String(),
    attempts=Integer(),
    answer=String(),
)
delivery.setkey("name")

# ---- rights ----------------------------------------------------------------------------------


def own_record(db, userid, itemid):
    """Tell whether the record is the user's own."""
    return userid == itemid


view_colleagues = db.security.addPermission(
    name="View", klass="user", properties=("id", "username", "realname", "organisation")
)

db.security.addRole(name="Agent", description="A program that works on tickets through REST")

for role in ("User", "Agent"):
    for door in ("Web Access", "Rest Access"):  # signing in needs the first, even for REST
        db.security.addPermissionToRole(role, door)
    for name in ("priority", "status", "keyword", "share", "article", "file"):
        db.security.addPermissionToRole(role, "View", name)
    for name in ("issue", "msg"):
        for right in ("View", "Create", "Edit"):
            db.security.addPermissionToRole(role, right, name)
    db.security.addPermissionToRole(role, view_colleagues)

for name in ("issue", "msg", "grant"):
    db.security.addPermissionToRole("Agent", "Retire", name)
for right in ("View", "Create", "Edit"):
    db.security.addPermissionToRole("Agent", right, "grant")

db.security.addPermissionToRole(
    "User", db.security.addPermission(name="View", klass="user", check=own_record)
)

# Anonymous sees the front page with the sign-in form, and nothing else.
db.security.addPermissionToRole("Anonymous", "Web Access")
