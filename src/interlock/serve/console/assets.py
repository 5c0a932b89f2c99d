"""Static files of the console: checked at start, served under names that carry their hash."""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response

from interlock.domain.errors import InvariantError, NotFoundError

FOLDER: Final = Path(__file__).parent / "static"
PREFIX: Final = "/static"
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOR_A_YEAR: Final = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file: its address (with the hash of its content), bytes and media type."""

    url: str
    data: bytes
    media_type: str


class Assets:
    """All static files, read once; raises `InvariantError` if a vendored one was changed."""

    def __init__(self, folder: Path = FOLDER) -> None:
        check_vendored(folder / "vendor")
        self._by_name = {
            path.relative_to(folder).as_posix(): _asset(path, folder)
            for path in sorted(folder.rglob("*"))
            if path.suffix in _TYPES
        }
        self._by_url = {asset.url: asset for asset in self._by_name.values()}

    def url(self, name: str) -> str:
        """Return the address of a file, as `vendor/htmx.min.js`."""
        return self._by_name[name].url

    def install(self, app: FastAPI) -> None:
        """Serve the files to anyone; an address never changes its content."""
        app.add_route(PREFIX + "/{path:path}", self._serve, include_in_schema=False)

    async def _serve(self, request: Request) -> Response:
        asset = self._by_url.get(request.url.path)
        if asset is None:
            raise NotFoundError("there is no such file")
        headers = {"Cache-Control": _FOR_A_YEAR, "X-Content-Type-Options": "nosniff"}
        return Response(asset.data, media_type=asset.media_type, headers=headers)


def check_vendored(folder: Path) -> None:
    """Raise `InvariantError` unless every vendored file is the one that the manifest lists."""
    listed = tomllib.loads((folder / "manifest.toml").read_text())["file"]
    for file in listed:
        data = (folder / file["name"]).read_bytes()
        if hashlib.sha256(data).hexdigest() != file["sha256"]:
            raise InvariantError(
                f"the vendored file `{file['name']}` is not the one in its manifest"
            )


def _asset(path: Path, folder: Path) -> Asset:
    data = path.read_bytes()
    mark = hashlib.sha256(data).hexdigest()[:12]
    name = path.relative_to(folder).with_suffix(f".{mark}{path.suffix}").as_posix()
    return Asset(url=f"{PREFIX}/{name}", data=data, media_type=_TYPES[path.suffix])
