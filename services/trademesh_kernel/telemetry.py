"""Counters of calls for Prometheus, on a port of their own; off by default, and then nothing is counted."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server


class CallMetrics:
    """Counts calls by method and status code, and how long unary ones take."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter("trademesh_calls", "Calls that have ended.", ["method", "code"], registry=self.registry)
        self._seconds = Histogram("trademesh_call_seconds", "Duration of unary calls.", ["method"], registry=self.registry)

    def observe(self, method: str, code: str, seconds: float | None) -> None:
        """Takes in one call that has ended; `seconds` is None for streams, which are meant to last."""
        self._calls.labels(method, code).inc()
        if seconds is not None:
            self._seconds.labels(method).observe(seconds)

    def serve(self, port: int) -> None:
        """Serves the counters over HTTP on 127.0.0.1, from a thread that ends with the process."""
        start_http_server(port, addr="127.0.0.1", registry=self.registry)
