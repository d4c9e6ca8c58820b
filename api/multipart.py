"""Forms with files: streamed to temporary files as they arrive, which end with the request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from credit.uploads import File
from lab.errors import InvalidDataset, LabError

MAX_FILES = 4
MAX_FIELDS = 8
MAX_FIELD_BYTES = 1 << 16
FIELDS = ("name", "description")


class Form(NamedTuple):
    files: list[File]
    name: str
    description: str | None


@asynccontextmanager
async def received(request: Request) -> AsyncIterator[Form]:
    """The form of a request whose ``file`` parts lie in nameless temporary files, gone with the body of this block.

    Raises:
        LabError: the body is no form, or another one than this.
    """
    limits = {"max_files": MAX_FILES, "max_fields": MAX_FIELDS, "max_part_size": MAX_FIELD_BYTES}
    parser = MultiPartParser(request.headers, request.stream(), **limits)
    try:
        form = await parser.parse()
        texts: dict[str, str] = {}
        files: list[File] = []
        for field, value in form.multi_items():
            if isinstance(value, UploadFile):
                if field != "file":
                    raise InvalidDataset(field[:100], "is no file here; files come as the field file")
                value.file.flush()
                files.append(File(value.filename or "", value.file.fileno()))
            elif field not in FIELDS or field in texts:
                known = f"the fields are file, {', '.join(FIELDS)}, each text once"
                raise InvalidDataset(field[:100], f"is not a field here, or given twice or as a text; {known}")
            else:
                texts[field] = value
        if len(files) not in {1, MAX_FILES}:
            raise InvalidDataset("file", f"{len(files)} files came; a data set is one, or the four of an idx set")
        if "name" not in texts:
            raise InvalidDataset("name", "required: what the data set is to be called")
        yield Form(files, texts["name"], texts.get("description") or None)
    except MultiPartException as error:
        detail = f"the body is no multipart/form-data that can be read: {error.message}"
        raise LabError(400, "malformed_form", "The body is not a valid form", detail) from error
    finally:
        for file in parser._files_to_close_on_error:  # noqa: SLF001  (all it made: also of a part that was cut off)
            file.close()
