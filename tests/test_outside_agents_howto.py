"""The howto about agents of any framework: its client finds the token endpoint by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from interlock.testing.recorder_project import session_files
from tests.cli.terminal import Server, done, interlock

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "outside-agents.md").read_text("utf-8")
pytestmark = pytest.mark.timeout(180)


def test_the_page_connects_a_client_by_oauth_and_one_by_a_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program and the command of the page, as they stand there."""
    monkeypatch.chdir(tmp_path)
    for path, text in session_files("http://127.0.0.1:9").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (program,) = re.findall(r"^```py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (tmp_path / "agent.py").write_text(program)
    with Server(tmp_path) as server:
        done("apply", "--yes")
        made = interlock("key", "create", "helper-1", "--agent", "outside/helper", "--env", "dev")
        monkeypatch.setenv("INTERLOCK_AGENT_KEY", made.out.strip())
        key_id = made.err.split()[1].rstrip(";")
        said = subprocess.run(
            [sys.executable, "agent.py"],
            env={**os.environ, "INTERLOCK_URL": server.url, "AGENT_KEY_ID": key_id},
            capture_output=True,
            text=True,
            check=False,
        )
        headers = interlock(*command.split()[1:]).json

    assert "recorder__item__find" in said.stdout, said.stderr
    assert str(headers["Authorization"]).startswith("Bearer ilt_")
