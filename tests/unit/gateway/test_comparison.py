"""The baseline by market value in a run: where numbers of shares are known, by what was known at the first decision, with what it lacks."""

from __future__ import annotations

from made_up_bars import DOLLAR, stage
from trademesh_gateway.pipeline.broker import BarBroker, Moment
from trademesh_gateway.pipeline.comparison import Comparison
from trademesh_ledger.costs import CostModel

CLOSES = {"AAA": [50, 50, 60], "BBB": [20, 20, 20], "CCC": [10, 10, 10]}


def values(shares: list[int]) -> tuple[list[dict[str, int]], str]:
    """What baselines are worth in two sessions, and what the one by market value lacks."""
    bars = stage(CLOSES)
    comparison, broker = Comparison(120_000 * DOLLAR, bars.tickers, CostModel(), "", shares), BarBroker(bars.history)
    found = list[dict[str, int]]()
    for number in (1, 2):
        times = bars.times(number)
        before = bars.history.as_of(times.open_unix_s - 1800, times.date)
        closes = broker.bar(times, Moment.CLOSE).closes
        found.append(dict(comparison.settle(times.date, before, closes, closes, 0)))
    return found, comparison.market_cap_note


def test_parts_are_like_the_values_of_companies_at_the_first_decision() -> None:
    found, note = values([100, 250, 500])
    # Each is worth 5,000: a third of the money each, 800 shares of AAA.
    assert [one["market_cap_weighted"] for one in found] == [120_000 * DOLLAR, 128_000 * DOLLAR]
    assert note == ""


def test_a_company_whose_shares_nobody_filed_has_no_part_and_is_named() -> None:
    found, note = values([100, 0, 500])
    assert [one["market_cap_weighted"] for one in found] == [120_000 * DOLLAR, 132_000 * DOLLAR]
    assert note == "without BBB, whose value is not known"


def test_without_any_number_of_shares_there_is_no_such_baseline() -> None:
    for shares in ([], [0, 0, 0]):
        found, _ = values(shares)
        assert all(list(one) == ["equal_weight", "momentum"] for one in found)
