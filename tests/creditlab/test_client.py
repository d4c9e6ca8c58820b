"""The client against the real API: pages, waiting, errors, downloads."""

import json

import pytest

from creditlab.broker import free_port
from creditlab.client import ApiError, Client, Retries, Unreachable
from tests.stack import LONG_SPEC, QUICK_SPEC, creditlab, poll


@pytest.fixture
def lab(service):
    with Client(service.url) as client:
        yield client


def test_pages_are_joined(idle):
    ids = [idle.submit(QUICK_SPEC | {"labels": {"batch": "pages"}})["id"] for _ in range(103)]
    idle.submit(QUICK_SPEC)
    assert [job["id"] for job in idle.list(label="batch:pages")] == ids[::-1]
    assert [job["id"] for job in idle.list(label="batch:pages", limit=101)] == ids[:1:-1]
    assert list(idle.list(label="batch:none")) == []
    page = idle.page(limit=2, label="batch:pages")
    assert page["has_more"]
    assert [job["id"] for job in idle.page(limit=2, label="batch:pages", after=page["next"])["data"]] == ids[-3:-5:-1]


def test_waiting_ends_in_time(idle):
    job = idle.submit(QUICK_SPEC)
    with pytest.raises(TimeoutError, match="is queued after"):
        idle.wait(job["id"], timeout=0.1)
    assert idle.get(job["id"], wait=0.1)["status"] == "queued"


def test_a_problem_is_an_error_with_all_it_says(idle):
    with pytest.raises(ApiError, match="not valid") as caught:
        idle.submit({"method": "dfa", "model": "mlp", "dataset": "mnst"})
    assert caught.value.status == 422
    assert caught.value.code == "invalid_spec"
    assert caught.value.problem["errors"][0]["pointer"] == "#/dataset"
    with pytest.raises(ApiError) as caught:
        idle.get("job_00000000000000000000000000")
    assert caught.value.status == 404


def test_nobody_there():
    quick = Retries(times=1, first=0.01)
    with (
        Client(f"http://127.0.0.1:{free_port()}", retries=quick) as client,
        pytest.raises(Unreachable, match="no CreditLab service"),
    ):
        client.datasets()


def test_a_whole_job(lab, finished, tmp_path):
    job = lab.wait(finished)
    assert job["status"] == "succeeded"
    assert [event["seq"] for event in lab.events(finished)] == list(range(1, len(list(lab.events(finished))) + 1))
    assert len(list(lab.events(finished, after_seq=1))) == len(list(lab.events(finished))) - 1
    matrix = lab.alignment(finished, "delta_angle")
    assert matrix["layers"] == ["hidden1", "hidden2", "output"]
    cosines = lab.metrics(finished, ["alignment/delta_angle"])["series"]
    assert [row["points"][-1][2] for row in cosines if row["layer"] == "hidden1"] == [matrix["values"][0][-1]]
    into, to = (
        lab.download(finished, "spec.json", tmp_path),
        lab.download(finished, "spec.json", tmp_path / "other.json"),
    )
    assert into == tmp_path / "spec.json"
    assert into.read_bytes() == to.read_bytes()
    assert lab.method("dfa")["name"] == "dfa"
    assert {method["name"] for method in lab.methods()["data"]} >= {"bp", "shallow", "fa", "dfa"}


def test_cancel(lab):
    job = lab.submit(LONG_SPEC)
    poll(lambda: lab.get(job["id"])["status"] == "running")
    lab.cancel(job["id"])
    assert lab.wait(job["id"], timeout=30)["status"] == "cancelled"


def test_a_name_is_one_part_of_a_path(idle):
    for name in ("../jobs", "a/b?c#d", "%2e%2e"):
        with pytest.raises(ApiError) as caught:
            idle.dataset(name)
        assert caught.value.status == 404


def test_an_estimate_stores_nothing(idle):
    told = idle.estimate(QUICK_SPEC | {"labels": {"batch": "estimate"}})
    assert told["parameters"] > 0
    assert list(idle.list(label="batch:estimate")) == []


def test_keys_are_made_changed_and_revoked(idle):
    made = idle.create_key("ci", ["read"])
    with Client(idle.base_url, made["key"]) as own:
        assert own.page()["object"] == "list"
    assert idle.change_key(made["id"], name="nightly", scopes=["write"])["scopes"] == ["read", "write"]
    assert idle.keys(limit=1)["data"][0] == idle.key(made["id"])
    idle.revoke_key(made["id"])
    assert idle.key(made["id"])["revoked_at"]


def test_webhooks_are_made_changed_tried_and_deleted(idle):
    made = idle.create_webhook("http://127.0.0.1:9/", ["job.failed"], description="pager")
    assert made["secret"].startswith("whsec_")
    assert idle.rotate_webhook(made["id"])["secret"] != made["secret"]
    changed = idle.change_webhook(made["id"], types=["job.succeeded"])
    assert (changed["types"], changed["description"]) == (["job.succeeded"], "pager")
    assert idle.webhook(made["id"]) == changed
    sent = idle.test_webhook(made["id"])
    assert [one["id"] for one in idle.deliveries(made["id"])["data"]] == [sent["id"]]
    with pytest.raises(ApiError) as caught:
        idle.redeliver(made["id"], "del_none")
    assert caught.value.status == 404
    idle.delete_webhook(made["id"])
    assert made["id"] not in {one["id"] for one in idle.webhooks()["data"]}


def test_webhooks_on_the_command_line(idle):
    def run(*arguments):
        told = creditlab("webhooks", *arguments, env={"CREDITLAB_API_URL": idle.base_url})
        assert told.returncode == 0, told.stderr
        return told.stdout

    hook, secret = run("create", "http://127.0.0.1:9/", "--type", "job.failed", "--type", "job.succeeded").split()
    assert secret.startswith("whsec_")
    assert json.loads(run("list", "--json")) == idle.webhooks()
    assert "job.failed job.succeeded" in run("list")
    sent = run("test", hook).strip()
    assert sent in run("deliveries", hook)
    assert json.loads(run("deliveries", hook, "--json")) == idle.deliveries(hook)
    run("delete", hook)
    assert hook not in run("list")
    wrong = creditlab("webhooks", "create", "http://10.0.0.1/", env={"CREDITLAB_API_URL": idle.base_url})
    assert wrong.returncode == 1
    assert "#/url" in wrong.stderr
