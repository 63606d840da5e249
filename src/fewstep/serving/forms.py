"""Bodies with pictures: JSON that is bounded, and the edits' form."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser

from fewstep.errors import FewstepError
from fewstep.serving.aside import aside
from fewstep.serving.images import from_base64
from fewstep.serving.schemas import EditBody

FILES = {"image": "image", "image[]": "image", "mask": "mask"}
"""Names of the fields with files; a client that can send several pictures says image[]."""
PIECE = 2**16
VALUES = 1000
JSON = "application/json"

B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True)
class Upload:
    """The settings of an edit, and the bytes of the picture and the mask."""

    body: EditBody
    image: bytes
    mask: bytes | None


async def upload(request: Request) -> Upload:
    """What a request for an edit sends.

    Raises:
        RequestValidationError: fields that are missing, unknown or of the wrong kind.
        FewstepError: a picture that is not there or not base64.
    """
    data = await request.body()
    if _kind(request) == "multipart/form-data":
        return await asyncio.to_thread(asyncio.run, _form(request.headers, data))
    if _kind(request) != JSON:
        raise HTTPException(415, f"send {JSON} or multipart/form-data")
    return await aside(len(data), lambda: _upload(parsed(data, EditBody)))


async def sent(request: Request, kind: type[B]) -> B:
    """The body of a request that holds a picture, in JSON.

    Raises:
        RequestValidationError: fields that are missing, unknown or of the wrong kind.
        FewstepError: it is no JSON, or holds too many values.
    """
    if _kind(request) != JSON:
        raise HTTPException(415, f"send {JSON}")
    data = await request.body()
    return await aside(len(data), lambda: parsed(data, kind))


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parsed(data: bytes, kind: type[B]) -> B:
    """A body of JSON, which is looked at before a parser stops all threads until it is done.

    Raises:
        RequestValidationError: fields that are missing, unknown or of the wrong kind.
        FewstepError: it is no JSON, or holds too many values.
    """
    if data.count(b",") > VALUES:
        raise FewstepError(f"the body holds more than {VALUES:,} values, which no request has.")
    try:
        fields = from_json(data.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise FewstepError(f"the body is not JSON: {error}.") from error
    return _checked(fields, kind)


def _upload(body: EditBody) -> Upload:
    mask = None if body.mask is None else from_base64(body.mask, "mask")
    return Upload(body, from_base64(body.image, "image"), mask)


class _InMemory(MultiPartParser):
    """Writes no file: the body is in memory, and was counted when it came."""

    spool_max_size = 0  # none is too large


async def _form(headers: Headers, data: bytes) -> Upload:
    parser = _InMemory(headers, _pieces(data), max_files=4, max_fields=40)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise FewstepError(f"the form cannot be read: {error.message.rstrip('.')}.") from error
    fields, files = await _parts(form)
    if "image" not in files:
        raise FewstepError("the form has no file in the field 'image'.")
    return Upload(_checked({**fields, "image": ""}, EditBody), files["image"], files.get("mask"))


async def _pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), PIECE):
        yield data[start : start + PIECE]


async def _parts(form: FormData) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The texts and the files of a form, by name."""
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    for name, value in form.multi_items():
        if not isinstance(value, UploadFile):
            if name in FILES:
                raise FewstepError("image and mask are files of the form, not text.")
            if name in fields:
                raise FewstepError(f"the field {name!r} is there twice.")
            fields[name] = value
            continue
        if name not in FILES:
            raise FewstepError(f"a file in the field {name!r}: files are image and mask.")
        if FILES[name] in files:
            raise FewstepError(f"the form has more than one {FILES[name]}: send one at a time.")
        files[FILES[name]] = await value.read()
    return fields, files


def _checked(fields: Any, kind: type[B]) -> B:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
