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


def count(tx: Session, name: str, by: int = 1) -> None:
    """Count something that this transaction does."""
    assert name in COUNTERS
    insert = postgresql.insert if tx.get_bind().dialect.name == "postgresql" else sqlite.insert
    tx.execute(insert(Counter).values(name=name, value=0).on_conflict_do_nothing())
    tx.execute(update(Counter).where(Counter.name == name).values(value=Counter.value + by))


def read(tx: Session) -> dict[str, int]:
    """All counters; what has never happened is 0."""
    return dict.fromkeys(COUNTERS, 0) | {row.name: row.value for row in tx.scalars(select(Counter))}
