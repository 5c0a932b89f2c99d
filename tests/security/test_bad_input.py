"""Bad input of upstreams and their documents: each family is stopped by a typed error, in bounds.

`SHOWN` names the tests of the rooms; what no room shows is tested here.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from mcp_types import Tool

from interlock.domain.canonical import Json, JsonObject
from interlock.domain.errors import InputError
from interlock.domain.tool import Server
from interlock.manifest.scalars import TOOL
from interlock.testing.connectors.suite import CHECKS
from interlock.tools.openapi import from_openapi
from interlock.tools.proposal import Proposal, tool_name, words_of
from interlock.tools.upstream import definitions, pin_of

TESTS = Path(__file__).resolve().parents[1]
SERVER = Server(name="crm", system="crm", environment="dev", kind="http", url="http://127.0.0.1:1")
SOON_S = 10.0

SHOWN = {
    "oversize bodies and results": (
        "serve/test_http.py::test_a_declared_size_beyond_the_limit_is_refused",
        "serve/test_http.py::test_a_size_that_is_not_declared_counts_all_the_same",
        "domain/test_canonical.py::test_a_result_that_cannot_be_kept_is_refused",
        "check::answer-over-the-limit",
        "check::request-over-the-limit",
    ),
    "endless streams": (
        "check::endless-answer",
        "tools/connectors/mcp/test_stdio.py::test_endless_line_ends_the_session",
    ),
    "gzip bombs": (
        "check::gzip-bomb",
        "tools/test_egress.py::test_body_is_bounded_after_decompression",
        "serve/test_http.py::test_a_compressed_body_is_refused",
    ),
    "deep or exponential schemas": (
        "tools/test_contract.py::test_deep_schema_is_refused",
        "tools/test_contract.py::test_schema_that_doubles_its_work_is_refused",
        "tools/test_contract.py::test_schema_that_refers_to_itself_in_place_is_refused",
        "tools/test_contract.py::test_pattern_takes_linear_time",
        "manifest/test_files.py::test_very_deep_text_is_refused_without_a_crash",
        "security/test_bad_input.py::test_document_cannot_keep_the_import_busy",
        "security/test_bad_input.py::test_very_deep_document_is_refused",
    ),
    "`$ref` to the network": (
        "tools/test_contract.py::test_schema_that_cannot_be_a_contract_is_refused",
        "tools/test_openapi.py::test_what_cannot_be_expressed_is_noted",
    ),
    "path and header injection": (
        "tools/requests/test_http.py::test_value_that_could_leave_its_segment_is_refused",
        "tools/requests/test_http.py::test_text_adds_no_parameter",
        "tools/requests/test_http.py::test_value_that_could_add_a_header_is_refused",
        "tools/requests/test_http.py::test_header_that_is_not_a_tools_to_set_is_refused",
        "tools/test_openapi.py::test_servers_of_the_document_are_ignored",
        "security/test_bad_input.py::test_path_of_a_document_leads_nowhere_else",
    ),
    "names that collide or look alike": (
        "domain/test_canonical.py::test_keys_equal_after_folding_are_one_key",
        "tools/test_proposal.py::test_second_file_of_one_path_is_left_out_and_noted",
        "security/test_bad_input.py::test_name_that_looks_like_another_is_no_tools_name",
        "security/test_bad_input.py::test_tool_that_is_offered_twice_has_no_reviewed_pin",
    ),
}


@pytest.mark.parametrize("shown", [one for many in SHOWN.values() for one in many])
def test_each_family_is_shown_by_tests_that_exist(shown: str) -> None:
    """A renamed test leaves no hole in the table."""
    file, _, name = shown.partition("::")

    if file == "check":
        assert name in {check.name for check in CHECKS}
    else:
        text = (TESTS / file).read_text(encoding="utf-8")
        assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE)


def _proposed(paths: JsonObject, **components: Json) -> Proposal:
    document: JsonObject = {"openapi": "3.1.0", "paths": paths, "components": components}
    return from_openapi(json.dumps(document), SERVER, owner="it")


@pytest.mark.parametrize(
    "path",
    ["//evil.org/x", "/../admin", "/a/./b", "/a%2e%2e/b", "/a?b=1", "/a#b", "/a\r\nHost: b", "a"],
)
def test_path_of_a_document_leads_nowhere_else(path: str) -> None:
    """A template that is not a plain path is not proposed, and the reason is told."""
    proposal = _proposed({path: {"get": {"operationId": "getThing", "responses": {}}}})

    assert ({}, 1) == (dict(proposal.files), len(proposal.notes))


@pytest.mark.parametrize(
    "text", ["openapi: " + "[" * 5000, '{"openapi": ' + "[" * 5000, "a: {" * 5000]
)
def test_very_deep_document_is_refused(text: str) -> None:
    """Nesting ends the import, not the process."""
    with pytest.raises(InputError):
        from_openapi(text, SERVER, owner="it")


@pytest.mark.parametrize(
    "media", ["text", {"schema": {"type": "integer", "exclusiveMinimum": True}}, {"schema": 1}]
)
def test_part_of_another_shape_ends_no_import(media: Json) -> None:
    """What is not what the standard says is read as far as it goes, and reviewed by people."""
    body: JsonObject = {"content": {"application/json": media}}
    operation: JsonObject = {"operationId": "makeThing", "requestBody": body, "responses": {}}

    assert _proposed({"/thing": {"post": operation}}).files


def _schemas(levels: int) -> JsonObject:
    link = "#/components/schemas/"
    doubled: JsonObject = {
        f"d{level}": {"allOf": [{"$ref": f"{link}d{level + 1}"}] * 2} for level in range(levels)
    }
    return {**doubled, f"d{levels}": {"type": "string"}}


def _nested(levels: int) -> JsonObject:
    schema: JsonObject = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "components",
    [
        {"schemas": _schemas(60)},
        {"schemas": {"d0": {"$ref": "#/components/schemas/d0"}}},
        {"schemas": {"d0": _nested(25)}},
        {"parameters": {"p": {"$ref": "#/components/parameters/p"}}},
    ],
    ids=["doubling", "circle", "deep", "circle of parameters"],
)
def test_document_cannot_keep_the_import_busy(components: JsonObject) -> None:
    """An import ends soon: with a proposal, a note, or a refusal of the whole document."""
    parameter: JsonObject = (
        {"$ref": "#/components/parameters/p"}
        if "parameters" in components
        else {"name": "q", "in": "query", "schema": {"$ref": "#/components/schemas/d0"}}
    )
    operation: JsonObject = {"operationId": "getThing", "parameters": [parameter], "responses": {}}
    begun = time.monotonic()

    try:
        size = len(repr(_proposed({"/thing": {"get": operation}}, **components)))
    except InputError:
        size = 0
    assert size < 100_000
    assert time.monotonic() - begun < SOON_S


@pytest.mark.parametrize(
    "name", ["desk.ti\u0441ket.read", "desk.ticket.re\u0430d", "\uff44esk.a", "desk.a\u200bb"]
)
def test_name_that_looks_like_another_is_no_tools_name(name: str) -> None:
    """A name is of plain letters, so what looks the same is the same; imports make it so."""
    assert re.fullmatch(TOOL, name) is None
    assert re.fullmatch(TOOL, tool_name("desk", words_of(name)))


def test_name_for_a_model_stands_for_one_tool() -> None:
    """Models and clients see `__` for a dot, which no name has of its own."""
    assert re.fullmatch(TOOL, "desk.ticket__read") is None
    assert re.fullmatch(TOOL, "desk.ticket_.read") is None


def test_tool_that_is_offered_twice_has_no_reviewed_pin() -> None:
    """Of two tools with one name neither passes for the one that was reviewed."""
    one = Tool(name="read", description="Read", input_schema={"type": "object"})
    other = Tool(name="read", description="Read all", input_schema={"type": "object"})
    pinned = pin_of(definitions([one])["read"])

    assert pinned not in {
        pin_of(definitions(offered)["read"]) for offered in ([one, other], [other, one], [one, one])
    }
