"""Sets up logging. `job_id` and `domain` are bound once per job, and are on every line about the job."""

import logging
import sys
from typing import Any, cast

import structlog


def configure(log_format: str, level: str) -> None:
    """`log_format`: auto, json or console; `level`: debug, info, warning or error. Everything goes to stderr."""
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Each request would be a line; the metrics count them.
    logging.getLogger("uvicorn.access").disabled = True
    for chatty in ("uvicorn", "alembic"):
        logging.getLogger(chatty).setLevel("DEBUG" if level == "debug" else "WARNING")


def get(name: str) -> structlog.stdlib.BoundLogger:
    return cast("structlog.stdlib.BoundLogger", structlog.get_logger(name))


def bind(**facts: Any) -> None:
    structlog.contextvars.bind_contextvars(**facts)


def unbind_all() -> None:
    structlog.contextvars.clear_contextvars()
