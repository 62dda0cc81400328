"""Files for dashboards: `state/server_state.json` and `team_dashboard/*.json`. Views on the state, never a second truth.

Keys of the dashboard files are those of the system that this one implements: dollars as numbers, percentages as 4.0 for 4 %, times in
milliseconds. A pure function makes them, so that `run verify` can make them again and compare. Beyond those keys, signals tell their
`real_return`, and `baseline_vw_reason` why that curve is empty.
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
from trademesh_ledger.baselines import SHARES_NOT_KNOWN
from trademesh_runs.layout import RunLayout
from trademesh_runs.leaderboard_export import leaderboard, team_stats
from trademesh_runs.scoreboard import Scoreboard

NEW_YORK = ZoneInfo("America/New_York")
_CLOSE = time(16, 0)


def export_files(layout: RunLayout, state: ServerState, board: Scoreboard, *, dashboard: bool = True) -> dict[str, bytes]:
    """File contents by path below the run's folder. `board` is of the state's sequence; one that is not whole, since events were compacted,
    can tell neither leaderboard nor stats."""
    files = {"state/server_state.json": server_state(state)}
    if dashboard:
        summary = _summary(state)
        contents: dict[str, Any] = {"summary": summary, "holdings": _holdings(state), "trades": _trades(state)}
        if board.whole:
            account = {key: summary[key] for key in ("totalAssetValue", "totalReturn", "cashPosition", "tickerWeights", "totalTrades")}
            contents |= {"stats": account | team_stats(board), "leaderboard": leaderboard(board)}
        for name, content in contents.items():
            files[f"team_dashboard/{name}.json"] = json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n"
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
    times = [_milliseconds(point.session_date) for point in state.equity]
    if times:
        times.insert(0, _milliseconds((date.fromisoformat(state.equity[0].session_date) - timedelta(days=1)).isoformat()))
    curves = {"equity": _curve(times, [initial, *(point.nav_micros for point in state.equity)])}
    for name, baseline in (("baseline", "equal_weight"), ("baseline_vw", "market_cap_weighted"), ("momentum", "momentum")):
        values = [one.nav_micros for point in state.equity for one in point.baselines if one.name == baseline]
        # Curves are drawn by index: one that is not of every session, as in journals of earlier versions, is none.
        curves[name] = _curve(times, [initial, *values]) if len(values) == len(state.equity) else []
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
        "baseline_vw_reason": _reason(state, "market_cap_weighted") if curves["baseline_vw"] else SHARES_NOT_KNOWN,
    }


def _reason(state: ServerState, baseline: str) -> str:
    """What a baseline lacks, as the first session tells it."""
    return next((one.note for one in state.equity[0].baselines if one.name == baseline), "")


def _curve(times: list[int], values_micros: list[int]) -> list[dict[str, Any]]:
    return [{"t": at, "v": _dollars(value)} for at, value in zip(times, values_micros, strict=False)]


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
