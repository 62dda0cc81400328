"""Where live quotes come from, as the environment says it."""

from __future__ import annotations

import pytest

from trademesh_kernel.settings import EXIT_CONFIG, load_settings
from trademesh_trading.__main__ import TradingSettings, live_quotes

KEY = "c0ffee-key-of-a-user"


def test_without_a_key_there_are_no_live_quotes() -> None:
    assert live_quotes(load_settings(TradingSettings)) is None


def test_a_key_is_all_that_live_quotes_need_and_no_settings_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEMESH_FINNHUB_API_KEY", KEY)
    settings = load_settings(TradingSettings)
    assert live_quotes(settings) is not None
    assert settings.quotes_url == "wss://ws.finnhub.io"
    assert KEY not in f"{settings!r} {settings}"


@pytest.mark.parametrize("url", ["ws://quotes.example.com", "http://127.0.0.1:1", "ws://", "quotes"])
def test_an_address_that_is_none_or_would_show_the_key_to_the_network_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRADEMESH_FINNHUB_API_KEY", KEY)
    monkeypatch.setenv("TRADEMESH_QUOTES_URL", url)
    with pytest.raises(SystemExit) as caught:
        load_settings(TradingSettings)
    assert caught.value.code == EXIT_CONFIG
    said = capsys.readouterr().err
    assert "TRADEMESH_QUOTES_URL" in said
    assert KEY not in said


@pytest.mark.parametrize("url", ["ws://127.0.0.1:9000", "ws://[::1]:9000/path", "ws://localhost:9000", "wss://quotes.example.com"])
def test_an_address_on_this_machine_needs_no_encryption(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADEMESH_QUOTES_URL", url)
    assert load_settings(TradingSettings).quotes_url == url
