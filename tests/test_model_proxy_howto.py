"""The howto about model requests of outside agents: its files, its program and its command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from interlock.testing.recorder_project import session_files
from tests.cli.terminal import Server, done, interlock
from tests.serve.model_proxy.provider import Provider

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "model-proxy.md").read_text("utf-8")
pytestmark = pytest.mark.timeout(180)


def block(kind: str) -> str:
    """Return the one code block of a kind."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_page_lets_an_agent_ask_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands there, but for the provider, which is on this machine."""
    monkeypatch.chdir(tmp_path)
    texts = session_files("http://127.0.0.1:9") | {"agents/helper.yaml": block("yaml")}
    for path, text in texts.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / "agent.py").write_text(block("py"))
    with Provider() as provider:
        url = f'base_url = "{provider.url}/v1"\n'
        (tmp_path / "interlock.toml").write_text(block("toml") + url)
        interlock("secret", "set", "secret://openai/dev/key", given="our-key")
        with Server(tmp_path) as server:
            done("apply", "--yes")
            made = interlock(
                "key", "create", "helper-1", "--agent", "outside/helper", "--env", "dev"
            )
            monkeypatch.setenv("INTERLOCK_AGENT_KEY", made.out.strip())
            session = interlock("token", "mint", "--json").json
            said = subprocess.run(
                [sys.executable, "agent.py"],
                env={
                    **os.environ,
                    "INTERLOCK_URL": server.url,
                    "SESSION_TOKEN": str(session["access_token"]),
                },
                capture_output=True,
                text=True,
                check=False,
            )
            cost = done(*block("sh").replace("RUN", str(session["run_id"])).split()[1:])

    assert "['small']\nThe answer is 42.\n" == said.stdout, said.stderr
    assert "Bearer our-key" == provider.headers[0]["authorization"]
    assert "1200" in cost
    assert "total" in cost
