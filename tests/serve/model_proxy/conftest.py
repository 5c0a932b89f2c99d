"""Fixtures of the model proxy: a provider on loopback, and an agent that may ask its models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from interlock.config import ModelSettings
from interlock.domain.trace import Span
from interlock.store import spans
from interlock.testing.recorder_project import session_files
from tests.serve.gateway.door import Door
from tests.serve.model_proxy.provider import Provider

NOWHERE = "http://127.0.0.1:9"
BUDGET = 3


def settings(name: str, provider: str, url: str, *, is_priced: bool = True) -> ModelSettings:
    """Return the settings of a model of 2 and 10 micro-USD a token."""
    return ModelSettings(
        name=name,
        provider=provider,
        base_url=url,
        input_price_micro_usd_per_mtok=2_000_000 if is_priced else None,
        output_price_micro_usd_per_mtok=10_000_000 if is_priced else None,
    )


def open_door(folder: Path, provider: Provider) -> AbstractContextManager[Door]:
    """Return an installation whose agent may ask `default`, `claude` and `unpriced`."""
    project = dict(session_files(NOWHERE))
    project["agents/helper.yaml"] += (
        f"models: [default, claude, unpriced, missing]\nbudget: {{requests: {BUDGET}}}\n"
    )
    models: Mapping[str, ModelSettings] = {
        "default": settings("default", "openai-chat:tiny", f"{provider.url}/v1"),
        "other": settings("other", "openai-chat:tiny", f"{provider.url}/v1"),
        "claude": settings("claude", "anthropic:tiny", provider.url),
        "unpriced": settings("unpriced", "openai-chat:x", f"{provider.url}/v1", is_priced=False),
    }
    return Door(folder, project, models=models)


def model_spans(door: Door) -> list[Span]:
    """Return the model requests of the newest session."""
    session = door.sessions()[0]
    with door.interlock.db.reading() as tx:
        found = spans.list_for_run(tx, session.run_id)
    return [span for span in found if span.key.startswith("model/")]


def cost(door: Door) -> int:
    """Return what the newest session has cost."""
    session = door.sessions()[0]
    with door.interlock.db.reading() as tx:
        return door.interlock.cost_of(tx, session)


@pytest.fixture(scope="module")
def listening() -> Iterator[Provider]:
    """A provider for all tests of a module."""
    with Provider() as running:
        yield running


@pytest.fixture
def provider(listening: Provider) -> Provider:
    """A provider that was asked nothing yet."""
    listening.forget()
    return listening


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, listening: Provider) -> Iterator[Door]:
    """A proxy that listens; each test has a session of its own, the newest."""
    with open_door(tmp_path_factory.mktemp("proxy"), listening) as opened:
        yield opened
