"""Any market, any orders, any policy: the desk does not fail, the ledger proves what it journals, and a gateway that begins again goes on alike."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from journaled_desk import Desk, config_of
from made_up_bars import DOLLAR, Prices, Stage, stage
from trademesh.runtime.v1 import run_config_pb2 as contract
from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.pipeline.cycle import OpenSession
from trademesh_ledger.corporate_actions import CorporateAction, Delisting, Dividend, Split
from trademesh_runs.fold import fold_journal, replay_journal
from trademesh_runs.scoreboard import Scoreboard

ROWS, TICKERS = 6, ("AAA", "BBB")
HISTORY = 64
"""Sessions before the run's first; the slowest reading that is on by default needs 61."""
LIMITS: Mapping[str, Sequence[float]] = {
    "position": (0, 0.004, 1, 100),
    "gross": (0, 0.004, 0.5, 100),
    "net": (0, 0.1, 100),
    "drawdown_stop": (0, 0.001, 1),
    "daily_loss": (0, 0.001, 1),
    "volatility_target": (0, 0.01, 10),
    "concentration": (0, 10_000),
    "order_size": (0, 0.001, 1),
    "turnover": (0, 0.01, 100),
    "volume_share": (0, 0.0001, 100),
}
CASH = 100_000 * DOLLAR
DOLLARS = st.one_of(st.just(0.0), st.integers(50, 20_000).map(lambda cents: cents / 100))
Row = tuple[float, float, float, float]


@st.composite
def rows(draw: st.DrawFn) -> Row:
    """Open, high, low and close, of which all but the close may be missing; or nothing at all."""
    low, one, other, high = sorted(draw(st.lists(st.integers(50, 20_000), min_size=4, max_size=4)))
    first, last = (one, other) if draw(st.booleans()) else (other, one)
    parts = [value / 100 for value in (first, high, low, last)]
    kept = draw(st.sampled_from([(1, 1, 1, 1)] * 4 + [(0, 1, 1, 1), (1, 0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 0)]))
    return tuple(part * keep for part, keep in zip(parts, kept, strict=True))  # type: ignore[return-value]  # four of them


ACTIONS = st.one_of(
    st.builds(Split, st.sampled_from(TICKERS), st.integers(1, 8), st.integers(1, 8)),
    st.builds(Dividend, st.sampled_from(TICKERS), st.integers(0, 3 * DOLLAR)),
    st.builds(Delisting, st.sampled_from(TICKERS), st.integers(0, 50 * DOLLAR)),
)


def history(seed: int, count: int) -> list[Row]:
    """Bars of a random walk: with enough of them agents have something to say."""
    chance = random.Random(seed)
    price, found = chance.choice([1.0, 50.0]), list[Row]()
    for _ in range(count):
        price = min(max(price * chance.choice([0.9, 0.99, 1.0, 1.01, 1.2]), 0.5), 200.0)
        found.append((price, price, price, price))
    return found


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    """A market of two tickers."""
    before = draw(st.sampled_from([1, HISTORY]))
    made_up: Mapping[str, list[Row]] = {ticker: history(draw(st.integers(0, 99)), before - 1) for ticker in TICKERS}
    bars: Mapping[str, Sequence[Row]] = {
        ticker: made_up[ticker] + draw(st.lists(rows(), min_size=ROWS, max_size=ROWS)) for ticker in TICKERS
    }
    told: list[Prices] = [{ticker: [row[field] for row in of] for ticker, of in bars.items()} for field in range(4)]
    volumes = {ticker: [1_000] * (before - 1) + draw(st.lists(st.integers(-1, 5_000), min_size=ROWS, max_size=ROWS)) for ticker in TICKERS}
    dated: list[tuple[int, CorporateAction]] = draw(st.lists(st.tuples(st.integers(1, ROWS - 1), ACTIONS), max_size=4, unique_by=str))
    opens, ranges = draw(st.booleans()), draw(st.booleans())
    return stage(
        told[3],
        opens=told[0] if opens else None,
        highs=told[1] if ranges else None,
        lows=told[2] if ranges else None,
        volumes=volumes if draw(st.booleans()) else None,
        actions=sorted(dated, key=lambda one: one[0]),
        before=before,
    )


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    """Any policy, costs and margin."""
    fill = draw(st.sampled_from([contract.FILL_POLICY_NEXT_CLOSE, contract.FILL_POLICY_NEXT_OPEN, contract.FILL_POLICY_SAME_CLOSE]))
    manager = draw(st.sampled_from(["", "", "monthly-equal-weight", "sma-crossover"]))
    costs = {"fee_bp": draw(st.sampled_from([0, 10])), "borrow_bp": 250, "slippage_bp": draw(st.sampled_from([0, 50]))}
    config = config_of(fill, manager=manager, free=draw(st.booleans()), **costs)
    config.margin.allow_debit, config.margin.enabled = draw(st.booleans()), draw(st.sampled_from([True, True, False]))
    config.execution.participation = draw(st.sampled_from([0, 0.1]))
    config.risk.on_gap = draw(st.sampled_from([contract.GAP_POLICY_RESIZE, contract.GAP_POLICY_REJECT]))
    limits = draw(st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in LIMITS.items()}))
    config.risk.MergeFrom(contract.RiskLimits(**limits))
    config.risk.orders = draw(st.sampled_from([0, 0, 1]))
    config.risk.sharing = draw(st.sampled_from([contract.ROOM_SHARING_IN_TURN, contract.ROOM_SHARING_PRO_RATA]))
    return config


