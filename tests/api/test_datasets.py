"""A user's own data sets over HTTP: taken, refused with the reason, kept once, and safe from those who delete them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from api import schemas
from credit import spec
from lab import jobs
from lab.settings import Settings
from tests import factories
from tests.api.conftest import Service, assert_problem, serving
from tests.credit.upload_files import BAD, GOOD, Part, npz, one

LIMIT = 4 << 20


@pytest.fixture
def narrow(alone: Settings) -> Iterator[Service]:
    """The API with limits that a test can reach."""
    limits = {"upload_limit_bytes": LIMIT, "upload_decoded_bytes": 64 << 20}
    with serving(alone.model_copy(update=limits)) as running:
        yield running


def send(service: Service, parts: list[Part], name: str = "mine", **fields: str) -> httpx.Response:
    return service.client.post("/v1/datasets", files=parts, data={"name": name} | fields)


def stored(service: Service) -> list[Path]:
    """The files of data sets: in the store, on their way there, or copied for a run."""
    folders = service.settings.artifacts_dir / "datasets", service.settings.uploads_dir
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def clean(service: Service) -> Service:
    """The service without files of other tests."""
    for path in stored(service):
        path.unlink()
    return service


def assert_nothing_is_stored(service: Service) -> None:
    assert not stored(service)
    assert service.rows()["datasets"] == 0


@pytest.mark.parametrize("case", ["npz", "idx", "cifar10", "folders", "parquet"])
def test_send_and_show(clean: Service, case: str) -> None:
    parts, shape, kind = GOOD[case]
    answer = send(clean, parts, description="of my own")
    row = answer.json()
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/datasets/{row['id']}"
    assert set(row) == set(schemas.Dataset.model_fields)
    assert (row["name"], row["shape"], row["format"], row["classes"]) == ("mine", shape, kind, 3)
    assert (row["train_images"], row["test_images"], row["summary"]) == (12, 6, "of my own")
    assert [path.parent.name for path in stored(clean)] == [row["sha256"]]
    assert stored(clean)[0].stat().st_size == row["bytes"]
    for key in (row["id"], "mine"):
        assert clean.client.get(f"/v1/datasets/{key}").json() == row
    listed = clean.client.get("/v1/datasets").json()["data"]
    assert listed[-1] == row
    assert len(listed) == len(spec.menu(spec.Dataset)) + 1


def test_the_same_content_is_kept_once(clean: Service) -> None:
    raw = npz()
    first = send(clean, one(raw))
    again = send(clean, one(raw), "another")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert len(stored(clean)) == 1
    document = assert_problem(send(clean, one(npz())), 409, "name_taken")
    assert first.json()["id"] in document["detail"]
    assert len(stored(clean)) == 1


def test_sent_by_many_at_once(clean: Service) -> None:
    raw = npz()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda k: send(clean, one(raw), f"mine-{k}"), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert [path.parent.name for path in stored(clean)] == [answers[0].json()["sha256"]]


def test_a_check_that_takes_too_long_is_ended(alone: Settings) -> None:
    with serving(alone.model_copy(update={"upload_seconds": 0.01})) as hasty:
        document = assert_problem(send(hasty, one(npz())), 422, "invalid_dataset")
        assert "0.01 s" in document["detail"]
        assert_nothing_is_stored(hasty)


@pytest.mark.parametrize(
    "case",
    ["nothing", "parent folder", "encoded", "link in zip", "link in tar", "pickled", "label beyond", "three idx files"],
)
def test_refusals(clean: Service, case: str) -> None:
    document = assert_problem(send(clean, BAD[case][0]), 422, "invalid_dataset")
    (error,) = document["errors"]
    assert error["parameter"] == "file"
    assert_nothing_is_stored(clean)


@pytest.mark.parametrize("case", ["zip bomb", "tar bomb", "gzip bomb"])
def test_bombs(narrow: Service, case: str) -> None:
    document = assert_problem(send(narrow, BAD[case][0]), 422, "invalid_dataset")
    assert BAD[case][1] in document["detail"]
    assert_nothing_is_stored(narrow)


@pytest.mark.parametrize("name", ["", "Mine", "../x", "ds_mine", "a" * 65, "a b", "ü", "\0"])
def test_names(clean: Service, name: str) -> None:
    document = assert_problem(send(clean, one(npz()), name), 422, "invalid_dataset")
    assert document["errors"][0]["parameter"] == "name"
    assert_nothing_is_stored(clean)


def test_forms(clean: Service) -> None:
    client, parts = clean.client, one(npz())
    assert_problem(send(clean, parts, "mnist"), 409, "name_taken")
    for body, wrong in (
        ({"files": parts}, "name"),
        ({"files": [("name", (None, "mine"))]}, "file"),
        ({"files": [*parts, ("name", (None, "mine")), ("name", (None, "two"))]}, "name"),
        ({"files": [*parts, ("name", (None, "mine")), ("colour", (None, "red"))]}, "colour"),
        ({"files": [*parts, ("other", ("a", b"a"))], "data": {"name": "mine"}}, "other"),
        ({"files": [*parts, *parts], "data": {"name": "mine"}}, "file"),
        ({"files": parts, "data": {"name": "mine", "description": "x" * 2001}}, "description"),
    ):
        document = assert_problem(client.post("/v1/datasets", **body), 422, "invalid_dataset")  # type: ignore[arg-type]
        assert document["errors"][0]["parameter"] == wrong
    for files in ([*parts] * 5, [*parts, *[(f"f{k}", (None, "x")) for k in range(9)]]):
        assert_problem(client.post("/v1/datasets", files=files), 400, "malformed_form")
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    for raw in (b"", b"hello", b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc'):
        answer = client.post("/v1/datasets", content=raw, headers=form)
        assert 400 <= answer.status_code < 500, answer.text
    assert_problem(
        client.post("/v1/datasets", content=b"x", headers={"Content-Type": "multipart/form-data"}),
        400,
        "malformed_form",
    )
    assert_problem(client.post("/v1/datasets", json={"name": "mine"}), 415, "unsupported_media_type")
    assert_problem(client.post("/v1/datasets"), 415, "unsupported_media_type")
    assert_problem(client.post("/v1/jobs", files=parts), 415, "unsupported_media_type")
    assert_problem(client.post("/v1/datasets?x=1", files=parts, data={"name": "mine"}), 422, "invalid_parameter")
    assert_nothing_is_stored(clean)


def chunks(size: int) -> Iterator[bytes]:
    """A form with a file of so many zeros, whose length nobody announces."""
    yield b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nmine\r\n'
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.npz"\r\n\r\n'
    for _ in range(size >> 16):
        yield bytes(1 << 16)
    yield b"\r\n--x--\r\n"


def test_the_limit_is_counted_while_the_body_is_read(narrow: Service) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = narrow.client.post("/v1/datasets", content=chunks(2 * LIMIT), headers=headers)
    assert_problem(answer, 413, "body_too_large")
    answer = narrow.client.post("/v1/datasets", content=b"".join(chunks(2 * LIMIT)), headers=headers)
    assert str(LIMIT) in assert_problem(answer, 413, "body_too_large")["detail"]
    answer = narrow.client.post("/v1/datasets", content=chunks(LIMIT // 2), headers=headers)
    assert_problem(answer, 422, "invalid_dataset")
    assert_nothing_is_stored(narrow)


# ---- in specs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(clean: Service) -> dict[str, Any]:
    row: dict[str, Any] = send(clean, GOOD["npz"][0]).json()
    return row


def test_a_spec_names_it_by_id_or_name_and_says_all_of_it(clean: Service, mine: dict[str, Any]) -> None:
    facts = {name: mine[name] for name in ("sha256", "shape", "classes", "train_images", "test_images")}
    for dataset in (mine["id"], "mine", {"name": "mine"}, {"name": mine["id"], "train_samples": 9}):
        answer = clean.client.post("/v1/jobs", json=factories.TINY | {"dataset": dataset})
        told = answer.json()["spec"]["dataset"]
        assert told["name"] == mine["id"]
        assert told | facts == told
        again = clean.client.post("/v1/jobs?dry_run=true", json=answer.json()["spec"])
        assert again.json()["spec"] == answer.json()["spec"]
    assert len(clean.client.get(f"/v1/jobs?dataset={mine['id']}").json()["data"]) == 4


@pytest.mark.parametrize(
    ("dataset", "pointer"),
    [
        ("ds_0000", "#/dataset"),
        ({"name": "ds_0000"}, "#/dataset/name"),
        ({"name": "mine", "train_samples": 13}, "#/dataset/train_samples"),
        ({"name": "mine", "sha256": "0" * 64}, "#/dataset/sha256"),
        ({"name": "mine", "shape": [1, 8, 8]}, "#/dataset/shape"),
        ({"name": "mine", "colour": 1}, "#/dataset/colour"),
        ("yours", "#/dataset"),
    ],
)
def test_specs_that_say_something_else(clean: Service, mine: dict[str, Any], dataset: Any, pointer: str) -> None:
    before = clean.rows()
    answer = clean.client.post("/v1/jobs", json=factories.TINY | {"dataset": dataset})
    assert [error["pointer"] for error in assert_problem(answer, 422, "invalid_spec")["errors"]] == [pointer]
    assert clean.rows() == before


def test_models_that_cannot_take_it_are_refused_with_the_reason(clean: Service, mine: dict[str, Any]) -> None:
    body = factories.TINY | {"dataset": "mine"}
    for model, status in (
        ({"name": "mlp"}, 200),
        ({"name": "cnn"}, 200),
        ({"name": "mlp_mixer", "patch_size": 4}, 200),
        ({"name": "mlp_mixer", "patch_size": 3}, 422),
    ):
        answer = clean.client.post("/v1/jobs?dry_run=true", json=body | {"model": model})
        assert answer.status_code == status, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == ["#/model/patch_size"]


def test_it_stays_while_a_job_needs_it(clean: Service, mine: dict[str, Any]) -> None:
    job_id = clean.submit(dataset="mine")
    document = assert_problem(clean.client.delete("/v1/datasets/mine"), 409, "dataset_in_use")
    assert document["job_id"] == job_id
    with clean.database.write() as tx:
        jobs.cancel(tx, job_id)
    assert clean.client.delete(f"/v1/datasets/{mine['id']}").status_code == 204
    assert_nothing_is_stored(clean)
    assert_problem(clean.client.get("/v1/datasets/mine"), 404, "not_found")
    assert_problem(clean.client.delete("/v1/datasets/mine"), 404, "not_found")
    assert_problem(clean.client.post("/v1/jobs", json=factories.TINY | {"dataset": mine["id"]}), 422, "invalid_spec")
    assert send(clean, GOOD["npz"][0]).status_code == 201


def test_what_comes_with_creditlab_stays(clean: Service) -> None:
    assert_problem(clean.client.delete("/v1/datasets/mnist"), 409, "built_in")


def test_a_wrong_size_of_images_is_no_server_error(clean: Service) -> None:
    tall = npz(x_train=np.zeros((12, 1024, 1), np.uint8), x_test=np.zeros((6, 1024, 1), np.uint8))
    assert send(clean, one(tall)).status_code == 201
    answer = clean.client.post("/v1/jobs?dry_run=true", json=factories.TINY | {"dataset": "mine", "model": "lenet"})
    assert_problem(answer, 422, "invalid_spec")
