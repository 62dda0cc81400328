"""What commands tell of a run that has ended."""

from __future__ import annotations

from typing import Any

from trademesh.runtime.v1 import runtime_pb2

TERMINAL = (runtime_pb2.RUN_STATE_STOPPED, runtime_pb2.RUN_STATE_SUCCEEDED, runtime_pb2.RUN_STATE_FAILED)


def summary_record(summary: runtime_pb2.RunSummary) -> dict[str, Any]:
    """A summary as JSON types; whole numbers stay numbers, and an undefined figure is null."""
    return {
        "run_id": summary.run_id,
        "sessions": summary.sessions,
        "final_nav_micros": summary.final_nav_micros,
        "total_return": summary.total_return,
        "sharpe": summary.sharpe if summary.HasField("sharpe") else None,
        "max_drawdown": summary.max_drawdown if summary.HasField("max_drawdown") else None,
        "trades": summary.trades,
        "events": summary.events,
        "journal_sha256": summary.journal_sha256,
    }
