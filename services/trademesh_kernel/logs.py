"""Structured logs on stderr: one line per event, with the request id and method of the call in hand."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

from trademesh_kernel.context import current_call

# structlog loads rich wherever it is installed, 50 modules, 25 ms and 4 MB of each process, for tracebacks that ours never are: they are text
# before a renderer sees them. None is how Python is told that there is no such module.
_rich = sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # modules alone, as it is typed
import structlog  # noqa: E402  # once rich is out of its way

if _rich is None:
    del sys.modules["rich"]

Logger = structlog.stdlib.BoundLogger


def configure_logs(service: str, *, log_format: str = "auto", level: str = "info") -> None:
    """Sets up logging for the process. `auto` is console on a terminal and JSON elsewhere."""
    as_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _add_call,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # The stderr of the moment: one that is kept may have been closed.
        logger_factory=lambda *_names: structlog.PrintLogger(sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(service=service)


def get_logger(name: str) -> Any:
    """A logger whose lines say which part of the program speaks."""
    return structlog.get_logger().bind(logger=name)


def _add_call(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    scope = current_call.get()
    if scope is not None:
        event.setdefault("request_id", scope.request_id)
        event.setdefault("method", scope.method)
        if scope.run_id:
            event.setdefault("run_id", scope.run_id)
    return event
