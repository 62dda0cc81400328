"""Files for dashboards: `state/server_state.json` and `team_dashboard/*.json`. Views on the state, never a second truth.

Keys of the dashboard files are those of the system that this one implements: dollars as numbers, percentages as 4.0 for 4 %, times in
milliseconds. A pure function makes them, so that `run verify` can make them again and compare. Beyond those keys, signals tell their
`real_return`, and `baseline_vw_reason` why that curve is empty.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from google.protobuf import json_format

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1.state_pb2 import ServerState
from trademesh_ledger.baselines import SHARES_NOT_KNOWN
from trademesh_runs.curve_texts import CurveTexts, close_milliseconds, dollars
from trademesh_runs.layout import RunLayout
from trademesh_runs.leaderboard_export import leaderboard, team_stats
from trademesh_runs.scoreboard import Scoreboard

_CURVE = ServerState.EQUITY_FIELD_NUMBER


def export_files(
    layout: RunLayout, state: ServerState, board: Scoreboard, *, dashboard: bool = True, curve: CurveTexts | None = None
) -> dict[str, bytes]:
    """File contents by path below the run's folder. `board` is of the state's sequence; one that is not whole, since events were compacted,
    can tell neither leaderboard nor stats. With `curve`, that of the state's sequence, the state's own is not looked at."""
    if curve is None:
        curve = CurveTexts().follow(state.equity)
    files = {"state/server_state.json": server_state(state, curve)}
    if dashboard:
        account = _account(state)
        files["team_dashboard/summary.json"] = _summary(state, account, curve)
        contents: dict[str, Any] = {"holdings": _holdings(state), "trades": _trades(state)}
        if board.whole:
            contents |= {"stats": account | team_stats(board), "leaderboard": leaderboard(board)}
        for name, content in contents.items():
            files[f"team_dashboard/{name}.json"] = _compact(content) + b"\n"
    return files


def server_state(state: ServerState, curve: CurveTexts | None = None) -> bytes:
    """The state as protobuf JSON; `curve` as for `export_files`."""
    if curve is None:
        curve = CurveTexts().follow(state.equity)
    rest = ServerState()
    rest.CopyFrom(state)
    rest.ClearField("equity")
    before, after = list[tuple[bytes]](), list[tuple[bytes]]()
    for name, value in json_format.MessageToDict(rest, preserving_proto_field_name=True).items():
        member = (json.dumps({name: value})[1:-1].encode(),)
        (before if ServerState.DESCRIPTOR.fields_by_name[name].number < _CURVE else after).append(member)
    told = ((b'"equity": [', curve.points, b"]"),) if curve.count else ()
    # The curve is copied once, whatever stands around it: it is all that is large.
    pieces = [piece for member in (*before, *told, *after) for piece in (b", ", *member)]
    return b"".join((b"{", *pieces[1:], b"}\n"))


def _compact(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


def _account(state: ServerState) -> dict[str, Any]:
    """What summary and stats tell alike."""
    initial = state.portfolio.initial_cash_micros
    return {
        "totalAssetValue": dollars(state.nav_micros),
        "totalReturn": 100 * (state.nav_micros / initial - 1) if initial else 0.0,
        "cashPosition": dollars(state.portfolio.cash_micros),
        "tickerWeights": {
            position.ticker: position.quantity * position.mark_micros / state.nav_micros
            for position in state.portfolio.positions
            if state.nav_micros
        },
        "totalTrades": state.fills,
    }


def _summary(state: ServerState, account: dict[str, Any], curve: CurveTexts) -> bytes:
    head = account | {"pnlPct": account["totalReturn"], "balance": account["totalAssetValue"]}
    pieces = list[bytes | bytearray]([_compact(head)[:-1]])
    for key, line in curve.chart(state.portfolio.initial_cash_micros).items():
        pieces += (b',"%b":' % key.encode(), *line)
    reason = curve.first_note("market_cap_weighted") if curve.has_line("baseline_vw") else SHARES_NOT_KNOWN
    pieces += (b',"baseline_vw_reason":', _compact(reason), b"}\n")
    return b"".join(pieces)


def _holdings(state: ServerState) -> list[dict[str, Any]]:
    nav = state.nav_micros or 1
    rows = [
        {
            "ticker": position.ticker,
            "quantity": position.quantity,
            "currentPrice": dollars(position.mark_micros),
            "marketValue": dollars(position.quantity * position.mark_micros),
            "weight": abs(position.quantity * position.mark_micros / nav),
        }
        for position in state.portfolio.positions
    ]
    cash = dollars(state.portfolio.cash_micros)
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
                "timestamp": close_milliseconds(session),
                "trading_date": session,
                "side": words.Side.Name(fill.side).removeprefix("SIDE_"),
                "ticker": ticker,
                "qty": fill.quantity,
                "price": dollars(fill.price_micros),
            }
        )
        of_day[session, ticker] += 1
    return rows[::-1]
