"""The page about the protocol says what the code does."""

from __future__ import annotations

from trademesh.edge.v1 import frame_pb2
from trademesh_edge.protocol_page import FRAMES, PAGE, rendered
from trademesh_edge.settings import EdgeSettings


def test_the_page_is_what_the_code_makes_of_it() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert rendered(page) == page, "run `python -m trademesh_edge.protocol_page`"


def test_every_frame_is_explained() -> None:
    assert set(FRAMES) == {field.name for field in frame_pb2.EdgeFrame.DESCRIPTOR.oneofs_by_name["kind"].fields}


def test_every_setting_of_the_edge_says_what_it_is() -> None:
    assert [name for name, field in EdgeSettings.model_fields.items() if name.startswith("edge_") and not field.description] == []


def test_the_defaults_are_those_of_the_design() -> None:
    settings = EdgeSettings()
    assert (settings.edge_max_sockets, settings.edge_max_sockets_per_address) == (2_000, 50)
    assert (settings.edge_max_handshakes_per_s, settings.edge_max_handshakes_per_s_per_address) == (200, 20)
    assert (settings.edge_max_open_handshakes, settings.edge_max_calls, settings.edge_max_frame_bytes) == (256, 32, 65_536)
    assert (settings.edge_max_messages_per_s, settings.edge_hello_timeout_s, settings.edge_open_timeout_s) == (20, 5, 5)
    assert (settings.edge_ping_interval_s, settings.edge_ping_timeout_s, settings.edge_stall_timeout_s) == (10, 10, 30)
    assert (settings.edge_flush_interval_s, settings.edge_flush_events, settings.edge_history_streams) == (0.025, 16, 16)
    assert (settings.edge_restart_spread_s, settings.edge_close_timeout_s, settings.edge_checkpoint_interval_s) == (5, 2, 5)
