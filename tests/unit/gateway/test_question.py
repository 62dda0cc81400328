"""Which tickers a text names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh_gateway.agents.question import Question, question_of

RUN = ("AAPL", "BRK.B", "GE", "KO", "ALL", "XOM")


@pytest.mark.parametrize(
    ("text", "named", "not_traded"),
    [
        ("what do you think?", (), ()),
        ("why GE and AAPL?", ("AAPL", "GE"), ()),
        ("GE, AAPL/KO; (XOM)!", ("AAPL", "GE", "KO", "XOM"), ()),
        ("GE-KO as a pair", ("GE", "KO"), ()),
        ("is BRK.B dear?", ("BRK.B",), ()),
        ("AAPL's view", ("AAPL",), ()),
        ("why did you sell aapl", ("AAPL",), ()),
        ("and $ko?", ("KO",), ()),
        ("tell me all about GE", ("GE",), ()),
        ("what of ge and ko", (), ()),
        ("why TSLA?", (), ("TSLA",)),
        ("why $tsla and GE?", ("GE",), ("TSLA",)),
        ("what of BF.B?", (), ("BF.B",)),
        ("is NAV OK? I ask for US stocks", (), ()),
        ("WHY DID YOU SELL", (), ()),
        ("WHY GE", ("GE",), ()),
        ("$100 for 2008?", (), ()),
        ("", (), ()),
    ],
)
def test_a_ticker_is_named_by_the_form_of_its_word(text: str, named: tuple[str, ...], not_traded: tuple[str, ...]) -> None:
    assert question_of(text, RUN) == Question(named, not_traded)


@given(text=st.text(max_size=200) | st.lists(st.sampled_from([*RUN, "$ge", "aapl", "TSLA", "why", "-", "."]), max_size=12).map(" ".join))
def test_what_is_named_is_of_the_run_in_its_order_and_what_is_not_traded_is_not(text: str) -> None:
    found = question_of(text, RUN)
    assert [ticker for ticker in RUN if ticker in found.named] == list(found.named)
    assert not set(found.not_traded) & set(RUN)
    assert len(set(found.not_traded)) == len(found.not_traded)
