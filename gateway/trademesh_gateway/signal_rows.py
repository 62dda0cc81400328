"""Signals and predictions of many sessions, encoded together: what a SignalTable says, as the rows of its messages. Those of one session alone
are `wire.py`'s; both say the same (tests/unit/gateway/test_table_rows.py).
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from trademesh.gateway.v1 import event_pb2 as events
from trademesh_gateway.agents.records import SignalTable, Stance, stances_of
from trademesh_gateway.table_rows import EncodedRows, double, encoded_rows, same, small, text
from trademesh_kernel.wire_format import prefix

DIGITS = 6
"""Scores and confidences are journaled to six digits: what is below is noise, and the file is smaller for it."""
TOO_SHORT = "not enough history"
"""Why a ticker is abstained from."""
DIRECTIONS = {
    Stance.BULLISH.value: events.DIRECTION_UP,
    Stance.BEARISH.value: events.DIRECTION_DOWN,
    Stance.NEUTRAL.value: events.DIRECTION_NEUTRAL,
}
"""What a stance predicts."""
_DIRECTION_BY_STANCE = np.array([DIRECTIONS.get(stance, 0) for stance in range(max(Stance) + 1)])
_SCALE = 10.0**DIGITS

Floats = TypeVar("Floats", float, npt.NDArray[np.float64])
Encode: TypeAlias = Callable[[SignalTable, tuple[str, ...], slice], list[bytes]]


def rows_of(table: SignalTable, tickers: tuple[str, ...], encode: Encode) -> EncodedRows:
    """What a function of this module makes of a table, piece by piece, and only once."""
    found: EncodedRows | None = table.encoded.get(encode.__name__)
    if found is None:
        found = table.encoded[encode.__name__] = EncodedRows(partial(encode, table, tickers), len(tickers))
    return found


def rounded(values: Iterable[float]) -> list[float]:
    """Finite values to DIGITS, as numpy's `round` has them: for a session alone, whose arrays would take longer to make than to round."""
    return [(round(value * _SCALE) or value * 0.0) / _SCALE if value else value for value in values]


def probability_of(score: Floats, confidence: Floats) -> Floats:
    """Of the direction that a score has, not rounded: one half plus half of the conviction."""
    return 0.5 + abs(score) * confidence / 2


def signal_rows(table: SignalTable, tickers: tuple[str, ...], sessions: slice) -> list[bytes]:
    """A Signal for every ticker, and after them the columns of figures."""
    score, abstain = table.score[sessions], table.abstain[sessions]
    everywhere = np.ones(score.shape, bool)
    fields = [
        small(events.Signal.STANCE_FIELD_NUMBER, stances_of(score, abstain)),
        double(events.Signal.SCORE_FIELD_NUMBER, score.round(DIGITS)),
        double(events.Signal.CONFIDENCE_FIELD_NUMBER, np.where(abstain, 0.0, table.confidence[sessions].round(DIGITS))),
        same(events.Signal.HORIZON_SESSIONS_FIELD_NUMBER, table.horizon_sessions, everywhere),
        text(events.Signal.NOTE_FIELD_NUMBER, TOO_SHORT, abstain),
    ]
    rows = encoded_rows(events.Signals.SIGNALS_FIELD_NUMBER, tickers, fields, everywhere)
    figures = [(tool, name, values[sessions].tolist()) for tool, name, values in table.figures]
    columns = [figure_columns([(tool, name, values[place]) for tool, name, values in figures]) for place in range(len(rows))]
    return list(map(operator.add, rows, columns))


def figure_columns(figures: Sequence[tuple[str, str, Sequence[float]]]) -> bytes:
    """What one session's view was made of, encoded: it follows the rows."""
    return b"".join(
        [_figure_head(tool, name, 8 * len(values)) + struct.pack(f"<{len(values)}d", *values) for tool, name, values in figures]
    )


@lru_cache(256)
def _figure_head(tool: str, name: str, size_bytes: int) -> bytes:
    """All of a column but its values, which are its last field."""
    named = events.FigureColumn(tool=tool, name=name).SerializeToString() + prefix(events.FigureColumn.VALUES_FIELD_NUMBER, size_bytes)
    return prefix(events.Signals.FIGURES_FIELD_NUMBER, len(named) + size_bytes) + named


def prediction_rows(table: SignalTable, tickers: tuple[str, ...], sessions: slice) -> list[bytes]:
    """A Prediction for every ticker that is not abstained from."""
    score, abstain = table.score[sessions], table.abstain[sessions]
    stances = stances_of(score, abstain)
    sure = np.where(stances == Stance.NEUTRAL, 0.0, probability_of(score, table.confidence[sessions]).round(DIGITS))
    fields = [
        small(events.Prediction.DIRECTION_FIELD_NUMBER, _DIRECTION_BY_STANCE[stances]),
        double(events.Prediction.CONFIDENCE_FIELD_NUMBER, sure),
    ]
    return encoded_rows(events.Predictions.PREDICTIONS_FIELD_NUMBER, tickers, fields, ~abstain)
