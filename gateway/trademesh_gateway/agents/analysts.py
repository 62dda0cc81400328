"""The four analysts by rules. Each reads a point-in-time view and returns Signals; one that has no data abstains and says why."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np

from trademesh_gateway.agents.indicators import momentum, volatility, z_score
from trademesh_gateway.agents.readings import READINGS, seen_prices
from trademesh_gateway.agents.records import Signals, abstention
from trademesh_gateway.market.point_in_time import PointInTimeView

Analyst = Callable[[PointInTimeView, Collection[str]], Signals]
"""From what is known, and the skills that the agent may use, to its view."""

NEWS_MEMORY_S = 14 * 86_400
NEWS_HALF_LIFE_S = 3 * 86_400
TECHNICAL_HORIZON_SESSIONS = 21
NEWS_HORIZON_SESSIONS = 5


def technical_analyst(view: PointInTimeView, skills: Collection[str]) -> Signals:
    """Momentum over a year less its last month, mean reversion within a month, and less confidence where volatility is high; and what else
    `readings.py` has, if it is named."""
    count = len(view.tickers)
    score, weight = np.zeros(count), np.zeros(count)
    figures = list[tuple[str, str, np.ndarray[tuple[int], np.dtype[np.float64]]]]()
    if "momentum" in skills:
        trend = momentum(view, 231, skip=21)
        figures.append(("momentum", "return_231_skip_21", trend))
        score, weight = _mixed(score, weight, np.clip(trend / 0.4, -1, 1), 0.7)
    if "mean-reversion" in skills:
        stretch = z_score(view, 20)
        figures.append(("mean-reversion", "z_score_20", stretch))
        score, weight = _mixed(score, weight, np.clip(-stretch / 3, -1, 1), 0.3)
    if further := [skill for skill in READINGS if skill in skills]:
        prices = seen_prices(view)
        for skill in further:
            read, share = READINGS[skill]
            name, figure, lean = read(prices)
            figures.append((skill, name, figure))
            score, weight = _mixed(score, weight, lean, share)
    confidence = np.full(count, 0.5)
    if "volatility" in skills:
        level = volatility(view, 60)
        figures.append(("volatility", "volatility_60", level))
        confidence = np.where(np.isnan(level), 0.25, np.clip(0.9 - level, 0.1, 0.9))
    abstain = weight == 0
    if abstain.all():
        return abstention("not enough sessions are known for any skill")
    return Signals(np.where(abstain, 0.0, score / np.where(abstain, 1.0, weight)), confidence, abstain, TECHNICAL_HORIZON_SESSIONS, figures)


def _mixed(score: np.ndarray, weight: np.ndarray, part: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(part)
    return score + np.where(known, share * part, 0.0), weight + np.where(known, share, 0.0)


def sentiment_analyst(view: PointInTimeView, skills: Collection[str]) -> Signals:
    """Direction of the news of two weeks, each item weighing half as much every three days. No news is neutral."""
    if "news-flow" not in skills:
        return abstention("no skill is enabled")
    place = {ticker: column for column, ticker in enumerate(view.tickers)}
    flow = np.zeros(len(view.tickers))
    for item in view.news_since(view.as_of_unix_s - NEWS_MEMORY_S):
        column = place.get(item.ticker)
        if column is not None:
            flow[column] += item.direction * 0.5 ** ((view.as_of_unix_s - item.published_unix_s) / NEWS_HALF_LIFE_S)
    score = np.clip(flow / 2, -1, 1)
    confidence = np.minimum(0.6, np.abs(score))
    return Signals(score, confidence, np.zeros(len(score), bool), NEWS_HORIZON_SESSIONS, [("news-flow", "weighted_direction", flow)])


def fundamentals_analyst(view: PointInTimeView, skills: Collection[str]) -> Signals:
    """Abstains: the data sets hold no statements."""
    return abstention("no statements in the data")


def valuation_analyst(view: PointInTimeView, skills: Collection[str]) -> Signals:
    """Abstains: without statements there is no value to compare a price with."""
    return abstention("no statements in the data")


ANALYSTS: dict[str, Analyst] = {
    "fundamentals_analyst": fundamentals_analyst,
    "technical_analyst": technical_analyst,
    "sentiment_analyst": sentiment_analyst,
    "valuation_analyst": valuation_analyst,
}
"""By role."""
