from __future__ import annotations

import pytest

from scripts.reference import FOLDER, wanted


@pytest.mark.parametrize("name", ["cli.md", "rest.md"])
def test_the_reference_is_what_the_code_says(name: str) -> None:
    """Every command, option and route is documented; `python scripts/reference.py` writes it."""
    assert wanted()[name] == (FOLDER / name).read_text()


def test_every_command_option_and_route_is_explained() -> None:
    """No row of the reference has an empty cell."""
    empty = [
        line
        for page in wanted().values()
        for line in page.splitlines()
        if line.startswith("|") and line.endswith("|  |")
    ]

    assert [] == empty
