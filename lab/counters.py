"""What the service counts for as long as its database lives, whichever process it happens in."""

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from lab.tables import Counter

COUNTERS = {
    "reconciler_requeues": "Attempts that the reconciler ended because their lease had run out",
    "fenced_writes": "Writes refused because another attempt owned the job",
}
"""Every counter and what it counts. One that belongs to a refused transaction is counted in another, after it."""
ATTEMPTS = {
    f"attempts/{outcome}": outcome
    for outcome in (
        *("finish", "stopped", "paused", "preempted", "killed", "lost_worker", "out_of_memory", "timeout"),
        *("storage_unavailable", "dataset_unavailable", "diverged", "user_error", "internal_error", "other"),
    )
}
"""Counters of the attempts that have ended, and their outcomes."""


def count(tx: Session, name: str, by: int = 1) -> None:
    """Count something that this transaction does."""
    assert name in COUNTERS or name in ATTEMPTS
    insert = postgresql.insert if tx.get_bind().dialect.name == "postgresql" else sqlite.insert
    tx.execute(insert(Counter).values(name=name, value=0).on_conflict_do_nothing())
    tx.execute(update(Counter).where(Counter.name == name).values(value=Counter.value + by))


def count_attempt(tx: Session, outcome: str) -> None:
    """Count an attempt that ends in this transaction."""
    name = f"attempts/{outcome}"
    count(tx, name if name in ATTEMPTS else "attempts/other")


def read(tx: Session) -> dict[str, int]:
    """All counters; what has never happened is 0."""
    return dict.fromkeys((*COUNTERS, *ATTEMPTS), 0) | {row.name: row.value for row in tx.scalars(select(Counter))}
