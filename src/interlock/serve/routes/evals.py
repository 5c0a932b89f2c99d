"""REST: results of evaluation suites, reported by who ran them, and the newest of each."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import Field

from interlock.domain.canonical import JsonObject
from interlock.domain.errors import NotFoundError
from interlock.domain.principal import Principal, Role
from interlock.domain.record import object_to_json
from interlock.serve.auth import App, needs
from interlock.serve.routes.runs import Reader
from interlock.serve.strict import Body, StrictRoute
from interlock.store import registry, results
from interlock.store.tx import Tx

router = APIRouter(prefix="/evals", tags=["evals"], route_class=StrictRoute)
Reporter = Annotated[Principal, Depends(needs(Role.OPERATOR, Role.OWNER))]

Version = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class ResultBody(Body):
    """What a suite said of a project; `release` 0 if the project is not the live release.

    `versions` are those of its workflow, as a plan of the project tells them.
    """

    suite: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    suite_digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    release: int = Field(ge=0)
    verdict: Literal["pass", "fail", "error"]
    workflow: str = Field(default="", max_length=64)
    versions: list[Version] = Field(default_factory=list)
    body: JsonObject


@router.post("", status_code=201)
def put_result(app: App, _reporter: Reporter, body: ResultBody) -> JsonObject:
    """Store the result of a suite; results are never changed."""

    def store(tx: Tx) -> JsonObject:
        if body.release:
            registry.get_release(tx, body.release)
        result = results.put_result(
            tx,
            suite=body.suite,
            suite_digest=body.suite_digest,
            release=body.release,
            body=body.body,
            verdict=body.verdict,
            workflow=body.workflow,
            versions=body.versions,
        )
        return {"result_id": result.result_id}

    return app.db.run("eval.result", store)


@router.get("/{suite}")
def show_result(app: App, _reader: Reader, suite: str) -> JsonObject:
    """Show the newest result of a suite."""
    with app.db.reading() as tx:
        found = results.latest_result(tx, suite)
    if found is None:
        raise NotFoundError(f"there is no result of a suite `{suite[:80]}`")
    return object_to_json(found)
