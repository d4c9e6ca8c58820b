"""What a run and its controls show together: the gaps, the recovery, and the proof that they are pairs. No torch."""

from collections.abc import Iterable
from typing import Any, NamedTuple


class Twin(NamedTuple):
    """A control of a run; `results` is None until there are some, `job_id` is None outside the service."""

    method: str
    job_id: str | None
    results: dict[str, Any] | None


def pairing(results: dict[str, Any], twins: Iterable[Twin]) -> dict[str, Any]:
    """The ``pairing`` of the results JSON, from a run's own results and those of its twins.

    ``gap`` is the twin's test accuracy minus the run's. A twin is paired where its initial weights and its order of
    samples have the run's hashes; an unpaired one has neither gap nor a part in the recovery,
    (accuracy - shallow) / (bp - shallow).
    """
    own, accuracy = results["pairing"], _accuracy(results)
    rows, paired = [], {}
    for twin in twins:
        theirs = _accuracy(twin.results)
        is_paired = twin.results is not None and all(
            own[proof] is not None and own[proof] == twin.results["pairing"][proof]
            for proof in ("init_sha256", "order_sha256")
        )
        gap = theirs - accuracy if is_paired and theirs is not None and accuracy is not None else None
        rows.append(
            {"method": twin.method, "job_id": twin.job_id, "test_accuracy": theirs, "gap": gap, "paired": is_paired}
        )
        if gap is not None:
            paired[twin.method] = theirs
    return {**own, "twins": rows, "recovery": _recovery(accuracy, paired.get("bp"), paired.get("shallow"))}


def _accuracy(results: dict[str, Any] | None) -> float | None:
    value: float | None = ((results or {}).get("test") or {}).get("accuracy")
    return value


def _recovery(accuracy: float | None, bp: float | None, shallow: float | None) -> float | None:
    if accuracy is None or bp is None or shallow is None or bp == shallow:
        return None
    return (accuracy - shallow) / (bp - shallow)
