"""A run as one HTML page that loads nothing: curves, drawdown, months, exposure, trades, accuracy of agents. Figures are the ledger's; the
same journal gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh_cli.report_data import DESK, ReportData, drawdowns, monthly_returns
from trademesh_cli.svg_chart import Line, line_chart
from trademesh_ledger.metrics import SHORT_SAMPLE
from trademesh_ledger.scores import HitCount, InformationCoefficient, information_coefficient, wilson_interval

SHOWN_TRADES = 200
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_NONE = "–"  # noqa: RUF001  # the dash of tables
_FIGURES = (
    ("total_return", "Total return", "percent"),
    ("cagr", "Growth a year (CAGR)", "percent"),
    ("annualised_volatility", "Volatility a year", "percent"),
    ("sharpe", "Sharpe ratio", "number"),
    ("sortino", "Sortino ratio", "number"),
    ("max_drawdown", "Deepest drawdown", "percent"),
    ("max_drawdown_sessions", "Longest drawdown, sessions", "count"),
    ("calmar", "Calmar ratio", "number"),
    ("hit_rate", "Closing trades that gained", "percent"),
    ("profit_factor", "Profit factor", "number"),
    ("turnover", "Turnover a year", "number"),
    ("mean_gross_exposure", "Mean gross exposure", "percent"),
    ("mean_net_exposure", "Mean net exposure", "percent"),
    ("share_invested", "Sessions invested", "percent"),
)
_STYLE = """
:root{--ink:#1b1f24;--soft:#667080;--rule:#d9dee5;--paper:#fff;--c0:#0b62c4;--c1:#b4540a;--c2:#6b3fa0;--c3:#3b7a3b;--good:#1f7a3d;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ink:#e7eaee;--soft:#9aa4b2;--rule:#343b45;--paper:#14171b;--c0:#6cb2ff;--c1:#f0a35e;--c2:#c3a1f0;
--c3:#86c986;--good:#6fce8c;--bad:#ff8a80}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1000px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2.2rem 0 .6rem}p{margin:.3rem 0}.soft{color:var(--soft)}code{overflow-wrap:anywhere}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;width:100%}
th,td{padding:.2rem .5rem;border-bottom:1px solid var(--rule);text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}
th{font-weight:600;color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
svg{width:100%;height:auto;display:block}svg text{font-size:11px;fill:var(--soft)}.grid{stroke:var(--rule)}
.line{fill:none;stroke-width:1.4;stroke:var(--c3)}.line-0{stroke:var(--c0)}.line-1{stroke:var(--c1)}.line-2{stroke:var(--c2)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:1rem;padding:0;margin:.3rem 0}
.key{display:inline-block;width:1rem;height:.2rem;margin-right:.4rem;vertical-align:middle;background:var(--c3)}
.key-0{background:var(--c0)}.key-1{background:var(--c1)}.key-2{background:var(--c2)}
"""


def report_page(data: ReportData) -> str:
    """The page."""
    parts = [
        _head(data),
        _section("Net asset value", _equity(data)),
        _section("Figures", _figures(data)),
        _section("Drawdown", _drawdown(data)),
        _section("Returns by month", _months(data)),
        _section("Exposure", _exposure(data)),
        _section("Accuracy of agents", _agents(data)),
        _section("Trades", _trades(data)),
    ]
    title = escape(f"Run {data.run_id}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{content}</section>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells of rows are HTML; those of the head are text."""
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{names}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _head(data: ReportData) -> str:
    sessions, started = data.history.sessions, data.started
    span = f"{sessions[0]} to {sessions[-1]}, {len(sessions):,} sessions" if sessions else "no session is settled yet"
    lines = [
        f"<h1>Run {escape(data.run_id)}</h1>",
        f'<p class="soft">{escape(span)}; {len(started.tickers)} tickers; as of event {data.as_of_sequence:,}</p>',
        f'<p class="soft">configuration <code>{escape(started.config_sha256)}</code><br>data <code>{escape(started.data_sha256)}</code></p>',
    ]
    if data.compacted_through:
        lines.append(f"<p>Events up to {data.compacted_through:,} were compacted: trades and accuracy before them cannot be told.</p>")
    return "\n".join(lines)


def _equity(data: ReportData) -> str:
    lines = [Line(_name(name), [value / 1e6 for value in curve]) for name, curve in data.curves().items()]
    return line_chart("Net asset value of the desk and its baselines, in dollars", _dates(data), lines, _short_dollars, log=True)


def _dates(data: ReportData) -> list[str]:
    """Dates of a curve, which begins before the first session."""
    return data.history.sessions[:1] + data.history.sessions


def _name(name: str) -> str:
    return name.removeprefix("index:") if name.startswith("index:") else name.replace("_", " ")


def _figures(data: ReportData) -> str:
    desk, baselines = data.figures(), data.figures_of_baselines()
    rows = list[list[str]]()
    for name, title, kind in _FIGURES:
        reason = desk.undefined.get(name, "")
        own = _shown(desk.values.get(name), kind)
        row = [escape(title), f'<span title="{escape(reason)}">{own}</span>' if reason else own]
        row += [_shown(getattr(one, name, None), kind) for one in baselines.values()]
        rows.append(row)
    notes = [f"{escape(title)}: {escape(desk.undefined[name])}." for name, title, _ in _FIGURES if name in desk.undefined]
    if SHORT_SAMPLE in desk.flags:
        notes.append("Fewer than 63 sessions: what is told for a year says little.")
    table = _table(["", "Desk", *(_name(name) for name in baselines)], rows)
    return table + "".join(f'<p class="soft">{note}</p>' for note in notes)


def _shown(value: float | None, kind: str) -> str:
    if value is None:
        return _NONE
    return {"percent": f"{value:.2%}", "number": f"{value:,.2f}", "count": f"{value:,.0f}"}[kind]


def _drawdown(data: ReportData) -> str:
    lines = [Line(_name(name), drawdowns(curve)) for name, curve in data.curves().items()]
    return line_chart("How far the desk and its baselines were below their peak", _dates(data), lines, lambda value: f"{value:.0%}")


def _months(data: ReportData) -> str:
    found = monthly_returns(data.history.sessions, data.curves()[DESK])
    years = sorted({key[:4] for key in found})
    rows = [[year, *(_coloured(found.get(f"{year}-{month:02d}")) for month in range(1, 13)), _coloured(found.get(year))] for year in years]
    return _table(["", *_MONTHS, "Year"], rows) if rows else "<p>No session is settled yet.</p>"


def _coloured(value: float | None) -> str:
    if value is None:
        return ""
    return f'<span class="{"good" if value > 0 else "bad" if value < 0 else "soft"}">{value:.1%}</span>'


def _exposure(data: ReportData) -> str:
    history = data.history
    lines = [
        Line(name, [amount / nav if nav > 0 else float("nan") for amount, nav in zip(amounts, history.navs_micros, strict=True)])
        for name, amounts in (("gross", history.gross_micros), ("net", history.net_micros))
    ]
    title = "Gross and net positions over net asset value"
    return line_chart(title, history.sessions, lines, lambda value: f"{value:.0%}", from_zero=True)


def _agents(data: ReportData) -> str:
    if not data.board.whole:
        return "<p>Predictions were compacted away.</p>"
    rows = list[list[str]]()
    for agent_id, rank, record in data.board.ranking():
        coefficient, brier = information_coefficient(record.coefficients), record.brier.mean
        rows.append(
            [
                escape(agent_id),
                _NONE if rank is None else str(rank),
                *(_rate(count) for count in (record.all, record.bull, record.bear)),
                _coefficient(coefficient),
                _NONE if coefficient.t is None else f"{coefficient.t:.1f}",
                _NONE if brier is None else f"{brier:.4f}",
            ]
        )
    note = (
        '<p class="soft">Right predictions of those with a known outcome, their number, and the 95 % interval of the rate (Wilson). '
        "IC: mean correlation of scores with returns, and its interval; t: mean over its error. Brier: 0.25 is a coin.</p>"
    )
    return _table(["Agent", "Rank", "All", "Bull", "Bear", "IC", "t", "Brier"], rows) + note


def _rate(count: HitCount) -> str:
    interval = wilson_interval(count.wins, count.known)
    if count.rate is None or interval is None:
        return _NONE
    return f"{count.rate:.1%} of {count.known:,} ({interval.low:.1%} to {interval.high:.1%})"


def _coefficient(found: InformationCoefficient) -> str:
    if found.mean is None:
        return _NONE
    return f"{found.mean:.4f}" + (f" ({found.interval.low:.4f} to {found.interval.high:.4f})" if found.interval else "")


def _trades(data: ReportData) -> str:
    fills = [trade.fill for trade in data.trades]
    fees, realised = sum(fill.fee_micros for fill in fills), sum(fill.realised_micros for fill in fills)
    told = f"{len(fills):,} fills, fees {_dollars(fees)}, realised {_dollars(realised)} before fees."
    if len(fills) > SHOWN_TRADES:
        told += f" The newest {SHOWN_TRADES} are shown; `--format csv` or `parquet` gives all."
    rows = (
        [
            trade.session_date,
            escape(trade.fill.ticker),
            words.Side.Name(trade.fill.side).removeprefix("SIDE_"),
            f"{trade.fill.quantity:,}",
            _dollars(trade.fill.price_micros),
            _dollars(trade.fill.fee_micros),
            _dollars(trade.fill.realised_micros),
            f"{trade.fill.position_quantity:,}",
        ]
        for trade in reversed(data.trades[-SHOWN_TRADES:])
    )
    head = ["Session", "Ticker", "Side", "Shares", "Price", "Fee", "Realised", "Position"]
    return f"<p>{escape(told)}</p>" + (_table(head, rows) if fills else "")


def _dollars(micros: int) -> str:
    return f"{micros / 1e6:,.2f} $"


def _short_dollars(value: float) -> str:
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:,.4g}{name} $"
    return f"{value:,.2f} $"
