"""Where log events go: the terminal of a server, or a file that commands leave their faults in."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import structlog
from structlog.typing import Processor

FILE = "cli.log"
_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
_JSON: tuple[Processor, ...] = (
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(),
)


def log_to_terminal(log_format: Literal["console", "json"]) -> None:
    """Write events to stderr, one a line; tracebacks without the values of variables."""
    # The default would print local variables, which hold content and secrets.
    plain = structlog.dev.plain_traceback
    console = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=plain, pad_event_to=0
    )
    render = _JSON if log_format == "json" else (console,)
    _configure(logging.StreamHandler(sys.stderr), render, level=logging.INFO)


@contextmanager
def log_to_file(folder: Path) -> Iterator[None]:
    """Append warnings and errors to `cli.log` in the data folder; the terminal stays clean.

    Without an event there is no file.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    handler = logging.FileHandler(folder / FILE, delay=True, encoding="utf-8")
    _configure(handler, _JSON, level=logging.WARNING)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
        structlog.reset_defaults()


def record_fault(folder: Path, error: BaseException) -> Path:
    """Append the traceback of a fault of ours to `cli.log` and return the file's path."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / FILE
    with file.open("a", encoding="utf-8") as stream:
        stream.write(f"{datetime.now(UTC).isoformat()}\n")
        stream.writelines(traceback.format_exception(error))
    return file


def _configure(handler: logging.Handler, render: tuple[Processor, ...], *, level: int) -> None:
    """Send our events and the warnings of libraries through one handler."""
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
            foreign_pre_chain=_SHARED,
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    logging.getLogger("interlock").setLevel(level)
    logging.getLogger().addHandler(handler)
