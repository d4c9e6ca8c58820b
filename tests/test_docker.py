"""The files of the deployment agree with the program: commands, settings, ports and what goes into the image."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from sqlalchemy import make_url

from api.middleware import is_loopback
from creditlab.cli import app
from lab.settings import Settings

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
ROLES = {name: service for name, service in SERVICES.items() if service["image"] == "creditlab"}
LOCK = (ROOT / "requirements.lock").read_text()


def filled(value):
    """A value of compose.yaml with a password where it asks for one."""
    return re.sub(r"\$\{\w+:\?\}", "secret", value)


def option(service, name):
    """The argument after an option in a service's command."""
    command = SERVICES[service]["command"]
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


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """The settings of the containers, read as they read them."""
    monkeypatch.chdir(tmp_path)
    for name, value in ROLES["api"]["environment"].items():
        monkeypatch.setenv(name, filled(value))
    return Settings.load()


@pytest.mark.parametrize("name", ROLES)
def test_every_command_is_one_of_the_command_line(name):
    command, *arguments = ROLES[name]["command"]
    typer.main.get_command(app).commands[command].make_context(command, arguments)


def test_every_variable_is_a_setting():
    known = {f"CREDITLAB_{name.upper()}" for name in Settings.model_fields} | {"CREDITLAB_SECRET_KEY"}
    given = {name for service in ROLES.values() for name in service["environment"]}
    assert given | set(re.findall(r"CREDITLAB_\w+", DOCKERFILE)) <= known


def test_the_service_looks_where_its_servers_listen(settings):
    database, server = make_url(settings.database_url), SERVICES["postgres"]["environment"]
    assert str(database.port) == server["PGPORT"]
    assert (database.username, database.database) == (server["POSTGRES_USER"], server["POSTGRES_DB"])
    assert filled(server["POSTGRES_PASSWORD"]) == database.password
    assert make_url(settings.broker_url).port == int(option("valkey", "--port"))
    assert f":{option('api', '--port')}/readyz" in ROLES["api"]["healthcheck"]["test"][-1]


def test_nothing_can_be_reached_from_outside_the_host(settings):
    for service in SERVICES.values():
        assert service["network_mode"] == "host"
        assert "ports" not in service
    addresses = [option("api", "--host"), option("valkey", "--bind"), option("postgres", "-c").partition("=")[2]]
    assert all(map(is_loopback, addresses))
    assert make_url(settings.database_url).host == make_url(settings.broker_url).host == "127.0.0.1"


def test_services_start_in_order_and_keep_what_they_store():
    for name, service in SERVICES.items():
        for other, wanted in service.get("depends_on", {}).items():
            finishes = SERVICES[other]["restart"] == "no"
            assert wanted["condition"] == ("service_completed_successfully" if finishes else "service_healthy")
            assert finishes or "healthcheck" in SERVICES[other], name
        assert {volume.partition(":")[0] for volume in service["volumes"]} <= set(COMPOSE["volumes"])
    for role in ("api", "worker"):  # services stop in the opposite order: what a run still writes finds its database
        assert {"postgres", "valkey", "migrate"} <= set(SERVICES[role]["depends_on"])


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


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_passwords_are_random_private_and_made_once(tmp_path):
    (tmp_path / "docker").mkdir()
    shutil.copy(ROOT / "docker" / ".env.example", tmp_path / "docker")
    make = ["make", "--file", ROOT / "Makefile", "docker/.env"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    env = tmp_path / "docker" / ".env"
    made = env.read_text()
    assert env.stat().st_mode & 0o077 == 0
    passwords = dict(re.findall(r"^(\w+_PASSWORD)=(\w{32,})$", made, re.MULTILINE))
    assert len(set(passwords.values())) == len(passwords)
    assert set(passwords) == set(re.findall(r"\$\{(\w+):\?\}", (ROOT / "docker" / "compose.yaml").read_text()))
    (tmp_path / "docker" / ".env.example").touch()
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    assert env.read_text() == made


def test_passwords_stay_out_of_git():
    ignored = subprocess.run(["git", "check-ignore", "-q", "docker/.env"], cwd=ROOT, check=False)
    assert ignored.returncode == 0
