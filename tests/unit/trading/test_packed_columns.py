"""Columns that are packed by arrays are what protobuf reads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trademesh.trading.v1.market_data_pb2 import BarBlock
from trademesh_kernel.wire_format import delimited
from trademesh_trading import packed_columns
from trademesh_trading.packed_columns import packed

CLOSES = BarBlock.CLOSE_MICROS_FIELD_NUMBER
QUALITIES = BarBlock.QUALITY_BITS_FIELD_NUMBER


@given(st.lists(st.one_of(st.integers(0, 3), st.integers(0, 2**62), st.integers(0, 2**31)), max_size=40))
def test_numbers_arrive_as_they_were(values: list[int]) -> None:
    assert list(BarBlock.FromString(delimited(CLOSES, bytes(packed(np.array(values, np.int64))))).close_micros) == values


@pytest.mark.parametrize("value", [value + step for power in range(6, 62, 7) for value in (2**power,) for step in (-1, 0, 1)])
def test_numbers_at_the_edges_of_their_width_arrive(value: int) -> None:
    assert list(BarBlock.FromString(delimited(CLOSES, bytes(packed(np.array([0, value], np.int64))))).close_micros) == [0, value]


@given(st.lists(st.integers(0, 255), max_size=40))
def test_flags_arrive_as_they_were(values: list[int]) -> None:
    assert list(BarBlock.FromString(delimited(QUALITIES, bytes(packed(np.array(values, np.uint8))))).quality_bits) == values


def test_a_matrix_is_packed_row_by_row_whatever_its_layout_in_memory() -> None:
    matrix = np.array([[1, 2, 3], [4, 5, 6]], np.int64)
    for one in (matrix, np.asfortranarray(matrix), matrix[:, ::1]):
        assert list(BarBlock.FromString(delimited(CLOSES, bytes(packed(one)))).close_micros) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("largest", [2 ** (7 * groups - 1) - 1 for groups in range(1, 10)])
def test_a_column_longer_than_what_is_worked_on_at_once_arrives_in_order(largest: int) -> None:
    values = [0, 1, largest, largest // 3] * (packed_columns._VALUES_AT_ONCE // 4) + [largest, 5, largest // 7]
    column = delimited(CLOSES, bytes(packed(np.array(values, np.int64))))
    assert list(BarBlock.FromString(column).close_micros) == values
