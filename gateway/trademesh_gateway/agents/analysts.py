"""The four analysts by rules. Each reads a point-in-time view and returns Signals; one that has no data abstains and says why."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache, lru_cache, partial

import numpy as np
import numpy.typing as npt

from trademesh_gateway.agents.indicators import (
    Table,
    clipped,
    momentum,
    momentum_of,
    volatility,
    volatility_of,
    z_score,
    z_score_of,
)
from trademesh_gateway.agents.readings import READINGS, seen_prices
from trademesh_gateway.agents.records import AnySignals, Signals, SignalTable, abstention
from trademesh_gateway.market.point_in_time import Closes, PointInTimeView

Analyst = Callable[[PointInTimeView, Collection[str]], AnySignals]
"""From what is known, and the skills that the agent may use, to its view."""

NEWS_MEMORY_S = 14 * 86_400
NEWS_HALF_LIFE_S = 3 * 86_400
TECHNICAL_HORIZON_SESSIONS = 21
MOMENTUM_SESSIONS, MOMENTUM_SKIP, STRETCH_SESSIONS, VOLATILITY_SESSIONS = 231, 21, 20, 60
SEEN_SESSIONS = MOMENTUM_SESSIONS + MOMENTUM_SKIP + 1
_FIGURES = {"momentum": "return_231_skip_21", "mean-reversion": "z_score_20", "volatility": "volatility_60"}
"""Names of figures by skill, in the order in which they are told."""
_NOTHING_KNOWN = "not enough sessions are known for any skill"
NEWS_HORIZON_SESSIONS = 5


def technical_analyst(view: PointInTimeView, skills: Collection[str]) -> AnySignals:
    """Momentum over a year less its last month, mean reversion within a month, and less confidence where volatility is high; and what else
    `readings.py` has, if it is named."""
    wanted = frozenset(skills)
    further = _further(wanted)
    if not further:
        name, compute = _tabled(wanted)
        signals = view.windowed(name, SEEN_SESSIONS, compute)
        if signals is not None:
            return signals
    # With fewer sessions some figures are known, or none; further skills are read session by session.
    parts = (momentum(view, MOMENTUM_SESSIONS, MOMENTUM_SKIP), z_score(view, STRETCH_SESSIONS), volatility(view, VOLATILITY_SESSIONS))
    score, weight, confidence = _judgement(*parts, wanted)
    figures = _figures(parts, wanted)
    if further:
        prices = seen_prices(view)
        for skill in further:
            read, share = READINGS[skill]
            name, figure, lean = read(prices)
            figures.append((skill, name, figure))
            score, weight = _mixed(score, weight, lean, share)
    score, abstain = _mean(score, weight)
    if abstain.all():
        return abstention(_NOTHING_KNOWN)
    told = [(tool, name, values.tolist()) for tool, name, values in figures]
    return Signals(score.tolist(), confidence.tolist(), abstain.tolist(), TECHNICAL_HORIZON_SESSIONS, told)


@cache
def _further(skills: frozenset[str]) -> list[str]:
    return [skill for skill in READINGS if skill in skills]


@cache
def _tabled(skills: frozenset[str]) -> tuple[str, Callable[[Closes], SignalTable]]:
    """What computes the views of many sessions, and its name among what is computed so."""
    return f"technical {sorted(skills)}", partial(_views, skills=skills)


def _views(closes: Closes, skills: frozenset[str]) -> SignalTable:
    """The views after each stretch of SEEN_SESSIONS rows."""
    last = len(closes) - SEEN_SESSIONS + 1
    trend = momentum_of(closes[-(last + MOMENTUM_SESSIONS + MOMENTUM_SKIP) :], MOMENTUM_SESSIONS, MOMENTUM_SESSIONS + MOMENTUM_SKIP + 1)
    stretch = z_score_of(closes[-(last + STRETCH_SESSIONS - 1) :], STRETCH_SESSIONS)
    level = volatility_of(closes[-(last + VOLATILITY_SESSIONS) :], VOLATILITY_SESSIONS)
    parts = (trend, stretch, level)
    score, weight, confidence = _judgement(*parts, skills)
    score, abstain = _mean(score, weight)
    return SignalTable(score, confidence, abstain, TECHNICAL_HORIZON_SESSIONS, _figures(parts, skills), _NOTHING_KNOWN)


def _figures(parts: Sequence[Table], skills: Collection[str]) -> list[tuple[str, str, Table]]:
    return [(skill, name, figure) for (skill, name), figure in zip(_FIGURES.items(), parts, strict=True) if skill in skills]


def _mean(score: Table, weight: Table) -> tuple[Table, npt.NDArray[np.bool_]]:
    """Scores over the sum of their shares, and where there is none."""
    abstain = weight == 0
    return np.where(abstain, 0.0, score / np.where(abstain, 1.0, weight)), abstain


def _judgement(trend: Table, stretch: Table, level: Table, skills: Collection[str]) -> tuple[Table, Table, Table]:
    """Sum of leans and of their shares, and confidence, of whatever shape figures have."""
    score, weight = np.zeros(trend.shape), np.zeros(trend.shape)
    if "momentum" in skills:
        score, weight = _mixed(score, weight, clipped(trend / 0.4, -1, 1), 0.7)
    if "mean-reversion" in skills:
        score, weight = _mixed(score, weight, clipped(-stretch / 3, -1, 1), 0.3)
    confidence = np.full(trend.shape, 0.5)
    if "volatility" in skills:
        confidence = np.where(np.isnan(level), 0.25, clipped(0.9 - level, 0.1, 0.9))
    return score, weight, confidence


def _mixed(score: Table, weight: Table, part: Table, share: float) -> tuple[Table, Table]:
    known = ~np.isnan(part)
    return score + np.where(known, share * part, 0.0), weight + np.where(known, share, 0.0)


def sentiment_analyst(view: PointInTimeView, skills: Collection[str]) -> Signals:
    """Direction of the news of two weeks, each item weighing half as much every three days. No news is neutral."""
    if "news-flow" not in skills:
        return abstention("no skill is enabled")
    place = _columns(view.tickers)
    flow = [0.0] * len(place)
    for item in view.news_since(view.as_of_unix_s - NEWS_MEMORY_S):
        column = place.get(item.ticker)
        if column is not None:
            flow[column] += item.direction * 0.5 ** ((view.as_of_unix_s - item.published_unix_s) / NEWS_HALF_LIFE_S)
    # In most tickers there is no news.
    score = [max(-1.0, min(1.0, one / 2)) if one else 0.0 for one in flow]
    confidence = [min(0.6, abs(one)) if one else 0.0 for one in score]
    return Signals(score, confidence, [False] * len(flow), NEWS_HORIZON_SESSIONS, [("news-flow", "weighted_direction", flow)])


@lru_cache(16)
def _columns(tickers: tuple[str, ...]) -> dict[str, int]:
    return {ticker: column for column, ticker in enumerate(tickers)}


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
