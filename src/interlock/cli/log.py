"""Where log events go: the terminal of a server, or a file that commands leave their faults in."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TextIO

import structlog

FILE = "cli.log"


def log_to_terminal(log_format: Literal["console", "json"]) -> None:
    """Write events to stderr, one a line; tracebacks without the values of variables."""
    if log_format == "json":
        render: list[structlog.typing.Processor] = [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    else:
        # The default would print local variables, which hold content and secrets.
        plain = structlog.dev.plain_traceback
        render = [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        ]
    _configure(render, sys.stderr, level=logging.INFO)


def log_to_file(folder: Path) -> None:
    """Append warnings and errors to `cli.log` in the data folder; the terminal stays clean."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Stays open as long as the process, which is one command.
    stream = (folder / FILE).open("a", encoding="utf-8")
    render: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
    _configure(render, stream, level=logging.WARNING)


def record_fault(folder: Path, error: BaseException) -> Path:
    """Append the traceback of a fault of ours to `cli.log` and return the file's path."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / FILE
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"{datetime.now(UTC).isoformat()}\n")
        stream.writelines(traceback.format_exception(error))
    return file


def _configure(render: list[structlog.typing.Processor], stream: TextIO, *, level: int) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
    # Libraries log as the standard library does: their warnings go the same way.
    logging.basicConfig(stream=stream, level=logging.WARNING, force=True)
