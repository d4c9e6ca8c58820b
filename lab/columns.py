"""What tables are made of: the base class, and the types of columns that both databases know."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement


class Moment(TypeDecorator[datetime]):
    """A time in UTC, to the microsecond, on databases with and without time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Pairs(FunctionElement[dict[str, str]]):
    """Keys and values of the rows of a group as one object, in no order: ``Pairs(key, value)``; of no rows, nothing."""

    type = JSON()
    inherit_cache = True


@compiles(Pairs, "postgresql")
def _pairs_of_postgresql(element: Pairs, compiler: Any, **options: Any) -> str:
    return f"json_object_agg({compiler.process(element.clauses, **options)})"


@compiles(Pairs, "sqlite")
def _pairs_of_sqlite(element: Pairs, compiler: Any, **options: Any) -> str:
    return f"json_group_object({compiler.process(element.clauses, **options)})"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        datetime: Moment,
        dict[str, Any]: JSON(none_as_null=True),
        list[str]: JSON(none_as_null=True),
        int: BigInteger().with_variant(Integer, "sqlite"),
        bytes: LargeBinary,
        str: Text,
    }


def of_job(**options: Any) -> Mapped[str]:
    return mapped_column(String(32), ForeignKey("jobs.id", ondelete="CASCADE"), **options)


def one_of(column: str, values: Any) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in sorted(values))})"
