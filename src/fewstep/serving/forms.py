"""The edits' two shapes of a body, JSON and a form, as one."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from fewstep.errors import FewstepError
from fewstep.serving.images import from_base64
from fewstep.serving.schemas import EditBody

FILES = ("image", "mask")


async def edit_body(request: Request) -> tuple[EditBody, bytes, bytes | None]:
    """The settings, and the bytes of the picture and the mask.

    Raises:
        RequestValidationError: fields that are missing, unknown or of the wrong kind.
        FewstepError: a picture that is not there or not base64.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _form(request)
    if kind != "application/json":
        raise HTTPException(415, "send application/json or multipart/form-data")
    try:
        fields = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise FewstepError(f"the body is not JSON: {error}.") from error
    body = _checked(fields)
    mask = None if body.mask is None else from_base64(body.mask, "mask")
    return body, from_base64(body.image, "image"), mask


async def _form(request: Request) -> tuple[EditBody, bytes, bytes | None]:
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    async with request.form(max_files=2, max_fields=32) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                files[name] = await value.read()
            elif name in fields:
                raise FewstepError(f"the field {name!r} is there twice.")
            else:
                fields[name] = value
    for name in set(files) - set(FILES):
        raise FewstepError(f"a file in the field {name!r}: files are image and mask.")
    if "image" not in files:
        raise FewstepError("the form has no file in the field 'image'.")
    if "mask" in fields or "image" in fields:
        raise FewstepError("image and mask are files of the form, not text.")
    body = _checked({**fields, "image": ""})
    return body, files["image"], files.get("mask")


def _checked(fields: Any) -> EditBody:
    try:
        return EditBody.model_validate(fields)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error
