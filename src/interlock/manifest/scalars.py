"""The single values that stand in project files, and the patterns of names."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    PlainValidator,
    WithJsonSchema,
)

from interlock.domain.principal import MAX_PERSON_NAME, PERSON_NAME


def _schema_or_path(value: JsonValue) -> JsonValue:
    if isinstance(value, dict) or (isinstance(value, str) and value.endswith(".json")):
        return value
    raise ValueError("should be a JSON Schema, or the path of a file that holds one")


def _secret_reference(value: str) -> str:
    if re.fullmatch(r"secret://[a-z0-9][a-z0-9_.-]*/(dev|stage|prod)/[a-z0-9][a-z0-9_.-]*", value):
        return value
    raise ValueError("should be secret://<system>/<environment>/<name>; a value never stands here")


def _credentials(value: object) -> str | dict[str, str]:
    if isinstance(value, str):
        return _secret_reference(value)
    if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
        return {key: _secret_reference(str(reference)) for key, reference in value.items()}
    raise ValueError("should be one reference, or one for each workflow that may use the tool")


def _proof(value: object) -> object:
    if value == "error" or (type(value) is int and 300 <= value <= 599):  # noqa: PLR2004 - HTTP's
        return value
    raise ValueError("should be a status from 300 to 599, or `error`")


NAME = r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$"
DASHED = r"^[a-z][a-z0-9]*([_-][a-z0-9]+)*$"
TOOL = r"^[a-z][a-z0-9]*(_[a-z0-9]+)*(\.[a-z][a-z0-9]*(_[a-z0-9]+)*){1,3}$"
QUEUE = r"^[A-Za-z0-9_*>-][A-Za-z0-9_.:/*>-]*$"
TOOL_VERSION = r"^[a-z][a-z0-9_.]*@[1-9][0-9]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=64)]
ServerName = Annotated[str, Field(pattern=DASHED, max_length=64)]
TeamName = ServerName
QueueName = Annotated[str, Field(pattern=QUEUE, max_length=128)]
PersonName = Annotated[str, Field(pattern=PERSON_NAME, max_length=MAX_PERSON_NAME)]
ToolName = Annotated[str, Field(pattern=TOOL, max_length=61)]
"""Models are told it with `__` for each of its dots, and their providers take 64 characters."""
ToolReference = Annotated[str, Field(pattern=TOOL_VERSION)]
Day = Annotated[date, Field(strict=False)]
"""As a text, which is how dates are read from YAML here."""
Text = Annotated[str, Field(min_length=1, max_length=20_000)]
Version = Annotated[int, Field(ge=1)]
Status = Annotated[int, Field(ge=100, le=599)]
Seconds = Annotated[float, Field(gt=0)]
Priority = Annotated[int, Field(ge=0, le=9)]
SecretReference = Annotated[str, AfterValidator(_secret_reference)]
Credentials = Annotated[
    str | dict[str, str],
    # Not a union: its problems would name each kind, and all but one of them mislead.
    PlainValidator(_credentials, json_schema_input_type=str | dict[str, str]),
]
Proof = Annotated[int | Literal["error"], BeforeValidator(_proof)]
Schema = Annotated[
    JsonValue, AfterValidator(_schema_or_path), WithJsonSchema({"type": ["string", "object"]})
]
Template = JsonValue
Templates = dict[str, JsonValue]
