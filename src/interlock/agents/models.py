"""Models: clients of the configured models, and the wrapper that sends each request on the road."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import httpx2
from openai import AsyncOpenAI, OpenAIError
from pydantic import TypeAdapter
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelConnectionError,
    ModelHTTPError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelServerError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
    UserError,
)
from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, infer_model
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.providers import Provider, infer_provider, infer_provider_class
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider
from pydantic_ai.settings import ModelSettings as RequestSettings

from interlock.agents.turns import Turns, with_unique_ids
from interlock.agents.upstream import OPENAI_URL, REQUEST_TIMEOUT, Upstream, upstream_of, url_of
from interlock.calls.durable import Durable, Retry
from interlock.calls.model import ModelReply, ModelRequest, request_model
from interlock.calls.road import Road
from interlock.config import ModelSettings
from interlock.domain.canonical import Json
from interlock.domain.errors import InputError, InterlockError, ModelBusyError, ModelFailedError
from interlock.domain.principal import Seat
from interlock.domain.tool import Environment
from interlock.tools.egress import open_client

_OPENAI_CHAT = frozenset({"openai-chat", "openai-compatible"})
_BUSY = (
    ModelConnectionError,
    ModelRateLimitError,
    ModelRequestTimeout,
    ModelServerError,
    ModelUnavailableError,
)

_AWAY = frozenset({503, 529})
"""Statuses of a provider that did nothing: it is away, or has too much to do."""


class ModelCatalog:
    """The models of the settings by name, each with one long-lived client, made at first use.

    `resolve` turns a `secret://` reference into its value. A plain-http model on this machine is
    reached only in `environment` `dev`. `retry` is for models that are busy. `built` are models
    that stand in for configured ones of the same name.
    """

    def __init__(
        self,
        models: Mapping[str, ModelSettings],
        *,
        resolve: Callable[[str], str] | None = None,
        environment: Environment = "dev",
        retry: Retry | None = None,
        built: Mapping[str, Model] | None = None,
    ) -> None:
        self.retry = retry or Retry()
        self._settings = models
        self._resolve = resolve
        self._environment = environment
        self._given = dict(built or {})
        self._built: dict[str, tuple[str | None, Model]] = {}
        self._passing: dict[str, httpx2.AsyncClient] = {}
        self._clients: list[httpx2.AsyncClient] = []

    def get(self, name: str) -> Model:
        """Return a model; raises `ModelFailedError` if it is not configured or cannot be built."""
        if name in self._given:
            return self._given[name]
        settings = self._configured(name)
        # The key is resolved each time, so that another one counts at once.
        key = self._key(settings)
        built = self._built.get(name)
        if built is None or built[0] != key:
            built = self._built[name] = (key, self._build(settings, key))
        return built[1]

    def upstream(self, name: str) -> Upstream:
        """Return the way to a model's server; raises `ModelFailedError` if there is none."""
        settings = self._configured(name)
        try:
            if name not in self._passing:
                self._passing[name] = self._connect(url_of(settings))
            return upstream_of(
                settings,
                key=self._key(settings),
                environ=os.environ,
                client=self._passing[name],
            )
        except InputError as error:
            raise ModelFailedError(f"the model `{name}` cannot be used: {error.message}") from error

    def max_output_tokens(self, name: str) -> int | None:
        """Return the most tokens that an answer of a model may have, if the settings say so."""
        settings = self._settings.get(name)
        return None if settings is None else settings.max_output_tokens

    async def aclose(self) -> None:
        """Close the clients that were made here."""
        while self._clients:
            await self._clients.pop().aclose()

    def _configured(self, name: str) -> ModelSettings:
        settings = self._settings.get(name)
        if settings is None:
            known = ", ".join(f"`{known}`" for known in sorted(self._settings)) or "none"
            raise ModelFailedError(
                f"there is no model `{name}` in the settings; configured are: {known}"
            )
        return settings

    def _connect(self, url: str) -> httpx2.AsyncClient:
        client = open_client(url, self._environment)
        self._clients.append(client)
        return client

    def _build(self, settings: ModelSettings, key: str | None) -> Model:
        vendor, _, model_name = settings.provider.partition(":")
        try:
            if vendor in _OPENAI_CHAT:
                return OpenAIChatModel(model_name, provider=self._openai(settings, key))
            return infer_model(settings.provider, lambda name: _provider(name, settings, key))
        except (InputError, OpenAIError, UserError, ValueError, TypeError, ImportError) as error:
            raise ModelFailedError(
                f"the model `{settings.name}` cannot be used: {_first_line(error)}"
            ) from error

    def _key(self, settings: ModelSettings) -> str | None:
        if settings.api_key is None:
            return None
        if self._resolve is None:
            raise ModelFailedError(f"no secrets are available for the model `{settings.name}`")
        return self._resolve(settings.api_key)

    def _openai(self, settings: ModelSettings, key: str | None) -> Provider[AsyncOpenAI]:
        address = settings.base_url or OPENAI_URL
        client = AsyncOpenAI(
            base_url=address,
            # A local server wants none, but the client insists on one.
            api_key=key or ("none" if settings.base_url else None),
            http_client=self._connect(address),
            timeout=REQUEST_TIMEOUT,
            max_retries=0,
        )
        if settings.base_url is None:
            return OpenAIProvider(openai_client=client)
        return OpenAICompatibleProvider(settings.name, openai_client=client)


