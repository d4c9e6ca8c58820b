"""The service's settings: ``CREDITLAB_*`` variables over an optional TOML file, as one frozen object.

``CREDITLAB_X_FILE`` names a file with the value of ``CREDITLAB_X``: how containers are given secrets.
"""

import os
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

import psutil
from pydantic import AfterValidator, AliasChoices, Field
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from lab import addresses

AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


def default_threads() -> int:
    """CPU threads of a training process: half the machine, at most four."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


def of_networks(text: str) -> str:
    addresses.networks(text)
    return text


class Settings(BaseSettings):
    """Where things are and how the service behaves. Environment variables win over the file."""

    model_config = SettingsConfigDict(env_prefix="CREDITLAB_", extra="forbid", frozen=True, populate_by_name=True)

    data_dir: AbsolutePath = Field(Path(".creditlab"), validate_default=True)
    database_url: str = Field(default_factory=lambda data: f"sqlite:///{data['data_dir']}/creditlab.db")
    broker_url: str | None = None
    artifact_url: str = Field(default_factory=lambda data: str(data["data_dir"] / "artifacts"))
    datasets_dir: AbsolutePath | None = None
    auth: Literal["required", "off"] = "off"
    api_url: str = "http://127.0.0.1:8000"
    api_key: str | None = None
    threads: int = Field(default_factory=default_threads, ge=1, le=256)
    memory_limit_bytes: int = Field(default_factory=lambda: psutil.virtual_memory().total, ge=2**20)
    upload_limit_bytes: int = Field(2**30, ge=1)
    upload_decoded_bytes: int = Field(2**31, ge=1)
    upload_seconds: float = Field(300, gt=0)
    lease_seconds: float = Field(60, ge=1)
    max_attempts: int = Field(2, ge=1)
    checkpoint_seconds: float = Field(30, ge=0)
    """Training time between two checkpoints."""
    checkpoint_share: float = Field(0.01, gt=0, le=1)
    """Of the training time that checkpoints may take: where one takes long, they are further apart."""
    checkpoint_days: float = Field(14, ge=0)
    """How long a job that failed or was cancelled can be tried again from its last checkpoint."""
    quota_queued_jobs: int = Field(1000, ge=1)
    quota_running_jobs: int | None = Field(None, ge=1)
    quota_stored_bytes: int | None = Field(None, ge=1)
    quota_requests_per_minute: int = Field(6000, ge=1)
    webhook_allow: Annotated[str, AfterValidator(of_networks)] = ""
    """Networks, separated by commas, whose addresses a webhook may lead to although they are not public."""
    given_secret_key: str | None = Field(
        None, min_length=16, validation_alias=AliasChoices("CREDITLAB_SECRET_KEY", "secret_key")
    )

    @classmethod
    def load(cls) -> "Settings":
        """Settings of this process, from its environment and the TOML file, if there is one."""
        return cls()  # type: ignore[call-arg]  # the sources give every field

    @classmethod
    def settings_customise_sources(  # type: ignore[override]  # the caller names its arguments
        cls,
        settings_cls: type[BaseSettings],
        **sources: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = Path(os.environ.get("CREDITLAB_CONFIG", "creditlab.toml"))
        toml = TomlConfigSettingsSource(settings_cls, path)
        return sources["init_settings"], sources["env_settings"], ValuesInFiles(settings_cls), toml

    @property
    def artifacts_dir(self) -> Path:
        """Folder of the artifacts; ``artifact_url`` is a path or a ``file://`` URL."""
        url = urlsplit(self.artifact_url)
        if url.scheme not in {"", "file"}:
            message = f"CREDITLAB_ARTIFACT_URL: {url.scheme}:// is not supported; give a folder"
            raise ValueError(message)
        return Path(url2pathname(url.path)).absolute()

    @property
    def attempts_dir(self) -> Path:
        """Folder of what running attempts are making."""
        return self.data_dir / "attempts"

    @property
    def webhook_networks(self) -> list[addresses.Network]:
        return addresses.networks(self.webhook_allow)

    @property
    def cache_dir(self) -> Path:
        """Folder of downloaded data sets."""
        return self.data_dir / "datasets"

    @property
    def uploads_dir(self) -> Path:
        """Folder of the data sets that users have sent; training processes look for them below ``cache_dir``."""
        return self.cache_dir / "uploads"

    @property
    def secret_key(self) -> str:
        """Signs cursors, seals webhooks' secrets; given, or made in the data folder, readable by its owner alone."""
        if self.given_secret_key:
            return self.given_secret_key
        path = self.data_dir / "secret_key"
        if not path.exists():
            make_secret(path)
        return path.read_text()

    def environment(self) -> dict[str, str]:
        """These settings as environment variables, for child processes."""
        fields: dict[str, Any] = self.model_dump(mode="json", exclude={"given_secret_key"}, exclude_none=True)
        variables = {f"CREDITLAB_{name.upper()}": str(value) for name, value in fields.items()}
        return variables | ({"CREDITLAB_SECRET_KEY": self.given_secret_key} if self.given_secret_key else {})


class ValuesInFiles(PydanticBaseSettingsSource):
    """Settings that stand in files of their own, which ``CREDITLAB_<NAME>_FILE`` name."""

    def __call__(self) -> dict[str, Any]:
        """The settings by name. Raises ValueError."""
        found = [self.get_field_value(field, name) for name, field in self.settings_cls.model_fields.items()]
        return {name: value for value, name, _ in found if value is not None}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """What the setting's file holds, without the end of its last line; None where no variable names one."""
        variable = f"CREDITLAB_{field_name.removeprefix('given_').upper()}"
        name = variable if field.validation_alias else field_name
        path = os.environ.get(f"{variable}_FILE")
        if not path:
            return None, name, False
        if os.environ.get(variable):
            raise ValueError(f"{variable} and {variable}_FILE are both set; one of them is meant")
        try:
            return Path(path).read_text().rstrip("\r\n"), name, False
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{variable}_FILE: {path} cannot be read: {error}") from None


def make_secret(path: Path) -> None:
    """Write a new secret, complete from the first moment it can be seen; of two makers the first one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    draft.touch(mode=0o600, exist_ok=False)
    draft.write_text(secrets.token_urlsafe(48))
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
