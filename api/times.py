"""Times as they are sent: RFC 3339 with an offset, and nothing that merely looks like a time to a lenient reader."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator


def rfc3339(text: object) -> object:
    """The text, if it looks like RFC 3339: the validator behind it would take a number of seconds, too."""
    if not isinstance(text, str) or not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", text, re.ASCII):
        raise ValueError("should be a time as in RFC 3339, such as 2026-01-31T09:30:00Z")
    return text


def in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is beyond the calendar in UTC") from None


Moment = Annotated[AwareDatetime, BeforeValidator(rfc3339), AfterValidator(in_utc)]
