"""The files of the deployment agree with each other and with the program; no engine is needed.

``compose/compose-spec.json`` is the one of docker-compose 1.29.2 (Apache-2.0, Docker Inc.), the stricter of the two
programs that the files are for. With real containers: ``make compose-test``.
"""

import itertools
import json
import re
import subprocess
import tomllib
from pathlib import Path

import jsonschema_rs
import pytest
import typer
import yaml
from prometheus_client import generate_latest
from sqlalchemy import make_url

from api.app import create_app
from api.middleware import is_loopback
from creditlab.cli import app
from lab.db import Database
from lab.settings import Settings

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (FOLDER / "Dockerfile").read_text().replace("\\\n", " ")
LOCK = (ROOT / "requirements.lock").read_text()
FILES = {path.name: yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("compose*.yaml"))}
OVERLAYS = ["compose.gpu.yaml", "compose.hosts.yaml", "compose.observability.yaml"]
STACKS = [
    ("compose.yaml", *over) for size in range(len(OVERLAYS) + 1) for over in itertools.combinations(OVERLAYS, size)
] + [("compose.worker.yaml",), ("compose.worker.yaml", "compose.gpu.yaml")]
BY_HAND = {"s3_secret_access_key"}
"""Secrets that init.sh cannot make."""


def merged(one, other):
    """Two files as Compose merges them: maps by key, lists one after the other, of commands the last."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = dict.fromkeys([*one, *other])  # in their order, so that every process collects the same tests
        return {
            key: other[key]
            if key in {"command", "entrypoint"} and key in other
            else merged(one.get(key), other.get(key))
            for key in keys
        }
    if isinstance(one, list) and isinstance(other, list):
        return [*one, *(item for item in other if item not in one)]
    return one if other is None else other


def stacked(names):
    whole = {}
    for name in names:
        whole = merged(whole, {key: value for key, value in FILES[name].items() if not key.startswith("x-")})
    return whole


BASE = stacked(["compose.yaml"])["services"]
EVERYWHERE = [(names, name, service) for names in STACKS for name, service in stacked(names)["services"].items()]


def ours(service):
    return service["image"] == "${IMAGE:-creditlab}"


def filled(value):
    """A value as it is where nothing is set."""
    return re.sub(r"\$\{\w+(?::-([^}]*)|:\?[^}]*)?\}", lambda found: found[1] or "given", value)


def option(service, name):
    """The argument after an option in a service's command."""
    command = BASE[service]["command"]
    return command[command.index(name) + 1]


def instructions(name):
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)


