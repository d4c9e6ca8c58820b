"""A pair is proven by its hashes; gap and recovery are null where it is not."""

import pytest

from credit.pairing import Twin, pairing

HASHES = {"init_sha256": "i", "order_sha256": "o"}


def results(accuracy, **hashes):
    return {"test": {"accuracy": accuracy, "loss": 0.0}, "pairing": {**HASHES, **hashes}}


def test_gap_and_recovery():
    twins = [Twin("bp", "job_b", results(0.9)), Twin("shallow", "job_s", results(0.5))]
    assert pairing(results(0.8), twins) == {
        **HASHES,
        "twins": [
            {"method": "bp", "job_id": "job_b", "test_accuracy": 0.9, "gap": pytest.approx(0.1), "paired": True},
            {"method": "shallow", "job_id": "job_s", "test_accuracy": 0.5, "gap": pytest.approx(-0.3), "paired": True},
        ],
        "recovery": pytest.approx(0.75),
    }


@pytest.mark.parametrize("proof", HASHES)
def test_a_twin_from_elsewhere_is_no_pair(proof):
    twins = [Twin("bp", None, results(0.9, **{proof: "other"})), Twin("shallow", None, results(0.5))]
    told = pairing(results(0.8), twins)
    assert told["twins"][0] == {"method": "bp", "job_id": None, "test_accuracy": 0.9, "gap": None, "paired": False}
    assert told["recovery"] is None


def test_what_is_not_known_yet_is_null():
    told = pairing(results(None), [Twin("bp", "job_b", None), Twin("shallow", "job_s", results(0.5))])
    assert [(twin["gap"], twin["paired"]) for twin in told["twins"]] == [(None, False), (None, True)]
    assert told["recovery"] is None


def test_recovery_needs_a_span():
    twins = [Twin("bp", None, results(0.5)), Twin("shallow", None, results(0.5))]
    assert pairing(results(0.5), twins)["recovery"] is None