@st.composite
def orders(draw: st.DrawFn) -> tuple[str, int, dict[str, Any]]:
    """Ticker, signed shares, and what else an order says."""
    price = draw(st.sampled_from(["", "limit_price_micros", "stop_price_micros"]))
    fields: dict[str, Any] = {price: draw(st.integers(50, 20_000)) * 10_000} if price else {}
    fields["time_in_force"] = draw(st.integers(1, 4))
    return draw(st.sampled_from(TICKERS)), draw(st.sampled_from([-3_000, -400, -7, 7, 400, 3_000])), fields


SESSION_ORDERS = st.lists(st.lists(orders(), max_size=3), min_size=ROWS - 1, max_size=ROWS - 1)


def go_on(desk: Desk, told: Sequence[Sequence[tuple[str, int, dict[str, Any]]]], *, dies: bool = False) -> Desk:
    """The rest of a run; a gateway that `dies` does so after every session."""
    known = {one.order.order_id for one in desk.told("order_submitted")}
    for session in range(desk.desk.sessions_settled, len(told)):
        for place, (ticker, delta, fields) in enumerate(told[session]):
            if f"{session}-{place}" not in known:
                desk.submit(f"{session}-{place}", ticker, delta, **fields)
        desk.run()
        if dies:
            desk.open()
        desk.earlier = OpenSession()
    return desk


@settings(max_examples=120, deadline=None)
@given(config=configs(), bars=stages(), told=SESSION_ORDERS, data=st.data())
def test_the_ledger_proves_whatever_happens_and_no_death_changes_it(
    config: RunConfig, bars: Stage, told: list[list[tuple[str, int, dict[str, Any]]]], data: st.DataObject
) -> None:
    desk = go_on(Desk(config, bars, cash_micros=CASH), told)
    account, reader = desk.desk.account, desk.store.reader()
    fold = replay_journal("demo", reader)
    assert fold.portfolio == account.portfolio
    assert account.portfolio.balances()
    assert fold.state() == fold_journal("demo", reader).state()
    assert desk.told("settled")[-1].nav_micros == account.portfolio.net_asset_value(account.marks_micros)
    Scoreboard().catch_up(reader, len(desk.store.events), coefficients=True)
    desk.in_force()
    after_each = go_on(Desk(config, bars, cash_micros=CASH), told, dies=True)
    kept = data.draw(st.integers(1, len(desk.store.events)))
    after_any = go_on(Desk(config, bars, desk.store.events[:kept], cash_micros=CASH), told)
    for again in (after_each, after_any):
        assert [one.data[: one.core_length] for one in again.store.events] == [one.data[: one.core_length] for one in desk.store.events]


@settings(max_examples=100, deadline=None)
@given(config=configs(), bars=stages(), told=SESSION_ORDERS)
def test_every_fill_lies_within_its_bar_and_every_share_of_an_order_is_accounted_for(
    config: RunConfig, bars: Stage, told: list[list[tuple[str, int, dict[str, Any]]]]
) -> None:
    config.costs.slippage_bp = 0
    desk = go_on(Desk(config, bars, cash_micros=CASH), told)
    row_of = {session: row for row, session in enumerate(bars.history.bars.sessions)}
    asked = {one.order.order_id: one.order.quantity for one in desk.told("order_submitted")}
    spent = dict.fromkeys(asked, 0)
    for event in (stored.parse() for stored in desk.store.events):
        match event.WhichOneof("payload"):
            case "order_filled":
                fill, row = event.order_filled, row_of[event.session_date]
                known = [bars.history.bars.field(name) for name in ("open", "high", "low", "close")]
                prices = [int(values[row, TICKERS.index(fill.ticker)]) for values in known if values is not None]
                found = [price for price in prices if price]
                assert min(found) <= fill.price_micros <= max(found)
                spent[fill.order_id] = spent.get(fill.order_id, 0) + fill.quantity
            case "order_expired" if event.order_expired.order_id in asked:
                spent[event.order_expired.order_id] += event.order_expired.quantity
            case "order_rejected" if event.order_rejected.order_id in asked:
                spent[event.order_rejected.order_id] += event.order_rejected.quantity
    rest = {one.order_id: abs(one.delta) for one in desk.desk.orders.working}
    assert all(spent[name] + rest.get(name, 0) <= quantity for name, quantity in asked.items())
    assert all(one.quantity > 0 for one in desk.told("order_filled"))
    assert not any(one.quantity <= 0 for one in (*desk.told("order_expired"), *desk.told("order_rejected")))