def copied():
    """Every path of the repository that the Dockerfile copies."""
    return [
        source
        for words in map(str.split, instructions("COPY"))
        if not words[0].startswith("--from")
        for source in words[:-1]
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of the deployment after its first start."""
    folder = tmp_path_factory.mktemp("deployment") / "docker"
    folder.mkdir()
    for name in ("init.sh", ".env.example"):
        (folder / name).write_bytes((FOLDER / name).read_bytes())
    subprocess.run(["sh", folder / "init.sh"], check=True)
    return folder


# ---- compose files ---------------------------------------------------------------------------------------------------


def test_every_file_is_in_a_stack():
    assert set(FILES) == {name for names in STACKS for name in names}


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_every_stack_has_the_form_of_a_compose_file(names):
    schema = json.loads((ROOT / "tests" / "compose" / "compose-spec.json").read_text())
    jsonschema_rs.validate(schema, stacked(names))


@pytest.mark.parametrize(("names", "name", "service"), EVERYWHERE, ids=str)
def test_every_service_of_ours_runs_a_command_that_exists(names, name, service):
    if not ours(service):
        return
    commands = [[filled(word) for word in service["command"]]]
    test = service.get("healthcheck", {}).get("test", [])
    commands += [test[2:]] if test[1:2] == ["creditlab"] else []
    for command, *arguments in commands:
        typer.main.get_command(app).commands[command].make_context(command, list(arguments))


@pytest.mark.parametrize(("names", "name", "service"), EVERYWHERE, ids=str)
def test_every_service_is_confined(names, name, service):
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "network_mode" not in service
    if service["restart"] != "no":
        assert {"mem_limit", "healthcheck"} <= set(service)
        assert service["logging"]["options"]["max-size"]


def test_every_variable_is_a_setting():
    known = {f"CREDITLAB_{name.removeprefix('given_').upper()}" for name in Settings.model_fields}
    known |= {"CREDITLAB_TORCH"}  # of the image's build
    text = "".join((FOLDER / name).read_text() for name in (*FILES, ".env.example", "Dockerfile"))
    text += (ROOT / "docs" / "deployment.md").read_text()
    named = {name.removesuffix("_FILE") for name in re.findall(r"\bCREDITLAB_[A-Z0-9_]+\b", text)}
    assert named <= known


def test_what_compose_asks_for_can_be_looked_up():
    told = (FOLDER / ".env.example").read_text() + (ROOT / "docs" / "deployment.md").read_text()
    asked = {name for path in FILES for name in re.findall(r"\$\{(\w+)", (FOLDER / path).read_text())}
    assert {name for name in asked if not re.search(rf"\b{name}\b", told)} == set()


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_secrets_are_files_that_only_those_who_need_them_get(names, made):
    stack = stacked(names)
    for name, source in stack["secrets"].items():
        assert source["file"] == f"secrets/{name}"
        assert name in BY_HAND or (made / source["file"]).exists()
    for service in stack["services"].values():
        given = {path for path in service.get("environment", {}).values() if str(path).startswith("/run/secrets/")}
        assert {Path(path).name for path in given} <= set(service.get("secrets", []))
        assert not [name for name in service.get("environment", {}) if name.endswith("PASSWORD")]
    assert not any(
        "_password" in secret
        for service in stack["services"].values()
        if ours(service)
        for secret in service["secrets"]
    )


@pytest.fixture
def settings(monkeypatch, made):
    """The settings of the containers, read as they read them."""
    monkeypatch.chdir(made)
    for name, value in BASE["api"]["environment"].items():
        monkeypatch.setenv(name, filled(value).replace("/run/secrets", str(made / "secrets")))
    return Settings.load()


def test_the_service_looks_where_its_servers_listen(settings, made):
    database, server = make_url(settings.database_url), BASE["postgres"]["environment"]
    assert (database.host, database.port) == ("postgres", 5432)
    assert (database.username, database.database) == (server["POSTGRES_USER"], server["POSTGRES_DB"])
    assert database.password == (made / "secrets" / "postgres_password").read_text().strip()
    broker = make_url(settings.broker_url)
    assert (broker.host, broker.port) == ("valkey", 6379)
    assert (made / "secrets" / "valkey.conf").read_text() == f"requirepass {broker.password}\n"
    assert settings.auth == "required"
    assert len(settings.secret_key) == 48


def test_the_broker_keeps_what_it_was_told():
    assert option("valkey", "--appendonly") == "yes"
    assert option("valkey", "--maxmemory-policy") == "noeviction"


def test_only_the_api_can_be_reached_from_outside():
    published = {name: service["ports"] for name, service in BASE.items() if "ports" in service}
    (port,) = published.pop("api")
    assert not published
    address, _, inside = filled(port).rpartition(":")
    assert is_loopback(address.partition(":")[0])
    assert inside == option("api", "--port")
    assert f":{inside}/readyz" in BASE["api"]["healthcheck"]["test"][-1]
    assert FILES["compose.yaml"]["networks"]["inside"]["internal"]
    assert BASE["postgres"]["networks"] == BASE["valkey"]["networks"] == ["inside"]


@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_services_start_in_order_and_keep_what_they_store(names):
    stack = stacked(names)
    for service in stack["services"].values():
        for other, wanted in service.get("depends_on", {}).items():
            finishes = stack["services"][other]["restart"] == "no"
            assert wanted["condition"] == ("service_completed_successfully" if finishes else "service_healthy")
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (FOLDER / source).exists() if source.startswith("./") else source in stack["volumes"]
    for role in {"api", "worker"} & set(
        BASE
    ):  # they stop in the opposite order: what a run still writes finds its database
        assert {"postgres", "valkey", "migrate"} <= set(BASE[role]["depends_on"])


def test_a_gpu_is_one_slot():
    worker = stacked(["compose.yaml", "compose.gpu.yaml"])["services"]["worker"]
    assert worker["command"] == ["worker", "--gpus", "all", "--concurrency", "1"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"], len(device["device_ids"])) == ("nvidia", ["gpu"], 1)


# ---- the image -------------------------------------------------------------------------------------------------------


def test_the_image_copies_what_exists_and_what_docker_may_see():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for source in copied():
        assert (ROOT / source).exists()
        assert f"!{source}" in ignored
    assert set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= set(copied())


def test_the_image_runs_the_command_as_nobody_in_particular():
    (entry,) = instructions("ENTRYPOINT")
    assert yaml.safe_load(entry) == ["creditlab"]
    assert "creditlab" in PROJECT["project"]["scripts"]
    (user,) = instructions("USER")
    assert int(user.partition(":")[0]) >= 10_000


def test_the_image_has_only_what_the_service_runs_on():
    (heading,) = re.findall(r"sed '/\^(# .*)\$/,\$d'", DOCKERFILE)
    runtime, _, rest = LOCK.partition(f"\n{heading}\n")
    assert "\ntorch==" in runtime
    assert "\npytest==" in rest
    assert "\nhatchling==" in rest


def test_the_build_is_told_which_torch():
    assert instructions("ARG") == ["CREDITLAB_TORCH=cpu"]
    for name in ("compose.yaml", "compose.worker.yaml"):
        (build,) = [service["build"] for service in stacked([name])["services"].values() if "build" in service]
        assert build["args"] == {"CREDITLAB_TORCH": "${TORCH:-cpu}"}


# ---- secrets ---------------------------------------------------------------------------------------------------------


def test_secrets_are_random_private_and_made_once(made):
    folder = made / "secrets"
    before = {file.name: file.read_text() for file in folder.iterdir()}
    assert folder.stat().st_mode & 0o077 == 0
    assert (made / ".env").stat().st_mode & 0o077 == 0
    assert all(re.search(r"[0-9a-f]{48}\b", secret) for secret in before.values())
    assert len({re.search(r"[0-9a-f]{48}", secret)[0] for secret in before.values()}) == 4  # two stand in URLs too
    (made / ".env").write_text("PUBLISH=127.0.0.1:9000\n")
    subprocess.run(["sh", made / "init.sh"], check=True)
    assert {file.name: file.read_text() for file in folder.iterdir()} == before
    assert (made / ".env").read_text() == "PUBLISH=127.0.0.1:9000\n"


@pytest.mark.parametrize("path", ["docker/.env", "docker/secrets/database_url"])
def test_secrets_stay_out_of_git(path):
    assert subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0


# ---- dashboards ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The names of all that /metrics has, once a request was answered."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("measured"))
    Database(settings.database_url).migrate()
    application = create_app(settings)
    application.state.metrics.requests.labels("GET", "/v1/jobs", "200").observe(0.01)
    text = generate_latest(application.state.metrics.registry).decode()
    samples = {re.match(r"\w+", line)[0] for line in text.splitlines() if not line.startswith("#")}
    return samples | set(re.findall(r"^# TYPE (\w+) gauge$", text, re.MULTILINE))  # with or without values by label yet


def test_the_dashboard_asks_for_what_is_measured(measured):
    dashboard = json.loads((FOLDER / "grafana" / "dashboards" / "creditlab.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            named = set(re.findall(r"\bcreditlab_\w+", target["expr"]))
            assert named, target
            assert named <= measured, (panel["title"], named - measured)


def test_the_dashboard_finds_its_source_and_the_source_the_api():
    (source,) = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    dashboard = json.loads((FOLDER / "grafana" / "dashboards" / "creditlab.json").read_text())
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    (scrape,) = yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"api:{option('api', '--port')}"]}]
    services = stacked(["compose.yaml", "compose.observability.yaml"])["services"]
    (dashboards,) = [volume.split(":")[1] for volume in services["grafana"]["volumes"] if "/dashboards" in volume]
    (provider,) = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/creditlab.yaml").read_text())["providers"]
    assert provider["options"]["path"] == dashboards
