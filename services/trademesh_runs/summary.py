"""What a run amounts to, and the proof of it from its journal alone."""

from __future__ import annotations

from trademesh.runtime.v1.runtime_pb2 import RunSummary
from trademesh_ledger.metrics import Performance, performance
from trademesh_runs.chain import desk_digest
from trademesh_runs.fold import Fold, replay_journal
from trademesh_runs.journal import JournalReader, all_events


def performance_of(fold: Fold) -> Performance:
    """Figures over the curve of a fold."""
    return performance([fold.portfolio.initial_cash_micros, *(point.nav_micros for point in fold.equity)])


def summary_of(run_id: str, reader: JournalReader) -> RunSummary:
    """Replays a journal through the ledger and sums it up; raises LedgerMismatchError."""
    fold = replay_journal(run_id, reader)
    snapshot = reader.snapshot()
    return summary_of_fold(fold, desk_digest(all_events(reader), b"" if snapshot is None else snapshot.desk))


def summary_of_fold(fold: Fold, journal_sha256: str) -> RunSummary:
    """Sums up a journal that has been replayed to its end, with the digest of what the desk did."""
    figures = performance_of(fold)
    return RunSummary(
        run_id=fold.run_id,
        sessions=fold.sessions_settled,
        final_nav_micros=fold.nav_micros,
        total_return=figures.total_return or 0.0,
        sharpe=figures.sharpe,
        max_drawdown=figures.max_drawdown,
        trades=fold.fills,
        events=fold.sequence,
        journal_sha256=journal_sha256,
    )
