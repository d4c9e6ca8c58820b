"""The OpenAPI document: valid, complete, and the one that was reviewed."""

import json
import sys
from pathlib import Path
from typing import Any

from fastapi.openapi.models import OpenAPI

from api.app import create_app
from lab.settings import Settings
from tests.api.conftest import Service

SNAPSHOT = Path(__file__).with_name("openapi.json")
METHODS = {"get", "post", "put", "patch", "delete"}


def document(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = create_app(Settings(data_dir=folder, auth="required")).openapi()
    return made


def written(made: dict[str, Any]) -> str:
    return json.dumps(made, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(member) for member in node.values()))
    return set().union(*(references(item) for item in node)) if isinstance(node, list) else set()


def operations(made: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, one) for path, all_of in made["paths"].items() for method, one in all_of.items()]


def test_snapshot(tmp_path: Path) -> None:
    regenerate = (
        f"the API has changed; if that is meant, run: python -m tests.api.test_openapi  (writes {SNAPSHOT.name})"
    )
    assert SNAPSHOT.exists(), regenerate
    assert written(document(tmp_path)) == SNAPSHOT.read_text(), regenerate


def test_valid(tmp_path: Path) -> None:
    made = document(tmp_path)
    OpenAPI.model_validate(made)
    for reference in references(made):
        node: Any = made
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    names = [one["operationId"] for _, _, one in operations(made)]
    assert len(names) == len(set(names))
    assert all(one["description"] and one["tags"] for _, _, one in operations(made))


def test_every_error_is_a_problem(tmp_path: Path) -> None:
    made = document(tmp_path)
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for method, path, one in operations(made):
        assert method in METHODS
        failures = {status: answer for status, answer in one["responses"].items() if int(status) >= 400}
        assert {"403", "422", "500", "503"} <= set(failures), path
        assert all(answer["content"] == problem for answer in failures.values()), path
    assert not {"HTTPValidationError", "ValidationError"} & set(made["components"]["schemas"])


def test_the_body_of_a_job_admits_bare_names(tmp_path: Path) -> None:
    schemas = document(tmp_path)["components"]["schemas"]
    bare, full = schemas["JobCreate"]["properties"]["method"]["anyOf"]
    assert "dfa" in bare["enum"]
    assert full["discriminator"]["propertyName"] == "name"
    assert schemas["JobCreate"]["required"] == ["method", "model", "dataset"]
    assert schemas["SpecDFA"]["required"] == ["name"]
    assert schemas["Job"]["properties"]["spec"] == {"$ref": "#/components/schemas/Spec"}


def test_what_was_made_links_to_what_can_be_done_with_it(tmp_path: Path) -> None:
    made = document(tmp_path)
    links = made["paths"]["/v1/jobs"]["post"]["responses"]["202"]["links"]
    assert links["jobs_cancel"] == {"operationId": "jobs_cancel", "parameters": {"job_id": "$response.body#/id"}}
    names = {one["operationId"] for _, path, one in operations(made) if path.startswith("/v1/jobs/{job_id}")}
    assert set(links) == names - {"series_artifact"}  # which wants another name


def test_without_keys_none_is_asked_for(tmp_path: Path) -> None:
    made: dict[str, Any] = create_app(Settings(data_dir=tmp_path, auth="off")).openapi()
    assert "securitySchemes" not in made["components"]
    assert not any("security" in one or "401" in one["responses"] for _, _, one in operations(made))


def test_served(shared: Service) -> None:
    answer = shared.client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["openapi"].startswith("3.1")


if __name__ == "__main__":
    import tempfile

    SNAPSHOT.write_text(written(document(Path(tempfile.mkdtemp()))))
    sys.stdout.write(f"wrote {SNAPSHOT}\n")
