"""The market of a run on paper: bars of the set up to the day before, then what earlier sessions of the run have journaled, and news as of each
decision. Bars of sessions to come are nobody's: `add_session` takes in what the feed told of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from trademesh.trading.v1 import market_data_service_pb2 as data
from trademesh_gateway.market.bar_source import BarSource
from trademesh_gateway.market.clock import Clock
from trademesh_gateway.pipeline.broker import Moment, SessionTimes
from trademesh_gateway.pipeline.desk_run import DECISION_LEAD_S
from trademesh_gateway.pipeline.paper_broker import Observed, ObservedKey
from trademesh_kernel.client import ServiceClient


class PaperMarket(BarSource):
    """The run's market data up to now."""

    def __init__(
        self,
        trading: ServiceClient,
        news: ServiceClient,
        data_set: str,
        sessions: data.ListSessionsRequest,
        observed: Mapping[ObservedKey, Observed],
        clock: Clock,
    ) -> None:
        """
        Args:
            sessions: asks for the sessions of the run, by calendar.
            observed: prices that the run has journaled, by session and moment; more may come.
        """
        before = (date.fromisoformat(sessions.start) - timedelta(days=1)).isoformat()
        super().__init__(trading, news, data_set, "", before)
        self._sessions = sessions
        self._observed = observed
        self._clock = clock
        self._tickers: list[str] = []
        self._news_session = ""

    async def open(self, tickers: list[str]) -> list[SessionTimes]:
        """Finds the sessions of the run and reads all bars that there are. Raises as that of BarSource."""
        sessions = await super().open(tickers)
        # What a feed tells has opens in any case.
        self._tickers, self.has_opens = tickers, True
        while self._blocks is not None:
            await self._read_block(self._blocks)
        for session in sessions:
            if (session.date, Moment.CLOSE) in self._observed:
                self.add_session(session, self._observed[session.date, Moment.OPEN], self._observed[session.date, Moment.CLOSE])
        return sessions

    def add_session(self, session: SessionTimes, at_open: Observed, at_close: Observed) -> None:
        """Takes in a session that has closed; an index has no prices there. One of which nothing was heard has no bars, so that the last ones that
        there are go on being the last."""
        if not any(at_close.prices):
            return
        others = [0] * (len(self.history.tickers) - len(at_close.prices))
        told = {"open": at_open.prices, "high": at_close.highs, "low": at_close.lows}
        fields = {name: np.array([[*prices, *others]], np.int64) for name, prices in told.items() if prices}
        self.history.add_sessions([session.date], [session.close_unix_s], np.array([[*at_close.prices, *others]], np.int64), fields)

    def has(self, session: SessionTimes) -> bool:
        """True if nothing more need be read for a session: it is over, or its news are there."""
        return self._news_session == session.date or (session.date, Moment.CLOSE) in self._observed

    async def have(self, session: SessionTimes) -> None:
        """Reads the news up to a session's decision.

        Raises:
            DependencyUnavailable, RemoteError: news_service does not answer.
        """
        if self.has(session):
            return
        known_through, decision_s = self._as_of.seconds, session.open_unix_s - DECISION_LEAD_S
        # Who begins in the middle of a session knows what came after its decision; the view of the decision does not show it.
        if decision_s > known_through:
            self._as_of = Timestamp(seconds=decision_s)
            try:
                await self._read_news(self._tickers, known_through)
            except BaseException:
                self._as_of = Timestamp(seconds=known_through)
                raise
        self._news_session = session.date

    async def reopen(self) -> None:
        """There is no stream that could have broken."""

    def _horizon_unix_s(self, sessions: Sequence[SessionTimes]) -> int:
        return int(self._clock.now_unix_s())
