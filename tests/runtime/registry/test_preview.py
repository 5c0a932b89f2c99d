"""What would be sent: as the connectors build it, and never more than the tool permits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from interlock.domain.canonical import JsonObject
from interlock.domain.errors import InputError
from interlock.domain.ids import ToolName
from interlock.domain.tool import Binding, McpCall
from interlock.manifest.load import load
from interlock.runtime.registry.preview import preview
from interlock.testing.recorder_project import TOOL_OF, files

URL = "http://127.0.0.1:9"


def binding(effect_class: str, *, change: tuple[str, str] = ("", "")) -> Binding:
    """Return a tool of the recorder's project as bound in `dev`."""
    texts = {path: text.replace(*change) for path, text in files(URL).items()}
    found = load(texts).binding(ToolName(TOOL_OF[effect_class]), "dev")
    assert found is not None
    return found


def test_a_one_time_link_is_told_with_what_fetches_it() -> None:
    """The write goes to the link, which is not fetched for a look."""
    shown = preview(binding("conditional"), {"text": "hello"})

    assert "POST /conditional/links" == shown["before"]
    assert f"{URL}/ONE-TIME-LINK" == shown["url"]


def test_absent_arguments_leave_no_trace_in_the_query() -> None:
    """A value is encoded whole, an absent one is left out."""
    given: tuple[JsonObject, ...] = ({}, {"reference": "a&b=c"})

    urls = [preview(binding("read"), value)["url"] for value in given]

    assert [f"{URL}/read/items", f"{URL}/read/items?reference=a%26b%3Dc"] == urls


def test_a_resource_is_shown_with_the_uri_that_is_read() -> None:
    """Values are encoded as they would be sent; what makes no URI is refused."""
    found = binding("read")
    call = McpCall(upstream="notes://{reference}/text", kind="resource")
    resource = replace(found, tool=replace(found.tool, request=call))

    assert {"resource": "notes://a%2Fb/text"} == preview(resource, {"reference": "a/b"})
    with pytest.raises(InputError, match="cannot be"):
        preview(resource, {"reference": ".."})


@pytest.mark.parametrize(
    ("arguments", "change", "problem"),
    [
        ({"text": 1}, ("", ""), "arguments"),
        ({"text": "x" * 90}, ("timeout_s: 5.0", "timeout_s: 5.0, request_bytes: 50"), "50"),
    ],
    ids=["contract", "size"],
)
def test_what_could_not_be_sent_is_refused(
    arguments: JsonObject, change: tuple[str, str], problem: str
) -> None:
    """As the call itself would be."""
    with pytest.raises(InputError, match=problem):
        preview(binding("keyed", change=change), arguments)
