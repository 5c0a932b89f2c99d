from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from interlock.domain.errors import InvariantError
from interlock.serve.console.assets import FOLDER, Assets


def test_address_changes_with_the_content(tmp_path: Path) -> None:
    """A changed file has another address, so that no browser shows the old one."""
    folder = shutil.copytree(FOLDER, tmp_path / "static")
    before = Assets(folder).url("console.css")
    (folder / "console.css").write_text("/* new */")

    after = Assets(folder).url("console.css")

    assert before != after
    assert after.startswith("/static/console.")


def test_vendored_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    """The console does not start with a script that is not the published one."""
    folder = shutil.copytree(FOLDER, tmp_path / "static")
    (folder / "vendor" / "htmx.min.js").write_text("alert(1)")

    with pytest.raises(InvariantError, match=r"`htmx\.min\.js` is not the one in its manifest"):
        Assets(folder)


def test_every_vendored_file_is_listed() -> None:
    """No script lies beside the manifest without a version, a licence and a hash."""
    listed = (FOLDER / "vendor" / "manifest.toml").read_text()

    scripts = [path.name for path in (FOLDER / "vendor").glob("*.js")]

    assert "htmx.min.js" in scripts
    assert [] == [name for name in scripts if f'name = "{name}"' not in listed]
