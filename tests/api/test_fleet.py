"""Workers and the queue over HTTP."""

from lab import fleet
from tests.api.conftest import Service, assert_problem


def test_workers(service: Service) -> None:
    assert service.client.get("/v1/workers").json() == {"object": "list", "data": [], "has_more": False, "next": None}
    assert_problem(service.client.get("/v1/workers?limit=1"), 422, "invalid_parameter")


def test_the_queue_in_pages(service: Service) -> None:
    ids = [service.submit() for _ in range(5)]
    seen, path = [], "/v1/queue?limit=2"
    while path:
        answer = service.client.get(path)
        seen += [(entry["position"], entry["job_id"], entry["reason"]) for entry in answer.json()["data"]]
        path = answer.links["next"]["url"] if answer.json()["has_more"] else ""
    assert seen == [(place, job_id, "no_worker") for place, job_id in enumerate(ids, 1)]
    assert_problem(service.client.get("/v1/queue?after=x"), 400, "bad_cursor")


def test_one_job(service: Service) -> None:
    service.submit()
    job_id = service.submit()
    with service.database.read() as tx:
        assert service.client.get(f"/v1/queue?job={job_id}").json() == fleet.queued(tx, job_id)
    assert_problem(service.client.get("/v1/queue?job=job_none"), 404, "not_found")