class GovernedModel(WrapperModel):
    """Sends each request of one agent on the road: decided, priced, recorded, replayed.

    `name` is the model's name in the settings. A busy model is asked again inside the same step.
    """

    def __init__(
        self,
        wrapped: Model,
        *,
        road: Road,
        durable: Durable,
        name: str,
        seats: tuple[Seat, ...],
        turns: Turns,
        parent_span: str,
        retry: Retry,
        max_output_tokens: int | None,
    ) -> None:
        super().__init__(wrapped)
        self._max_output_tokens = max_output_tokens
        self._road = road
        self._durable = durable
        self._name = name
        self._seats = seats
        self._turns = turns
        self._parent_span = parent_span
        self._retry = retry

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: RequestSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Return the recorded response of this turn, or ask the model and record it."""
        most = self._max_output_tokens
        if most is not None:
            model_settings = {**(model_settings or {}), "max_tokens": most}

        async def ask() -> ModelResponse:
            return await self.wrapped.request(messages, model_settings, model_request_parameters)

        async def send() -> ModelReply:
            response = with_unique_ids(await _asked(ask))
            return _reply(response, default_model=self.wrapped.model_name)

        request = ModelRequest(
            name=self._turns.begin(),
            model=self._name,
            provider=self.wrapped.system,
            seats=self._seats,
            parent_span=self._parent_span,
            input_tokens=_most_input(messages, model_request_parameters),
            output_tokens=most,
            retry=self._retry,
        )
        recorded = await request_model(self._road, self._durable, request, send)
        response = ModelMessagesTypeAdapter.validate_python([recorded])[0]
        # INVARIANT: only `_reply` writes what is recorded under this name.
        assert isinstance(response, ModelResponse)
        self._turns.received(response)
        return response


async def _asked(ask: Callable[[], Awaitable[ModelResponse]]) -> ModelResponse:
    """Ask once; the framework's errors become ours, which say whether asking again may help."""
    try:
        return await ask()
    except InterlockError:
        raise
    except _BUSY as error:
        said = f"the model did not answer: {_first_line(error)}"
        raise ModelBusyError(said, is_unpaid=_is_unpaid(error)) from error
    except ModelHTTPError as error:
        said = f"the model answered with status {error.status_code}"
        raise ModelFailedError(said, is_unpaid=_is_unpaid(error)) from error
    except (ModelAPIError, UnexpectedModelBehavior, UserError, httpx2.InvalidURL) as error:
        raise ModelFailedError(f"the model request failed: {_first_line(error)}") from error
    except (httpx2.TransportError, OSError) as error:
        raise ModelBusyError(f"the model did not answer: {_first_line(error)}") from error


def _is_unpaid(error: Exception) -> bool:
    """Return whether a request surely costs nothing: it was turned away, or never sent."""
    if isinstance(error, ModelConnectionError):
        return error.phase in {"pool", "connect"}
    if isinstance(error, ModelHTTPError):
        return error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR or error.status_code in _AWAY
    return isinstance(error, ModelRateLimitError | ModelUnavailableError)


def _most_input(messages: list[ModelMessage], parameters: ModelRequestParameters) -> int:
    """Return the most tokens that a request can have: one for each byte of all that is sent."""
    shown = TypeAdapter(ModelRequestParameters).dump_json(parameters)
    return len(ModelMessagesTypeAdapter.dump_json(messages)) + len(shown)


def _reply(response: ModelResponse, *, default_model: str) -> ModelReply:
    body: list[Json] = ModelMessagesTypeAdapter.dump_python([response], mode="json")
    return ModelReply(
        body=body[0],
        model=response.model_name or default_model,
        input_tokens=response.usage.input_tokens,
        output_tokens=response.usage.output_tokens,
    )


def _provider(name: str, settings: ModelSettings, key: str | None) -> Provider[Any]:
    given = {"api_key": key, "base_url": settings.base_url}
    arguments = {key: value for key, value in given.items() if value is not None}
    if not arguments:
        return infer_provider(name)
    return infer_provider_class(name)(**arguments)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:300]
