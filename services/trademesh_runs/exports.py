"""Files for dashboards: `state/server_state.json` and `team_dashboard/*.json`. Views on the state, never a second truth.

Keys of the dashboard files are those of the system that this one implements: dollars as numbers, percentages as 4.0 for 4 %, times in
milliseconds. A pure function makes them, so that `run verify` can make them again and compare.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from google.protobuf import json_format

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_runs.layout import RunLayout

NEW_YORK = ZoneInfo("America/New_York")
_CLOSE = time(16, 0)


def export_files(layout: RunLayout, state: ServerState, *, dashboard: bool = True) -> dict[str, bytes]:
    """File contents by path below the run's folder."""
    files = {"state/server_state.json": server_state(state)}
    if dashboard:
        summary = _summary(state)
        for name, content in (
            ("summary", summary),
            ("holdings", _holdings(state)),
            ("stats", {key: summary[key] for key in ("totalAssetValue", "totalReturn", "cashPosition", "tickerWeights", "totalTrades")}),
            ("trades", _trades(state)),
        ):
            files[f"team_dashboard/{name}.json"] = json.dumps(content, separators=(",", ":")).encode() + b"\n"
    return files


def server_state(state: ServerState) -> bytes:
    """The state as protobuf JSON."""
    return json_format.MessageToJson(state, indent=None, preserving_proto_field_name=True).encode() + b"\n"


def _dollars(micros: int) -> float:
    return micros / 1_000_000


def _milliseconds(session: str) -> int:
    return round(datetime.combine(date.fromisoformat(session), _CLOSE, NEW_YORK).timestamp() * 1000)


def _summary(state: ServerState) -> dict[str, Any]:
    initial = state.portfolio.initial_cash_micros
    total_return = 100 * (state.nav_micros / initial - 1) if initial else 0.0
    curves: dict[str, list[dict[str, Any]]] = {"equity": [], "baseline": [], "baseline_vw": [], "momentum": []}
    if state.equity:
        before = _milliseconds((date.fromisoformat(state.equity[0].session_date) - timedelta(days=1)).isoformat())
        for name in ("equity", "baseline"):
            curves[name].append({"t": before, "v": _dollars(initial)})
    for point in state.equity:
        at = _milliseconds(point.session_date)
        curves["equity"].append({"t": at, "v": _dollars(point.nav_micros)})
        equal = next((one.nav_micros for one in point.baselines if one.name == "equal_weight"), initial)
        curves["baseline"].append({"t": at, "v": _dollars(equal)})
    return {
        "totalAssetValue": _dollars(state.nav_micros),
        "totalReturn": total_return,
        "cashPosition": _dollars(state.portfolio.cash_micros),
        "tickerWeights": {
            position.ticker: position.quantity * position.mark_micros / state.nav_micros
            for position in state.portfolio.positions
            if state.nav_micros
        },
        "totalTrades": state.fills,
        "pnlPct": total_return,
        "balance": _dollars(state.nav_micros),
        **curves,
    }


def _holdings(state: ServerState) -> list[dict[str, Any]]:
    nav = state.nav_micros or 1
    rows = [
        {
            "ticker": position.ticker,
            "quantity": position.quantity,
            "currentPrice": _dollars(position.mark_micros),
            "marketValue": _dollars(position.quantity * position.mark_micros),
            "weight": abs(position.quantity * position.mark_micros / nav),
        }
        for position in state.portfolio.positions
    ]
    cash = _dollars(state.portfolio.cash_micros)
    rows.append(
        {"ticker": "CASH", "quantity": 1, "currentPrice": cash, "marketValue": cash, "weight": abs(state.portfolio.cash_micros / nav)}
    )
    return sorted(rows, key=lambda row: -row["weight"])


def _trades(state: ServerState) -> list[dict[str, Any]]:
    rows, of_day = list[dict[str, Any]](), Counter[tuple[str, str]]()
    for fill in reversed(state.recent_fills):
        session, ticker = fill.session_date, fill.ticker
        rows.append(
            {
                "id": f"t_{session.replace('-', '')}_{ticker}_{of_day[session, ticker]}",
                "timestamp": _milliseconds(session),
                "trading_date": session,
                "side": words.Side.Name(fill.side).removeprefix("SIDE_"),
                "ticker": ticker,
                "qty": fill.quantity,
                "price": _dollars(fill.price_micros),
            }
        )
        of_day[session, ticker] += 1
    return rows[::-1]
