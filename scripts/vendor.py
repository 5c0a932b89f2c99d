"""Refreshes the vendored front-end files from their npm packages, as `manifest.toml` lists them.

Edit the versions in the manifest, run this, read the difference. Needs `npm` on the machine of the
person who refreshes; nobody else does.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "src" / "interlock" / "serve" / "console" / "static" / "vendor"
MANIFEST = VENDOR / "manifest.toml"
HEADER = """# Front-end files of others, byte for byte as published. `make vendor` refreshes them.
"""
FILE = """
[[file]]
name = "{name}"
package = "{package}"
version = "{version}"
path = "{path}"
licence = "{licence}"
sha256 = "{sha256}"
"""


def main() -> None:
    """Fetch each package once, copy its files, and write their hashes to the manifest."""
    listed = tomllib.loads(MANIFEST.read_text())["file"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for wanted in sorted({f"{file['package']}@{file['version']}" for file in listed}):
            fetch(wanted, folder)
        text = HEADER
        for file in listed:
            data = (folder / f"{file['package']}@{file['version']}" / file["path"]).read_bytes()
            (VENDOR / file["name"]).write_bytes(data)
            text += FILE.format(**file | {"sha256": hashlib.sha256(data).hexdigest()})
            print(f"vendor: {file['name']} {file['version']}, {len(data)} bytes")
    MANIFEST.write_text(text)


def fetch(package: str, folder: Path) -> None:
    """Unpack a package, `<name>@<version>`, into a folder of that name."""
    done = subprocess.run(
        ["npm", "pack", "--silent", "--pack-destination", folder, package],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"vendor: npm could not fetch `{package}`")
    with tarfile.open(folder / done.stdout.strip()) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (folder / "unpacked" / "package").rename(folder / package)


if __name__ == "__main__":
    main()
