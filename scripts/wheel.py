"""Builds the wheel, installs it with the locked dependencies into a fresh environment, tries it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).parent / "uv"
# All modules, as an import that works in the checkout may need a file that the wheel lacks.
IMPORT_ALL = """
import importlib, pkgutil, interlock
assert "site-packages" in interlock.__file__, interlock.__file__
found = [m.name for m in pkgutil.walk_packages(interlock.__path__, "interlock.")]
for name in found:
    if "migrations" not in name and not name.endswith("__main__"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            # The extras `queues` and `verify` are not in the runtime's lock file.
            if error.name not in ("aio_pika", "faststream", "z3"):
                raise
print(f"wheel: imported {len(found)} modules")
"""


def main() -> None:
    """Fail with the output of the first step that fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = folder / "env"
        python = env / "bin" / "python"
        _run(UV, "build", "--quiet", "--no-build-isolation", "--wheel", "--out-dir", folder, ROOT)
        wheel = next(folder.glob("*.whl"))
        _run(UV, "venv", "--quiet", "--python", sys.executable, env)
        install = (str(UV), "pip", "install", "--quiet", "--python", str(python))
        lock = ROOT / "requirements" / "runtime.txt"
        _run(*install, "--require-hashes", "--requirement", lock)
        _run(*install, "--no-deps", wheel)
        _run(UV, "pip", "check", "--quiet", "--python", python)
        _run(python, "-c", IMPORT_ALL, cwd=folder)
        _run(env / "bin" / "interlock", "--help", cwd=folder)


def _run(*command: str | Path, cwd: Path = ROOT) -> None:
    if subprocess.run(command, cwd=cwd, check=False).returncode != 0:
        sys.exit(f"wheel: `{' '.join(map(str, command[:2]))} ...` failed")


if __name__ == "__main__":
    main()
