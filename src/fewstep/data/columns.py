"""Which column of a table holds the images and which the labels."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fewstep.errors import FewstepError, FewstepWarning, unknown

IMAGE_COLUMNS = ("image", "img", "images", "jpg", "png", "webp")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "cls", "target", "targets", "y")
LABEL_WORDS = ("label", "class", "category")  # that the name of a column of labels has in it


class NoColumn(FewstepError):
    """Data have no column, or array, of a name that was given.

    Args:
        message: that says so.
        setting: that names it, "image_column" or "label_column".
    """

    def __init__(self, message: str, setting: str) -> None:
        super().__init__(message)
        self.setting = setting


class NoColumns(NoColumn):
    """Data have no columns at all, as a folder of images."""


@dataclass(frozen=True)
class Column:
    """A column as its file declares it.

    Args:
        name: of the column.
        kind: its type, in words.
        image: whether its values may be images: bytes, a struct with bytes, or a list of those.
        label: whether its values may be classes: text, truth values, numbers.
        typed: "Image" or "ClassLabel", where the file says so.
        classes: names of the classes, where the file says them.
    """

    name: str
    kind: str
    image: bool
    label: bool
    typed: str = ""
    classes: tuple[str, ...] = ()


def read_columns(schema: Any) -> dict[str, Column]:
    """The columns of a `pyarrow.Schema`, with the types that the library `datasets` notes in it."""
    noted = _noted(schema.metadata or {})
    return {field.name: _column(field, noted.get(field.name)) for field in schema}


def _noted(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return dict(features)
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}  # written by another program


def _column(field: Any, noted: Any) -> Column:
    import pyarrow.types as kinds

    noted = noted if isinstance(noted, dict) else {}
    names = noted.get("names")
    kind, scalar = field.type, field.type
    if kinds.is_dictionary(kind):
        scalar = kind.value_type
    texts = (kinds.is_string, kinds.is_large_string, kinds.is_string_view, kinds.is_boolean)
    numbers = (kinds.is_integer, kinds.is_floating, kinds.is_null)
    return Column(
        field.name,
        str(kind),
        _may_be_images(kind),
        any(fits(scalar) for fits in (*texts, *numbers)),
        str(noted.get("_type", "")),
        tuple(map(str, names)) if isinstance(names, list) else (),
    )


def _may_be_images(kind: Any) -> bool:
    import pyarrow.types as kinds

    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return _may_be_images(kind.value_type)
    if kinds.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _may_be_images(kind.field(place).type)
    if kinds.is_dictionary(kind):
        return _may_be_images(kind.value_type)
    return kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind)


def image_column(columns: Mapping[str, Column], wanted: str | None, origin: str) -> Column:
    """The column of the images: the one that is wanted, else the one that can be meant.

    Raises:
        NoColumn: the wanted one is not there.
        FewstepError: none, or more than one; or the wanted one holds something else.
    """
    names = _names(columns.values())
    if wanted is not None:
        column = _known(wanted, columns, origin, "image_column")
        if not column.image:
            raise FewstepError(
                f"{origin}: the column {wanted!r} holds {column.kind}, no images: these are bytes "
                f"of image files; name one with image_column (--image-column), of {names}"
            )
        return column
    images = [c for c in columns.values() if c.image and c.typed == "Image"]
    images = images or [c for c in columns.values() if c.image]
    named = _by_name(images, IMAGE_COLUMNS)
    if named or len(images) == 1:
        return named[0] if named else images[0]
    problem = f"several image columns ({_names(images)})" if images else "no image column"
    raise FewstepError(
        f"{origin} has {problem}; name one with image_column (--image-column), of {names}"
    )


def label_column(
    columns: Mapping[str, Column], wanted: str | None, image: Column, origin: str
) -> Column | None:
    """The column of the labels: the one that is wanted, else the one that can be meant, if any.

    Raises:
        NoColumn: the wanted one is not there.
        FewstepError: more than one; or it holds what is no class.
    """
    if wanted is not None:
        return _checked(_known(wanted, columns, origin, "label_column"), origin)
    others = [column for column in columns.values() if column.name != image.name]
    if named := _by_name(others, LABEL_COLUMNS):
        return _checked(named[0], origin)
    typed = [column for column in others if column.typed == "ClassLabel"]
    called = [c for c in others if c.label and any(w in c.name.lower() for w in LABEL_WORDS)]
    found = typed or called
    if len(found) > 1:
        raise FewstepError(
            f"{origin} has several columns of labels ({_names(found)}); name one with label_column "
            "(--label-column), or pass labels=False (--no-labels)"
        )
    if found:
        return _checked(found[0], origin)
    if left := [column for column in others if column.label]:
        warnings.warn(
            f"{origin}: no column is taken for labels; if one of {_names(left)} holds them, name "
            "it with label_column (--label-column)",
            FewstepWarning,
            stacklevel=2,
        )
    return None


def _by_name(columns: Iterable[Column], names: tuple[str, ...]) -> list[Column]:
    """The columns with one of these names, the best first, case counting only among equals."""
    columns = list(columns)
    exact = [c for name in names for c in columns if c.name == name]
    return exact or [c for name in names for c in columns if c.name.lower() == name]


def _checked(column: Column, origin: str) -> Column:
    if not column.label:
        raise FewstepError(
            f"{origin}: the column {column.name!r} holds {column.kind}, no labels: these are text, "
            "whole numbers or truth values; name another with label_column (--label-column), or "
            "pass labels=False (--no-labels)"
        )
    return column


def _known(name: str, columns: Mapping[str, Column], origin: str, setting: str) -> Column:
    if name not in columns:
        raise NoColumn(f"{origin}: {unknown('column', name, columns)}", setting)
    return columns[name]


def _names(columns: Iterable[Column]) -> str:
    return ", ".join(column.name for column in columns)
