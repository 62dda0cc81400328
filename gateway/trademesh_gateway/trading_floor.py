"""Where a run trades: clock, source and broker, which are all in which its modes differ. The cycles are the same on every floor.

Recorded sessions are here; `paper_floor.py` has those to come.
"""

from __future__ import annotations

from typing import Protocol

from trademesh.runtime.v1.run_config_pb2 import RunConfig
from trademesh_gateway.market.bar_source import BarSource
from trademesh_gateway.pipeline.broker import BarBroker, Broker, SessionTimes
from trademesh_gateway.pipeline.cycle import Ask
from trademesh_kernel.client import ServiceClient


class Floor(Protocol):
    """Where one run trades."""

    def source(self) -> BarSource:
        """Its market data, not opened yet; a new one for each try to open it."""

    def broker(self, source: BarSource) -> Broker:
        """Who tells prices, once the source is open."""

    async def until_decision(self, session: SessionTimes) -> None:
        """Waits between two cycles until a session is to be decided on.

        Raises:
            Stopped: the gateway drains.
            Ended: the pipeline was ended.
        """

    def asking(self, ask: Ask) -> Ask:
        """How people are asked about orders."""

    async def close(self) -> None:
        """Lets go of what it listens to."""


class RecordedFloor:
    """Sessions of the past: all is there before it is asked for."""

    def __init__(self, config: RunConfig, trading: ServiceClient, news: ServiceClient) -> None:
        self._config = config
        self._trading = trading
        self._news = news

    def source(self) -> BarSource:
        """The bars of the run's set."""
        config = self._config
        return BarSource(self._trading, self._news, config.data.set, config.sessions.start, config.sessions.end)

    def broker(self, source: BarSource) -> Broker:
        """The bars tell prices."""
        return BarBroker(source.history)

    async def until_decision(self, session: SessionTimes) -> None:
        """Waits for nothing."""

    def asking(self, ask: Ask) -> Ask:
        """As long as the policy says: no clock runs meanwhile."""
        return ask

    async def close(self) -> None:
        """Listens to nothing."""
