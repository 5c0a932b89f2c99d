"""Writes the JSON Schemas by which editors check project files, one for each kind.

python scripts/schemas.py           write schemas/*.schema.json
python scripts/schemas.py --check   only say whether they are current
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from interlock.manifest.misfits import editor_schema
from interlock.manifest.schema import KINDS

FOLDER = Path(__file__).resolve().parent.parent / "schemas"


def wanted() -> dict[str, str]:
    """Return the text of each schema by file name."""
    return {
        f"{kind.lower()}.schema.json": json.dumps(editor_schema(kind), indent=2) + "\n"
        for kind in KINDS
    }


def main(arguments: list[str]) -> int:
    """Write the schemas, or compare them."""
    FOLDER.mkdir(exist_ok=True)
    stale = [
        name
        for name, text in wanted().items()
        if not (FOLDER / name).is_file() or (FOLDER / name).read_text() != text
    ]
    if arguments != ["--check"]:
        for name in stale:
            (FOLDER / name).write_text(wanted()[name])
        return 0
    for name in stale:
        print(f"schemas/{name} is not current: run `python scripts/schemas.py`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
