"""The program that runs untrusted functions: confines itself, then takes one request as JSON.

It runs by its path, as `walls.py` does. Its first line says `{"ready": true}` or why not; only then
does it read code, so that a machine without walls never holds any. Its second line is the answer.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from types import ModuleType, SimpleNamespace

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100,PTH120  # start cost

import walls  # type: ignore[import-not-found]  # beside this file, by its path

MESSAGE_LENGTH = 200


def main() -> None:
    """Say whether the walls stand, then answer the request on the standard input."""
    answers = os.dup(1)
    # What code prints is no answer.
    os.dup2(2, 1)
    # Our own module is loaded while its file can still be read.
    signatures = importlib.import_module("signatures") if "describe" in sys.argv else None
    try:
        walls.confine(int(sys.argv[1]))
    except (OSError, AttributeError) as error:
        _say(answers, {"refused": str(error)})
        return
    sys.path.pop(0)
    # Code may have modules of these names.
    for name in ("signatures", "walls"):
        sys.modules.pop(name, None)
    _say(answers, {"ready": True})
    with open(0, "rb") as source:
        request = json.load(source)
    _write_code(request["code"])
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  # start cost
    try:
        result = _described(request, signatures) if signatures else _call(request)
        line = json.dumps({"result": result}, allow_nan=False)
    except BaseException as error:  # noqa: BLE001  # whatever code raises is its answer
        text = f"{type(error).__name__}: {error}"
        line = json.dumps({"raised": text[:MESSAGE_LENGTH]})
    _write(answers, line)
    # Threads that code left behind are not waited for.
    os._exit(0)


def _call(request: dict[str, object]) -> object:
    module, _, name = str(request["function"]).rpartition(".")
    function = getattr(importlib.import_module(module), name)
    first: list[object] = []
    if _takes_context(function):
        first = [SimpleNamespace(**request["context"])]  # type: ignore[arg-type]
    return function(*first, **request["arguments"])  # type: ignore[arg-type]


def _described(request: dict[str, object], signatures: ModuleType) -> object:
    names: list[str] = request["modules"]  # type: ignore[assignment]
    return [one for name in names for one in signatures.of_module(importlib.import_module(name))]


def _takes_context(function: object) -> bool:
    code = getattr(function, "__code__", None)
    return code is not None and code.co_argcount > 0 and code.co_varnames[0] == "context"


def _write_code(code: dict[str, str]) -> None:
    for path, text in code.items():
        folder = os.path.dirname(path)  # noqa: PTH120  # start cost
        if folder:
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103  # start cost
        with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123  # start cost
            file.write(text)


def _say(answers: int, line: object) -> None:
    _write(answers, json.dumps(line))


def _write(answers: int, line: str) -> None:
    left = line.encode() + b"\n"
    while left:
        left = left[os.write(answers, left) :]


if __name__ == "__main__":
    main()
