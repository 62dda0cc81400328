"""What it takes to put an event into a frame, once for all browsers of one form, over the events of a finished journal."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

from bench.figures import ROUNDS, Figure, at_most, told
from trademesh.gateway.v1 import feed_service_pb2 as feed
from trademesh_edge.formats import FORMATS
from trademesh_runs.feed_batch import batch_of
from trademesh_runs.journal_sqlite import SqliteReader

EVENTS = 4_096
BATCH = 64
PROTO_MOST_US = 2.0


def encoding_figures(journal: Path) -> list[Figure]:
    """Microseconds per event in each form."""
    reader = SqliteReader(journal)
    try:
        stored = reader.read(0, EVENTS)
    finally:
        reader.close()
    payloads = [
        batch_of([(event.sequence, event.data) for event in stored[start : start + BATCH]]).message(1, start + 1)
        for start in range(0, len(stored), BATCH)
    ]
    size = median(len(event.data) for event in stored)
    found = list[Figure]()
    for name, form in FORMATS.items():
        times_us = list[float]()
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for payload in payloads:
                form.message(1, feed.SubscribeResponse, payload)
            times_us.append(1e6 * (time.perf_counter() - began) / len(stored))
        label = f"an event (median {size:.0f} B) into a frame of {name}, once for all its browsers"
        value = median(times_us)
        found.append(told(label, "µs", value) if form.text else at_most(label, "µs", value, PROTO_MOST_US))
    return found
