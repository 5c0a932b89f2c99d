from __future__ import annotations

from pathlib import Path

from interlock.config import load as load_config
from interlock.manifest.files import read_folder
from interlock.manifest.load import load
from interlock.manifest.starter import starter_files
from interlock.policy.defaults import DEFAULT_POLICIES


def test_new_project_loads_and_allows_nothing(tmp_path: Path) -> None:
    """What `interlock init` writes is a whole project: the default policies and nothing to run."""
    for path, text in starter_files("desk", title="Our desk", owner="it").items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    release = load(read_folder(tmp_path))

    assert {file.path: file.text for file in DEFAULT_POLICIES} == {
        file.path: file.text for file in release.policies
    }
    assert ({}, {}, ("it", "security")) == (release.tools, release.workflows, release.teams)
    assert tmp_path / ".interlock" == load_config(tmp_path, {}).data_dir
