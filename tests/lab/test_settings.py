"""Settings come from the environment over a file; the secret is made once."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import ValidationError

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
    (tmp_path / "settings.toml").write_text('database_url = "sqlite:///file"\nsecret_key = "of the TOML file, unused"\n')
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


def test_artifacts_may_be_a_file_url(tmp_path):
    assert Settings(artifact_url=f"file://{tmp_path}/a%20b").artifacts_dir == tmp_path / "a b"
    with pytest.raises(ValueError, match="s3"):
        _ = Settings(artifact_url="s3://bucket").artifacts_dir


def test_the_secret_is_made_once_for_all(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: Settings(data_dir=tmp_path / "new").secret_key, range(8)))
    assert len(made) == 1
    path = tmp_path / "new" / "secret_key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["secret_key"]
    assert Settings(data_dir=tmp_path, secret_key="given by the operator").secret_key == "given by the operator"
