from __future__ import annotations

import json
from pathlib import Path

import jsonschema_rs
import pytest
from pydantic import TypeAdapter, ValidationError

from interlock.manifest.files import parse, read_folder
from interlock.manifest.misfits import editor_schema
from interlock.manifest.scalars import ToolName
from interlock.manifest.schema import KINDS
from scripts.schemas import FOLDER, wanted

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_published_editor_schemas_are_current() -> None:
    """`schemas/` holds what `python scripts/schemas.py` writes, and nothing else."""
    published = {path.name: path.read_text() for path in FOLDER.iterdir()}

    assert wanted() == published


@pytest.mark.parametrize("kind", KINDS)
def test_editor_schema_accepts_the_example_and_refuses_unknown_keys(kind: str) -> None:
    """What loads passes in the editor; a misspelt key is marked there too."""
    schema = jsonschema_rs.Draft202012Validator(json.loads(json.dumps(editor_schema(kind))))
    documents = [
        document.content
        for example in ("back_office", "service_desk")
        for path, text in read_folder(EXAMPLES / example).items()
        if path.endswith(".yaml")
        for document in parse(path, text)
        if document.content["kind"] == kind
    ]

    assert documents
    assert [] == [str(e) for document in documents for e in schema.iter_errors(document)]
    assert not schema.is_valid({**documents[0], "nmae": 1})


def test_models_can_be_given_every_name_of_a_tool() -> None:
    """Listed with `__` for its dots, the longest name has the 64 characters that providers take."""
    longest = f"{'a' * 55}.b.c.d"

    assert longest == TypeAdapter(ToolName).validate_python(longest)
    assert 64 == len(longest.replace(".", "__"))
    with pytest.raises(ValidationError):
        TypeAdapter(ToolName).validate_python(f"a{longest}")
