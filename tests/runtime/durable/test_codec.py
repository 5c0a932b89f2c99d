"""What may be put into the journal."""

from __future__ import annotations

from enum import StrEnum

import pytest

from interlock.domain.canonical import MAX_KEPT_BYTES
from interlock.domain.errors import ContractError, InputError, StepFailedError
from interlock.domain.ids import StepName
from interlock.runtime.durable import codec


class _Colour(StrEnum):
    RED = "red"


def test_plain_json_passes_as_it_is() -> None:
    """Every JSON type is kept; tuples become lists and members of enums their text."""
    value = {"a": [1, 2.5, None, True], "b": ("x", _Colour.RED)}

    assert {"a": [1, 2.5, None, True], "b": ["x", "red"]} == codec.checked(value, what="it")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": [0, {1}]}, "it is not JSON at `/a/1`: got a `set`"),
        (float("inf"), "it is not JSON at `/`: got a `float`"),
        ([2**53 + 1], "it is not JSON at `/0`: got a `int`"),
        ({"a": {1: 2}}, "it has the key `1` at `/a`, which is not text"),
        (["\ud800"], "it holds half of a surrogate pair at `/0`"),
    ],
)
def test_anything_else_is_refused_with_its_place(value: object, message: str) -> None:
    """The error names the pointer of the first part that could not be replayed."""
    with pytest.raises(InputError) as caught:
        codec.checked(value, what="it")

    assert message == caught.value.message


def test_value_deeper_than_the_parser_reads_is_refused() -> None:
    """What cannot be read back is not written."""
    value: object = None
    for _ in range(33):
        value = [value]

    with pytest.raises(InputError, match="deeper than 32 levels"):
        codec.checked(value, what="it")


def test_value_over_a_mebibyte_is_refused() -> None:
    """The journal is for results, not for files."""
    with pytest.raises(InputError, match="return a reference"):
        codec.checked("x" * MAX_KEPT_BYTES, what="it")


def test_error_survives_the_journal_as_code_and_message() -> None:
    """Reading a recorded error back gives the code of the first one, also if it was nested."""
    first = codec.error_to_json(ContractError("wrong", pointer="/a"))

    replayed = codec.error_from_json(first, StepName("s"))
    again = codec.error_from_json(codec.error_to_json(replayed), StepName("t"))

    assert isinstance(again, StepFailedError)
    assert ("contract.violated", "wrong", "t") == (again.error_code, again.message, again.step_name)
