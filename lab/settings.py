"""The service's settings: ``CREDITLAB_*`` variables over an optional TOML file, as one frozen object.

``CREDITLAB_X_FILE`` names a file with the value of ``CREDITLAB_X``: how containers are given secrets.
"""

import os
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import psutil
from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from lab import addresses, places

AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
Unset = BeforeValidator(lambda value: value or None)
"""A variable that is set to nothing is not set: files for Compose can say no less."""


def default_threads() -> int:
    """CPU threads of a training process: half the machine, at most four."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


def of_networks(text: str) -> str:
    addresses.networks(text)
    return text


def of_http(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname or url.query or url.fragment:
        raise ValueError(f"{text[:100]!r} is not an address such as http://127.0.0.1:4318")
    return text


class Settings(BaseSettings):
    """Where things are and how the service behaves. Environment variables win over the file."""

    model_config = SettingsConfigDict(env_prefix="CREDITLAB_", extra="forbid", frozen=True, populate_by_name=True)

    data_dir: AbsolutePath = Field(Path(".creditlab"), validate_default=True)
    database_url: str = Field(default_factory=lambda data: f"sqlite:///{data['data_dir']}/creditlab.db")
    broker_url: str | None = None
    artifact_url: Annotated[str, AfterValidator(places.of_store)] = Field(
        default_factory=lambda data: str(data["data_dir"] / "artifacts")
    )
    """A folder, which API and workers share, or ``s3://bucket/prefix``."""
    artifact_days: float = Field(0, ge=0)
    """How long the files of a job are kept after its end; 0: for ever."""
    s3_endpoint_url: Annotated[str | None, Unset, AfterValidator(places.of_endpoint)] = None
    """Of a server that speaks S3; unset: AWS."""
    s3_access_key_id: Annotated[str | None, Unset] = None
    """With its secret; both unset: the standard AWS chain."""
    s3_secret_access_key: Annotated[SecretStr | None, Unset] = None
    s3_region: Annotated[str | None, Unset] = None
    datasets_dir: AbsolutePath | None = None
    auth: Literal["required", "off"] = "off"
    api_processes: int = Field(1, ge=1, le=64)
    """That answer at the one address of the API; each uses one core."""
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
    traces_endpoint: Annotated[str, AfterValidator(of_http)] | None = None
    """Where OpenTelemetry traces are sent (OTLP over HTTP), such as http://127.0.0.1:4318; none: there are none."""
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
        """Folder of the artifacts. Raises ValueError where they lie in a bucket."""
        return places.folder_of(self.artifact_url)

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
        """This machine's copies of the data sets that users have sent; training processes look below ``cache_dir``."""
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
        secret = {"given_secret_key", "s3_secret_access_key"}
        fields: dict[str, Any] = self.model_dump(mode="json", exclude=secret, exclude_none=True)
        if self.given_secret_key:
            fields["secret_key"] = self.given_secret_key
        if self.s3_secret_access_key:
            fields["s3_secret_access_key"] = self.s3_secret_access_key.get_secret_value()
        return {f"CREDITLAB_{name.upper()}": str(value) for name, value in fields.items()}


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


def is_file_of_a_setting(variable: str) -> bool:
    """Whether a variable names a file with a value; with the value itself beside it, both would be set."""
    return variable.startswith("CREDITLAB_") and variable.endswith("_FILE")


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
