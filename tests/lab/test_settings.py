"""Settings come from the environment over a file; the secret is made once."""

import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

import api.__main__ as api
from lab.files import Folder, open_store
from lab.settings import Settings


def test_the_environment_wins_over_the_file(tmp_path, monkeypatch):
    file = tmp_path / "settings.toml"
    file.write_text('threads = 3\nbroker_url = "redis://file:1"\n')
    monkeypatch.setenv("CREDITLAB_CONFIG", str(file))
    monkeypatch.setenv("CREDITLAB_BROKER_URL", "redis://environment:1")
    settings = Settings.load()
    assert (settings.threads, settings.broker_url) == (3, "redis://environment:1")


def test_a_value_may_stand_in_a_file(tmp_path, monkeypatch):
    for name in ("database_url", "secret_key"):
        (tmp_path / name).write_text(f"postgresql://the-{name}/x\n")
        monkeypatch.setenv(f"CREDITLAB_{name.upper()}_FILE", str(tmp_path / name))
    monkeypatch.setenv("CREDITLAB_CONFIG", str(tmp_path / "settings.toml"))
    (tmp_path / "settings.toml").write_text('database_url = "sqlite:///file"\nsecret_key = "of the file, unused"\n')
    settings = Settings.load()
    assert settings.database_url == "postgresql://the-database_url/x"
    assert settings.secret_key == "postgresql://the-secret_key/x"


def test_a_value_in_a_file_is_checked_like_any_other(tmp_path, monkeypatch):
    monkeypatch.setenv("CREDITLAB_THREADS_FILE", str(tmp_path / "threads"))
    with pytest.raises(ValueError, match=r"CREDITLAB_THREADS_FILE: .*threads cannot be read"):
        Settings.load()
    (tmp_path / "threads").write_text("many")
    with pytest.raises(ValidationError, match="threads"):
        Settings.load()
    monkeypatch.setenv("CREDITLAB_THREADS", "2")
    with pytest.raises(ValueError, match="CREDITLAB_THREADS and CREDITLAB_THREADS_FILE are both set"):
        Settings.load()


def test_a_misspelt_setting_of_the_file_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "settings.toml"
    file.write_text("thread = 3\n")
    monkeypatch.setenv("CREDITLAB_CONFIG", str(file))
    with pytest.raises(ValidationError, match="thread"):
        Settings.load()


def test_everything_lies_in_the_data_folder_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings.load()
    assert settings.data_dir == tmp_path / ".creditlab"
    assert settings.database_url == f"sqlite:///{tmp_path}/.creditlab/creditlab.db"
    assert settings.artifacts_dir == tmp_path / ".creditlab" / "artifacts"
    assert not settings.data_dir.exists(), "reading settings writes nothing"


def test_children_get_the_same_settings(tmp_path, monkeypatch):
    settings = Settings(data_dir=tmp_path, threads=2, datasets_dir=Path("/data"), secret_key="x" * 20)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings


@pytest.mark.parametrize("url", ["file://{}/a%20b", "file://localhost{}/a%20b", "{}/a b"])
def test_artifacts_may_be_in_a_folder(tmp_path, url):
    assert Settings(artifact_url=url.format(tmp_path)).artifacts_dir == tmp_path / "a b"
    assert isinstance(open_store(Settings(artifact_url=url.format(tmp_path))), Folder)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "gs://bucket",
        "s3:bucket",
        "s3://",
        "s3://B_ucket",
        "s3://bucket/../other",
        "s3://bucket/a//b",
        "s3://bucket/a?versionId=1",
        "s3://bucket/*",
        "file://host/folder",
        "http://127.0.0.1:9000/bucket",
    ],
)
def test_artifacts_are_nowhere_else(url):
    with pytest.raises(ValidationError, match=r"CREDITLAB_ARTIFACT_URL: .*s3://bucket/prefix"):
        Settings(artifact_url=url)


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "s3://x", "http://", "http://me:secret@host", "http://host/path"])
def test_a_server_is_an_address_without_a_path(url):
    with pytest.raises(ValidationError, match=r"CREDITLAB_S3_ENDPOINT_URL: .*http://host:port"):
        Settings(s3_endpoint_url=url)


def test_half_a_key_is_refused():
    with pytest.raises(ValueError, match="CREDITLAB_S3_ACCESS_KEY_ID and CREDITLAB_S3_SECRET_ACCESS_KEY"):
        open_store(Settings(artifact_url="s3://bucket", s3_access_key_id="mine"))


def test_a_missing_package_is_named_when_the_service_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "s3fs", None)  # what Python keeps of a module that is not to be had
    monkeypatch.setenv("CREDITLAB_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CREDITLAB_ARTIFACT_URL", "s3://bucket")
    assert api.main([]) == 2
    told = capsys.readouterr().err
    assert "CREDITLAB_ARTIFACT_URL is s3://bucket, which needs s3fs: pip install 'creditlab[s3]'" in told


def test_the_secret_of_the_bucket_is_shown_to_children_alone(tmp_path, monkeypatch):
    given = {
        "s3_access_key_id": "mine",
        "s3_secret_access_key": "of nobody else",
        "s3_region": "",
        "s3_endpoint_url": "",
    }
    settings = Settings(data_dir=tmp_path, artifact_url="s3://bucket/a", **given)
    assert (settings.s3_region, settings.s3_endpoint_url) == (None, None)
    assert "of nobody else" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == settings
    assert Settings.load().s3_secret_access_key.get_secret_value() == "of nobody else"


def test_the_secret_is_made_once_for_all(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: Settings(data_dir=tmp_path / "new").secret_key, range(8)))
    assert len(made) == 1
    path = tmp_path / "new" / "secret_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["secret_key"]
    assert Settings(data_dir=tmp_path, secret_key="given by the operator").secret_key == "given by the operator"
