"""Journals of desks that trade at random and keep exact accounts: what a fold must take, whatever happens in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import strategies as st

from trademesh.common.v1 import vocabulary_pb2 as words
from trademesh.gateway.v1 import event_pb2 as events
from trademesh_ledger.portfolio import Portfolio
from trademesh_runs.fold import portfolio_message
from trademesh_runs.journal import Draft, JournalStore, StoredEvent

CASH_MICROS = 1_000_000_000_000
TICKERS = ("AAPL", "KO", "XOM")


@dataclass(frozen=True)
class Session:
    """What happens in one session."""

    fills: list[tuple[int, int, int]] = field(default_factory=list)
    """Ticker's place, signed shares, dollars."""
    signals: int = 1
    paused: bool = False
    pace: int = 0
    checkpoint: bool = False


SESSION = st.builds(
    Session,
    fills=st.lists(st.tuples(st.integers(0, 2), st.integers(-50, 50).filter(bool), st.integers(1, 200)), max_size=6),
    signals=st.integers(0, 4),
    paused=st.booleans(),
    pace=st.integers(0, 3),
    checkpoint=st.booleans(),
)
SESSIONS = st.lists(SESSION, min_size=1, max_size=12)


def filled(account: Portfolio, order_id: str, ticker: str, delta: int, price_micros: int, fee_micros: int) -> events.OrderFilled:
    """Fills an order, and tells it."""
    effect = account.apply_fill(ticker, delta, price_micros, fee_micros)
    return events.OrderFilled(
        order_id=order_id,
        ticker=ticker,
        side=words.SIDE_LONG if delta > 0 else words.SIDE_SHORT,
        quantity=abs(delta),
        price_micros=price_micros,
        fee_micros=fee_micros,
        realised_micros=effect.realised_micros,
        legs=[events.Leg(kind=events.LegKind.ValueType(leg.kind.value), quantity=leg.quantity) for leg in effect.legs],
        position_quantity=account.quantity(ticker),
        cash_micros=account.cash_micros,
    )


def drafts_of(sessions: Sequence[Session], *, settle_last: bool = True) -> list[Draft]:
    """The events of a run; the last session may break off before its settlement."""
    drafts = [
        Draft("gateway_started", events.GatewayStarted(version="1"), item="1"),
        Draft("run_started", events.RunStarted(initial_cash_micros=CASH_MICROS, tickers=TICKERS, sessions=len(sessions))),
    ]
    portfolio, marks, peak, fills = Portfolio(CASH_MICROS), dict[str, int](), CASH_MICROS, 0
    for number, session in enumerate(sessions, 1):
        date = f"{2000 + number // 336}-{number // 28 % 12 + 1:02d}-{number % 28 + 1:02d}"
        drafts.append(Draft("session_opened", events.SessionOpened(session_number=number), date, 1))
        drafts += [Draft("signals", events.Signals(), date, 2, f"analyst-{place}") for place in range(session.signals)]
        if session.paused:
            paused = events.PipelineStateChanged(state=events.PIPELINE_STATE_PAUSED, reason=f"session {number}")
            drafts.append(Draft("pipeline_state_changed", paused, item=str(number)))
        if session.pace:
            drafts.append(Draft("pace_changed", events.PaceChanged(sessions_per_s=session.pace), item=str(number)))
        for place, (ticker_place, delta, dollars) in enumerate(session.fills):
            ticker, price = TICKERS[ticker_place], dollars * 1_000_000
            order = filled(portfolio, f"{date}/{place}", ticker, delta, price, 1_000)
            fills += 1
            marks[ticker] = price
            drafts.append(Draft("order_filled", order, date, 8, item=str(place)))
        if number == len(sessions) and not settle_last:
            return drafts
        held = {ticker: marks[ticker] for ticker in portfolio.positions}
        nav = portfolio.net_asset_value(held)
        peak = max(peak, nav)
        baselines = [events.Baseline(name="equal_weight", nav_micros=CASH_MICROS + number)]
        account = portfolio_message(portfolio, held)
        settled = events.Settled(session_number=number, nav_micros=nav, portfolio=account, baselines=baselines)
        drafts.append(Draft("settled", settled, date, 9))
        if session.checkpoint:
            checkpoint = events.StateCheckpoint(
                portfolio=account, sessions_settled=number, fills=fills, peak_nav_micros=peak, baselines=baselines
            )
            drafts.append(Draft("state_checkpoint", checkpoint, item=str(number)))
    return drafts


async def write(
    store: JournalStore, drafts: Sequence[Draft], generation: int = 1, flush_every: int = 10_000, run_id: str = "demo"
) -> list[StoredEvent]:
    """Writes events, flushing now and then; returns what was published."""
    published = list[StoredEvent]()
    writer = store.writer(run_id, generation, published.extend)
    for place, draft in enumerate(drafts):
        writer.append(draft)
        if place % flush_every == 0:
            await writer.flush()
    await writer.close()
    return published
