"""The howto about warehouses, run as it stands on a real Postgres, up to an answer."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.cli.terminal import Server, done, interlock
from tests.test_mcp_server_howto import write

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "warehouse.md").read_text("utf-8")
PLACE = "127.0.0.1:5432/sales"
ROLE = "interlock"


@pytest.fixture
def place(postgres_url: str) -> Iterator[str]:
    """Where the database is that the page has made; its role goes with it."""
    url = postgres_url.replace("postgresql+psycopg:", "postgresql:")
    (statements,) = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statements.encode())
        yield f"127.0.0.1:{urlsplit(url).port}{urlsplit(url).path}"
        connection.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}".encode())


def test_the_page_leads_to_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Each file and command as it stands there; the answer is the one that it shows."""
    monkeypatch.chdir(tmp_path)
    done("init", ".")
    steps = re.findall(r"^```(yaml|sh)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for text in (text for kind, text in steps if kind == "yaml"):
        write(tmp_path, text.replace(PLACE, place))
    (commands,) = (text for kind, text in steps if kind == "sh")
    question, answer = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    start = re.search(r"`interlock (run start revenue --input .*?)`", PAGE)
    assert start is not None

    (tmp_path / "question.json").write_text(question)
    store, *others = (shlex.split(line)[1:] for line in commands.splitlines())
    done(*store, given=f"{ROLE}:correct-horse\n")
    planned, _, listed, tried = (done(*command) for command in others)
    with Server(tmp_path):
        run_id = done(*shlex.split(start[1])).split()[-1]
        done("run", "watch", run_id)
        run = interlock("run", "show", run_id, "--json").json

    assert "+ server warehouse-dev" in planned
    assert "warehouse.revenue.show" in listed
    assert "takes connections; no request was sent" in tried
    assert "FROM revenue" in tried
    assert json.loads(answer) == run["output"], run
    assert "pii" in json.dumps(run["labels"])
