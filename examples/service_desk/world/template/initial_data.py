"""First contents of the tracker: the two users that Roundup needs, and the vocabularies."""

db.user.create(username="admin", password=adminpw, address=admin_email, roles="Admin")
db.user.create(username="anonymous", roles="Anonymous")

for order, name in enumerate(("critical", "high", "normal", "low"), start=1):
    db.priority.create(name=name, order=order)

for order, name in enumerate(("new", "open", "waiting", "resolved", "closed"), start=1):
    db.status.create(name=name, order=order)
