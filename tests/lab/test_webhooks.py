"""Messages are written with what they tell of, sent until they are received, and signed as the standard says."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import standardwebhooks
from sqlalchemy import func, select, update

from credit.events import Diagnosed
from lab import addresses, attempts, deliveries, jobs, signatures, tables, webhooks
from lab.db import now
from lab.errors import InvalidFields, LabError, VersionMismatch
from tests import factories

SECRET = "the secret of this test's service"
LOOPBACK = addresses.networks("127.0.0.0/8")
URL = "http://127.0.0.1:9/hook"


def hook(database, **wishes):
    with database.write() as tx:
        return webhooks.create(tx, webhooks.Wishes(url=URL, **wishes), service_secret=SECRET)[0].id


def messages(database):
    with database.read() as tx:
        rows = tx.scalars(select(tables.Delivery).order_by(tables.Delivery.id))
        return [(row.webhook_id, row.type, json.loads(row.body)) for row in rows]


def submit(database):
    with database.write() as tx:
        return jobs.submit(tx, factories.tiny(name="mine")).id


def claim_job(database):
    with database.write() as tx:
        return attempts.claim(tx, "wrk_test", cuda=False)


def claim(database):
    with database.write() as tx:
        return deliveries.claim(tx, deliveries.due(tx, [], 10))


def settle(database, errand, status, error, seconds=0.01):
    with database.write() as tx:
        return deliveries.settle(tx, errand, status, error, seconds)


def tries(database):
    """(number, status, error, milliseconds) of each try of the one message."""
    with database.read() as tx:
        (told,) = deliveries.views(tx, list(tx.scalars(select(tables.Delivery))))
    return [(one["number"], one["answer_status"], one["error"], one["duration_ms"]) for one in told["tries"]]


def make_due(database):
    with database.write() as tx:
        pending = update(tables.Delivery).where(tables.Delivery.status == "pending")
        tx.execute(pending.values(next_at=now(tx) - timedelta(seconds=1)))


def row(database):
    with database.read() as tx:
        return tx.scalars(select(tables.Delivery)).one()


# ---- what is told ----------------------------------------------------------------------------------------------------


def test_what_happens_to_a_job_is_told(database):
    everything, ends = hook(database), hook(database, types=["job.failed", "job.cancelled"])
    job_id = submit(database)
    assert messages(database) == []
    attempt = claim_job(database)
    with database.write() as tx:
        attempts.fail(tx, attempt, "user_error", "no such thing")
    (first, started, told), *others = messages(database)
    assert (first, started) == (everything, "job.started")
    assert told["type"] == "job.started"
    assert datetime.fromisoformat(told["timestamp"]).tzinfo == UTC
    links = {"self": f"/v1/jobs/{job_id}", "results": f"/v1/jobs/{job_id}/results"}
    data = {"job_id": job_id, "name": "mine", "status": "running", "attempt": 1, "links": links}
    assert told["data"] == data
    assert sorted((to, type_) for to, type_, _ in others) == sorted([(everything, "job.failed"), (ends, "job.failed")])
    error = {"code": "user_error", "message": "no such thing"}
    assert others[0][2]["data"] == data | {"status": "failed", "error": error}


def test_diagnoses_are_told_and_stay_small(database):
    hook(database, types=["job.diagnosed"])
    submit(database)
    attempt = claim_job(database)
    found = Diagnosed(step=3, code="dead_layer", layer=None, evidence="x" * 9000, advice="look")
    with database.write() as tx:
        attempts.record(tx, attempt, [factories.started(), found])
    ((_, type_, told),) = messages(database)
    assert type_ == "job.diagnosed"
    assert told["data"]["diagnosis"]["code"] == "dead_layer"
    assert len(json.dumps(told)) < 20_000


def test_a_message_is_stored_with_its_event_or_not_at_all(database):
    hook(database)
    job_id = submit(database)
    with pytest.raises(RuntimeError), database.write() as tx:  # noqa: PT012
        jobs.cancel(tx, job_id)
        raise RuntimeError
    assert messages(database) == []
    with database.write() as tx:
        jobs.cancel(tx, job_id)
    assert [type_ for _, type_, _ in messages(database)] == ["job.cancelled"]


def test_a_disabled_webhook_is_told_nothing(database):
    hook(database, enabled=False)
    submit(database)
    claim_job(database)
    assert messages(database) == []


# ---- sending ---------------------------------------------------------------------------------------------------------


def test_signatures_are_those_of_the_reference_library(database):
    secret, body = signatures.new_secret(), '{"type": "job.failed", "data": {"name": "Größe"}}'
    moment = int(datetime.now(UTC).timestamp())
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(moment),
        "webhook-signature": signatures.sign(secret, "msg_1", moment, body.encode()),
    }
    assert standardwebhooks.Webhook(secret).verify(body, headers)["type"] == "job.failed"
    with pytest.raises(standardwebhooks.webhooks.WebhookVerificationError):
        standardwebhooks.Webhook(signatures.new_secret()).verify(body, headers)


def test_a_secret_is_of_no_use_without_the_services_own(database):
    with database.write() as tx:
        row, secret = webhooks.create(tx, webhooks.Wishes(url=URL), service_secret=SECRET)
        assert secret.startswith("whsec_")
        assert secret.removeprefix("whsec_") not in row.secret
        assert signatures.unseal(SECRET, row.secret) == secret
        with pytest.raises(ValueError, match="CREDITLAB_SECRET_KEY"):
            signatures.unseal("another secret of a service", row.secret)


def test_one_sender_has_a_message_until_its_time_is_over(database):
    hook(database, types=["job.started"])
    submit(database)
    claim_job(database)
    (first,) = claim(database)
    assert claim(database) == []
    make_due(database)  # as when its sender has died
    (second,) = claim(database)
    assert (second.id, second.body, second.number) == (first.id, first.body, 2)
    assert not settle(database, first, 200, None), "it is not its message any more"
    assert settle(database, second, 200, None)
    make_due(database)
    assert claim(database) == []
    assert (row(database).status, row(database).answer_status, row(database).error) == ("delivered", 200, None)


def test_every_try_is_kept_also_one_that_came_too_late_and_one_that_never_said_how_it_went(database):
    hook(database, types=["job.started"])
    submit(database)
    claim_job(database)
    errands = []
    for _ in range(3):
        errands += claim(database)
        make_due(database)
    assert tries(database) == [(number, None, None, None) for number in (1, 2, 3)]
    assert not settle(database, errands[0], None, "ReadTimeout: no answer", 15.0)
    assert settle(database, errands[2], 204, None, 0.0123456)
    assert tries(database) == [
        (1, None, "ReadTimeout: no answer", 15_000.0),
        (2, None, None, None),
        (3, 204, None, 12.346),
    ]


def test_of_one_message_the_last_tries_are_kept_and_go_with_it(database):
    webhook_id = hook(database, types=["job.started"])
    submit(database)
    claim_job(database)
    for _ in range(deliveries.TRIES_KEPT + 2):
        claim(database)
        make_due(database)
    assert [number for number, *_ in tries(database)] == list(range(3, deliveries.TRIES_KEPT + 3))
    with database.write() as tx:
        webhooks.delete(tx, webhook_id)
    with database.read() as tx:
        assert tx.scalar(select(func.count()).select_from(tables.Try)) == 0


def test_the_oldest_message_of_each_webhook_that_is_not_busy(database):
    first, second = hook(database), hook(database)
    for _ in range(2):
        submit(database)
        claim_job(database)
    with database.write() as tx:
        assert {errand.webhook_id for errand in deliveries.claim(tx, deliveries.due(tx, [first], 10))} == {second}
        assert len(deliveries.due(tx, [], 10)) == 2
        assert len(deliveries.due(tx, [], 1)) == 1
        assert deliveries.due(tx, [], 0) == []


def test_it_is_tried_six_times_more_at_growing_distances(database):
    hook(database, types=["job.started"])
    submit(database)
    claim_job(database)
    for seconds in (5, 300, 1800, 7200, 18_000, 36_000, None):
        (errand,) = claim(database)
        with database.write() as tx:
            before = now(tx)
            assert deliveries.settle(tx, errand, 500, "the receiver answered 500", 0.002)
        if seconds is None:
            break
        wait = (row(database).next_at - before).total_seconds()
        assert seconds <= wait <= seconds * (1 + deliveries.JITTER) + 1
        make_due(database)
    assert (row(database).status, row(database).attempts, row(database).next_at) == ("failed", 7, None)
    assert tries(database) == [(number, 500, "the receiver answered 500", 2.0) for number in range(1, 8)]
    assert claim(database) == []


def test_410_disables_the_webhook(database):
    webhook_id = hook(database)
    for _ in range(2):
        submit(database)
        claim_job(database)
    (errand,) = claim(database)
    settle(database, errand, 410, "the receiver answered 410")
    with database.read() as tx:
        gone = webhooks.get(tx, webhook_id)
        assert (gone.enabled, gone.disabled_reason) == (False, "its receiver answered 410")
        assert set(tx.scalars(select(tables.Delivery.status))) == {"failed"}
    submit(database)
    claim_job(database)
    assert len(messages(database)) == 2
    with database.write() as tx, pytest.raises(LabError, match="disabled"):
        webhooks.test(tx, webhook_id)


def test_a_message_is_sent_again_on_request(database):
    webhook_id = hook(database, types=["job.started"])
    submit(database)
    claim_job(database)
    (errand,) = claim(database)
    settle(database, errand, 200, None)
    with database.write() as tx:
        deliveries.again(tx, webhooks.get(tx, webhook_id), errand.id)
    (second,) = claim(database)
    assert (second.id, second.body) == (errand.id, errand.body)


def test_a_rotated_secret_signs_beside_the_new_one_for_a_day(database):
    webhook_id = hook(database, types=["job.started"])
    with database.write() as tx:
        _, secret = webhooks.rotate(tx, webhook_id, service_secret=SECRET)
    submit(database)
    claim_job(database)
    (errand,) = claim(database)
    assert len(errand.secrets) == 2
    assert signatures.unseal(SECRET, errand.secrets[0]) == secret
    with database.write() as tx:
        tx.execute(update(tables.Webhook).values(old_secret_until=now(tx)))
    make_due(database)
    assert len(claim(database)[0].secrets) == 1


def test_old_messages_are_forgotten(database):
    hook(database, types=["job.started"])
    for _ in range(2):
        submit(database)
        claim_job(database)
    (errand,) = claim(database)
    settle(database, errand, 200, None)
    with database.write() as tx:
        tx.execute(update(tables.Delivery).values(created_at=now(tx) - deliveries.KEPT - timedelta(days=1)))
        deliveries.forget(tx)
    assert row(database).status == "pending"


# ---- what a user may wish --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ([], ["#"]),
        ({}, ["#/url"]),
        ({"url": 3}, ["#/url"]),
        ({"url": "https://127.0.0.2.nip.invalid/"}, ["#/url"]),
        ({"url": "http://10.0.0.1/"}, ["#/url"]),
        ({"url": URL, "types": []}, ["#/types"]),
        ({"url": URL, "types": ["job.exploded"]}, ["#/types"]),
        ({"url": URL, "types": [[]]}, ["#/types"]),
        (
            {"url": URL, "types": "job.failed", "description": 1, "enabled": 1},
            ["#/types", "#/description", "#/enabled"],
        ),
        ({"url": URL, "description": "x" * 501}, ["#/description"]),
        ({"url": URL, "sec/ret": "mine"}, ["#/sec~1ret"]),
    ],
)
def test_wrong_wishes(body, pointers):
    with pytest.raises(InvalidFields) as refused:
        webhooks.parse(body, LOOPBACK, new=True)
    assert [error["pointer"] for error in refused.value.extra["errors"]] == pointers


def test_changes_need_the_version_that_is_there(database):
    webhook_id = hook(database)
    with database.write() as tx:
        changed = webhooks.change(tx, webhook_id, webhooks.Wishes(types=["job.failed"], enabled=False), '"1"'.__eq__)
        assert (changed.types, changed.enabled, changed.url) == (["job.failed"], False, URL)
        version = changed.version
    with database.write() as tx, pytest.raises(VersionMismatch):
        webhooks.change(tx, webhook_id, webhooks.Wishes(enabled=True), '"1"'.__eq__)
    with database.write() as tx:
        assert (
            webhooks.change(tx, webhook_id, webhooks.Wishes(enabled=True), f'"{version}"'.__eq__).disabled_reason
            is None
        )


def test_there_is_an_end_to_webhooks(database):
    for _ in range(webhooks.MOST):
        hook(database)
    with pytest.raises(LabError, match="the most"):
        hook(database)
