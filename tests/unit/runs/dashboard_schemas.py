"""JSON schemas of `team_dashboard/*.json`, made from section 7 of the domain page: every key, and no other."""

from __future__ import annotations

from typing import Any

NUMBER, INTEGER, TEXT = {"type": "number"}, {"type": "integer"}, {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
DATE = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"}
FRACTION = {"type": "number", "minimum": 0, "maximum": 1}


def exactly(**properties: Any) -> dict[str, Any]:
    """An object with these keys."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def list_of(items: Any, **more: Any) -> dict[str, Any]:
    """An array."""
    return {"type": "array", "items": items, **more}


CURVE = list_of(exactly(t=INTEGER, v=NUMBER))
ACCOUNT = {
    "totalAssetValue": NUMBER,
    "totalReturn": NUMBER,
    "cashPosition": NUMBER,
    "tickerWeights": {"type": "object", "additionalProperties": NUMBER},
    "totalTrades": COUNT,
}
HITS = exactly(n=COUNT, win=COUNT, unknown=COUNT)
KNOWN_HITS = exactly(n=COUNT, win=COUNT)
SIGNAL = exactly(
    ticker=TEXT,
    signal={"enum": ["bull", "bear", "neutral"]},
    date=DATE,
    is_correct={"enum": [True, False, None, "unknown"]},
    real_return={"type": ["number", "null"]},
)

SCHEMAS: dict[str, dict[str, Any]] = {
    "summary": exactly(
        **ACCOUNT,
        pnlPct=NUMBER,
        balance=NUMBER,
        equity=CURVE,
        baseline=CURVE,
        baseline_vw=CURVE,
        momentum=CURVE,
        baseline_vw_reason=TEXT,
    ),
    "holdings": list_of(
        exactly(ticker=TEXT, quantity=INTEGER, currentPrice=NUMBER, marketValue=NUMBER, weight={"type": "number", "minimum": 0}), minItems=1
    ),
    "stats": exactly(**ACCOUNT, winRate=FRACTION, bullBear=exactly(bull=KNOWN_HITS, bear=KNOWN_HITS)),
    "trades": list_of(
        exactly(
            id={"type": "string", "pattern": "^t_[0-9]{8}_.+_[0-9]+$"},
            timestamp=INTEGER,
            trading_date=DATE,
            side={"enum": ["LONG", "SHORT"]},
            ticker=TEXT,
            qty={"type": "integer", "minimum": 1},
            price=NUMBER,
        ),
        maxItems=100,
    ),
    "leaderboard": list_of(
        exactly(
            agentId=TEXT,
            name=TEXT,
            role=TEXT,
            avatar=TEXT,
            rank={"type": ["integer", "null"], "minimum": 0},
            winRate={"anyOf": [FRACTION, {"type": "null"}]},
            bull=HITS,
            bear=HITS,
            logs=list_of(TEXT),
            signals=list_of(SIGNAL, maxItems=100),
            modelName=TEXT,
            modelProvider=TEXT,
        )
    ),
}
