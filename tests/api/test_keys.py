"""Who may do what: every operation of the document by every kind of key, and the keys' own operations."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from api.gate import scope_for
from lab import keys, tables
from tests import factories
from tests.api.conftest import Service, assert_problem
from tests.api.test_openapi import operations

NOBODY = "job_" + "0" * 26
PUBLIC = ["/livez", "/readyz", "/openapi.json", "/docs", "/problems/missing-key", "/nothing"]


def gated(service: Service) -> list[tuple[str, str, dict[str, Any]]]:
    """Every operation of the document that a key is asked for, on something that does not exist."""
    found = [one for one in operations(service.app.openapi()) if one[1].startswith("/v1/")]
    assert len(found) >= 19
    return [(method.upper(), path.replace("{", NOBODY + "{").split("{")[0], one) for method, path, one in found]


def test_without_a_key(guarded: Service) -> None:
    for method, path, _ in [*gated(guarded), ("GET", "/v1", {}), ("GET", "/v1/nothing", {}), ("BREW", "/v1/jobs", {})]:
        answer = guarded.client.request(method, path)
        assert_problem(answer, 401, "missing_key")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_with_a_key_that_opens_nothing(guarded: Service, project: str) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    expired, revoked = guarded.key(project, "admin", expires_at=past), guarded.key(project, "admin")
    with guarded.database.write() as tx:
        row = tx.scalar(select(tables.Key).where(tables.Key.sha256 == keys.hash_of(revoked)))
        assert row is not None
        keys.revoke(tx, row.id)
    wrong = [f"Bearer {key}" for key in (keys.make_secret(), "clk_" + "a" * 28, expired, revoked, "x")]
    for header in [*wrong, "Bearer", "Basic dXNlcjpwYXNz", f"Bearer {expired} {revoked}", "\xff"]:
        for method, path, _ in gated(guarded):
            answer = guarded.client.request(method, path, headers={"Authorization": header.encode("latin-1")})
            assert_problem(answer, 401, "invalid_key")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert not any(key[4:-4] in answer.text for key in (expired, revoked))


def test_two_keys_are_none(guarded: Service, project: str) -> None:
    good = ("Authorization", f"Bearer {guarded.key(project)}")
    assert_problem(guarded.client.get("/v1/jobs", headers=[good, good]), 401, "invalid_key")


@pytest.mark.parametrize("held", tables.SCOPES)
def test_every_scope_on_every_operation(guarded: Service, project: str, held: str) -> None:
    with guarded.holding(guarded.key(project, held)) as client:
        for method, path, operation in gated(guarded):
            needed = scope_for(method, path)
            assert operation["security"] == [{"key": [needed]}]
            answer = client.request(method, path)
            if tables.SCOPES.index(held) < tables.SCOPES.index(needed):
                assert assert_problem(answer, 403, "missing_scope")["required_scope"] == needed
            else:
                assert answer.status_code not in {401, 403, 429, 500}, (method, path)


def test_reading_commanding_and_keeping_keys_are_three_scopes(guarded: Service) -> None:
    needed = {(method, path): scope_for(method, path) for method, path, _ in gated(guarded)}
    assert needed["GET", "/v1/jobs"] == "read"
    assert needed["POST", "/v1/jobs"] == needed["DELETE", f"/v1/jobs/{NOBODY}"] == "write"
    assert {scope for (_, path), scope in needed.items() if path.startswith("/v1/keys")} == {"admin"}
    assert all(scope != "read" for (method, _), scope in needed.items() if method != "GET")


@pytest.mark.parametrize("path", PUBLIC)
def test_what_needs_no_key(guarded: Service, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Host": "lab.example"}):
        assert guarded.client.get(path, headers=headers).status_code == (404 if path == "/nothing" else 200)


def test_head_needs_what_get_needs(guarded: Service, project: str) -> None:
    assert guarded.client.head("/v1/jobs").status_code == 401
    with guarded.holding(guarded.key(project, "read")) as client:
        assert client.head("/v1/jobs").status_code == 200
        assert client.head("/v1/keys").status_code == 403


# ---- /v1/keys --------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_once_and_works(guarded: Service, project: str) -> None:
    with guarded.holding(guarded.key(project, "admin")) as admin:
        answer = admin.post("/v1/keys", json={"name": "notebook", "scopes": ["write"]})
        made = answer.json()
        assert answer.status_code == 201
        assert answer.headers["cache-control"] == "no-store"
        secret = made.pop("key")
        assert (made["name"], made["scopes"], made["project"]) == ("notebook", ["read", "write"], project)
        assert made["last4"] == secret[-4:]
        shown = admin.get(answer.headers["location"])
        assert shown.json() == made
        assert shown.headers["etag"] == answer.headers["etag"]
        with guarded.holding(secret) as client:
            assert client.post("/v1/jobs", json=factories.TINY).status_code == 202
            assert_problem(client.get("/v1/keys"), 403, "missing_scope")
        listed = admin.get("/v1/keys").json()["data"]
        assert [one["name"] for one in listed] == ["notebook", "of a test"]
        assert listed[0]["last_used_at"] is not None
        assert secret[4:-4] not in admin.get("/v1/keys").text


def test_the_list_is_cut_into_pages(guarded: Service, project: str) -> None:
    with guarded.holding(guarded.key(project, "admin")) as admin:
        for number in range(4):
            admin.post("/v1/keys", json={"name": str(number), "scopes": ["read"]})
        names, after = [], None
        while True:
            page = admin.get("/v1/keys", params={"limit": 2} | ({"after": after} if after else {})).json()
            names += [one["name"] for one in page["data"]]
            after = page["next"]
            if not page["has_more"]:
                break
        assert names == ["3", "2", "1", "0", "of a test"]
        assert_problem(admin.get("/v1/keys?after=x"), 400, "bad_cursor")


def test_revocation_holds_from_the_next_request_on(guarded: Service, project: str) -> None:
    with guarded.holding(guarded.key(project, "admin")) as admin:
        made = admin.post("/v1/keys", json={"name": "short", "scopes": ["read"]}).json()
        with guarded.holding(made["key"]) as client:
            assert client.get("/v1/jobs").status_code == 200
            assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204
            assert_problem(client.get("/v1/jobs"), 401, "invalid_key")
        assert admin.delete(f"/v1/keys/{made['id']}").status_code == 204
        assert admin.get(f"/v1/keys/{made['id']}").json()["revoked_at"] is not None


def test_a_change_needs_what_was_read(guarded: Service, project: str) -> None:
    with guarded.holding(guarded.key(project, "admin")) as admin:
        made = admin.post("/v1/keys", json={"name": "a", "scopes": ["read"], "expires_at": "2990-01-01T00:00:00Z"})
        path, tag = made.headers["location"], made.headers["etag"]

        def change(body: Any, **headers: str) -> httpx.Response:
            return admin.patch(
                path, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()}
            )

        assert_problem(change({"name": "b"}), 428, "precondition_required")
        changed = change({"name": "b"}, if_match=tag)
        assert changed.json() == admin.get(path).json()
        assert (changed.json()["name"], changed.json()["scopes"]) == ("b", ["read"])
        assert changed.headers["etag"] != tag
        assert_problem(change({"name": "c"}, if_match=tag), 412, "version_mismatch")
        both = change({"scopes": ["write", "read"], "expires_at": None}, if_match=changed.headers["etag"]).json()
        assert (both["scopes"], both["expires_at"], both["name"]) == (["read", "write"], None, "b")
        assert change({}, if_match="*").status_code == 200
        assert_problem(admin.patch(f"/v1/keys/{NOBODY}", json={}, headers={"If-Match": "*"}), 404, "not_found")


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["#/name", "#/scopes"]),
        ([], ["#"]),
        ("x", ["#"]),
        ({"name": "", "scopes": []}, ["#/name", "#/scopes"]),
        ({"name": "x" * 201, "scopes": ["read"]}, ["#/name"]),
        ({"name": 5, "scopes": "read"}, ["#/name", "#/scopes"]),
        ({"name": "a", "scopes": ["read", "root"]}, ["#/scopes/1"]),
        ({"name": "a", "scopes": ["read"], "key": "clk_mine"}, ["#/key"]),
        ({"name": "a", "scopes": ["read"], "expires_at": "tomorrow"}, ["#/expires_at"]),
        ({"name": "a", "scopes": ["read"], "expires_at": 1e9}, ["#/expires_at"]),
        ({"name": "a", "scopes": ["read"], "expires_at": "2020-01-01T00:00:00Z"}, ["#/expires_at"]),
        ({"name": "a", "scopes": ["read"], "expires_at": "0001-01-01T00:00:00+14:00"}, ["#/expires_at"]),
    ],
)
def test_wrong_bodies(guarded: Service, project: str, body: Any, pointers: list[str]) -> None:
    with guarded.holding(guarded.key(project, "admin")) as admin:
        before = guarded.rows()
        document = assert_problem(admin.post("/v1/keys", json=body), 422, "invalid_body")
        assert [error["pointer"] for error in document["errors"]] == pointers
        assert guarded.rows() == before


def test_events_name_the_key_that_gave_the_command(guarded: Service, project: str) -> None:
    with guarded.holding(guarded.key(project, "admin")) as admin:
        made = admin.post("/v1/keys", json={"name": "other", "scopes": ["write"]}).json()
        own = next(one["id"] for one in admin.get("/v1/keys").json()["data"] if one["name"] == "of a test")
        job = admin.post("/v1/jobs", json=factories.TINY).json()["id"]
        with guarded.holding(made["key"]) as client:
            client.post(f"/v1/jobs/{job}/cancel")
        assert [one["key_id"] for one in admin.get(f"/v1/jobs/{job}/events").json()["data"]] == [own, made["id"]]


def test_keys_are_found_nowhere(guarded: Service, project: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    secret = guarded.key(project, "admin")
    with guarded.holding(secret) as admin:
        other = admin.post("/v1/keys", json={"name": "x", "scopes": ["read"]}).json()["key"]
        admin.post("/v1/jobs", json=factories.TINY, headers={"Idempotency-Key": "a"})
    with guarded.database.read() as tx:
        dump = repr([tx.execute(select(table)).all() for table in tables.metadata.sorted_tables])
    files = [path.read_bytes() for path in guarded.settings.data_dir.rglob("*") if path.is_file()]
    for key in (secret, other):
        assert keys.hash_of(key) in dump
        own = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
        assert key[4:-4] not in dump + " ".join(record.getMessage() for record in own)
        assert not any(key[4:-4].encode() in content for content in files)
