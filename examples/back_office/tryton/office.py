"""Makes a Tryton for the example: a company, its books, a customer, and two keys for agents.

Run by the Python of an environment that holds Tryton. Each key is of a user who may do what the
tools of its system do, and no more. Keys, database and settings are written into this folder, as
is the password of `admin`, for whoever looks with a client.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from proteus import Model, config
from trytond.modules.account.tests.tools import create_chart, create_fiscalyear
from trytond.modules.account_invoice.tests.tools import set_fiscalyear_invoice_sequences
from trytond.modules.company.tests.tools import create_company, get_company
from trytond.modules.currency.tests.tools import get_currency

FOLDER = Path(__file__).resolve().parent
CONFIG = FOLDER / "trytond.conf"
SETTINGS = f"""\
[database]
path = {FOLDER}

[web]
listen = 127.0.0.1:8433

# What follows a change (printing an invoice, say) is done by `trytond-worker`, not before the
# answer: otherwise its failure would be answered as a refusal, although the change is stored.
[queue]
worker = True
"""
DATABASE = "office"
MODULES = ("account_invoice", "sale_opportunity")
READ, KEEP = ("read",), ("read", "write", "create")
Rights = Mapping[str, tuple[str, ...]]
ROLES: Mapping[str, Rights] = {
    "crm": {
        "party.party": READ,
        "party.address": READ,
        "sale.opportunity": KEEP,
        "account.configuration.default_payment_term": READ,
    },
    "accounting": {
        "party.party": READ,
        "party.address": READ,
        "account.invoice": KEEP,
        "account.invoice.line": KEEP,
    },
}
"""What the user of each system may do with which models; none of them deletes."""


def main() -> None:
    """Make the database; it must not be there yet."""
    os.umask(0o077)
    (FOLDER / f"{DATABASE}.sqlite").touch(exist_ok=False)
    CONFIG.write_text(SETTINGS)
    password = FOLDER / "admin.password"
    password.write_text(secrets.token_urlsafe(16))
    subprocess.run(
        [
            Path(sys.executable).with_name("trytond-admin"),
            *("-c", CONFIG, "-d", DATABASE, "--email", "admin@office.example"),
            *("-u", *MODULES, "--activate-dependencies"),
        ],
        env={**os.environ, "TRYTONPASSFILE": str(password)},
        check=True,
    )
    os.environ["DB_NAME"] = DATABASE
    config.set_trytond(config_file=str(CONFIG))
    create_company(currency=get_currency("EUR"))
    create_chart()
    year = set_fiscalyear_invoice_sequences(create_fiscalyear())
    year.save()
    year.click("create_period")
    Model.get("party.party")(name="Acme").save()
    # Tryton allows what no permission names: this group names every model and allows nothing.
    nothing = _group("Agents", {model.name: () for model in Model.get("ir.model").find()})
    for system, rights in ROLES.items():
        key = _key(f"agents-{system}", nothing, _group(f"Agents: {system}", rights))
        (FOLDER / f"{system}.key").write_text(key)


def _group(name: str, rights: Rights) -> int:
    """Make a group with an access permission for each model, and return its id."""
    group = Model.get("res.group")(name=name)
    group.save()
    permission = Model.get("ir.model.access")
    permission.save(
        [
            permission(
                model=model,
                group=group,
                **{f"perm_{act}": act in allowed for act in (*KEEP, "delete")},
            )
            for model, allowed in rights.items()
        ]
    )
    return int(group.id)


def _key(login: str, *groups: int) -> str:
    """Make a user of these groups, and return the key of an application that acts as it."""
    user = Model.get("res.user")(login=login, name=login)
    user.groups.extend(map(Model.get("res.group"), groups))
    user.companies.append(get_company())
    user.company = get_company()
    user.save()
    application = Model.get("res.user.application")(user=user, application="rest")
    application.save()
    return str(application.key)


if __name__ == "__main__":
    main()
