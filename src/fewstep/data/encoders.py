"""Texts as embeddings, by an encoder of the user's: ``module:function``, or ``file.py:function``.

    encode(["a red square", "two cats"])  ->  [n, d], or [n, tokens, d]

The function gets a list of texts and gives their embeddings, floats as a tensor or an array, in
that order. Every text is encoded once and kept in the cache, so that a training that goes on does
not wait. An empty text is no text: its embedding is zero.

An encoder is code. It is imported if the user of this machine has named it; that a run or a model
names it is not enough: see `fewstep.plugins.trusted`.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewstep.cache import cache_folder, expanded
from fewstep.errors import FewstepError
from fewstep.files import replacing
from fewstep.plugins.code import check_place, working_directory
from fewstep.plugins.trusted import check_trusted, code_of, file_of, is_file
from fewstep.progress import progress

AT_ONCE = 64  # texts
LATELY = 256  # texts whose embeddings a reader remembers
SPELLING = "an encoder is named module:function, or file.py:function"

Encoder = Callable[[list[str]], Any]


def encoder_of(name: str) -> Encoder:
    """The function of a name.

    Raises:
        FewstepError: no such name, module or function; a module of Python's own, which encodes no
            texts; one that lies in a run's folder, or that the user has never named; whatever
            importing it raises.
    """
    module, colon, function = name.rpartition(":")
    if not colon or not module or not function:
        raise FewstepError(f"{SPELLING}, not {name!r}.")
    _check(name, module)
    try:
        found: Any = getattr(_module(module), function, None)
    except FewstepError:
        raise
    except (Exception, SystemExit) as error:
        reason = str(error).strip().splitlines()[:1]
        raise FewstepError(
            f"the encoder {name} cannot be imported: {type(error).__name__}: {''.join(reason)}. "
            "Its module must be installed or in the working folder."
        ) from error
    if not callable(found):
        raise FewstepError(f"the encoder {name}: {module} has no function {function}.")
    encoder: Encoder = found
    return encoder


def _check(name: str, module: str) -> None:
    """Raise `FewstepError` for an encoder that is not to be imported."""
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise FewstepError(f"{module} is a module of Python itself, which holds no encoder.")
    file = file_of(module)
    if file is None and is_file(module):
        raise FewstepError(f"there is no file {expanded(module)}: {SPELLING}.")
    if file is not None:
        check_place(file.absolute())
    check_trusted(name)


def _module(name: str) -> Any:
    if is_file(name):
        return _file(expanded(name))
    with working_directory():
        return importlib.import_module(name)


def _file(path: Path) -> Any:
    spec = spec_from_file_location(f"encoder_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FewstepError(f"{path} is no Python file: {SPELLING}.")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TextReader:
    """Texts one at a time, as somebody who waits asks for them: the encoder is imported once.

    What was read lately is kept in memory and nothing on disk. It may be called from any thread.

    Args:
        name: of the encoder.

    Raises:
        FewstepError: one that cannot be imported.
    """

    def __init__(self, name: str) -> None:
        self.name, self._encoder, self._turn = name, encoder_of(name), Lock()
        self._read = lru_cache(LATELY)(self._one)

    def __call__(self, text: str) -> Tensor:
        """The embedding of a text: float32 [1, d] or [1, tokens, d].

        Raises:
            FewstepError: the encoder fails, or gives something else.
        """
        with self._turn:
            return self._read(text)

    def _one(self, text: str) -> Tensor:
        return _checked(self.name, _called(self.name, self._encoder, [text]), 1)


def encoded(name: str, texts: Sequence[str], cache: Path | None = None) -> Tensor:
    """The embeddings of texts: float32 [n, d] or [n, tokens, d].

    Args:
        name: of the encoder.
        texts: of which empty ones are no text; not all of them.
        cache: the cache folder.

    Raises:
        FewstepError: an encoder that cannot be imported, fails, or gives something else.
    """
    place = _place(name, texts, cache_folder() if cache is None else cache)
    if (known := _kept(place, len(texts))) is not None:
        return known
    encoder, some = encoder_of(name), [text for text in dict.fromkeys(texts) if text]
    parts = []
    with progress("Encoding texts", len(some)) as advance:
        for start in range(0, len(some), AT_ONCE):
            part = some[start : start + AT_ONCE]
            parts.append(_checked(name, _called(name, encoder, part), len(part)))
            advance(len(part))
    _check_alike(name, parts)
    every = torch.cat(parts)
    index = {text: i for i, text in enumerate(some)}
    found = every.new_zeros(len(texts), *every.shape[1:])
    rows = [i for i, text in enumerate(texts) if text]
    found[rows] = every[[index[texts[i]] for i in rows]]
    _keep(place, found)
    return found


def _called(name: str, encoder: Encoder, texts: list[str]) -> Any:
    try:
        with torch.inference_mode():
            return encoder(texts)
    except (Exception, SystemExit) as error:
        reason = "".join(str(error).strip().splitlines()[:1])
        raise FewstepError(
            f"the encoder {name} fails on {texts[0]!r}: {type(error).__name__}: {reason}"
        ) from error


def _checked(name: str, given: Any, n: int) -> Tensor:
    shown = type(given).__name__
    if isinstance(given, Tensor | np.ndarray):
        values = torch.as_tensor(given).detach().cpu()
        shown = f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}"
        right = values.ndim in (2, 3) and len(values) == n and values.is_floating_point()
        if right and values.numel():
            values = values.float().clone()  # not of inference mode
            if bool(values.isfinite().all()):
                return values
            raise FewstepError(f"the encoder {name} gives NaN or infinity.")
    raise FewstepError(
        f"the encoder {name} must give floats [{n}, d] or [{n}, tokens, d] for {n} texts, not "
        f"{shown}."
    )


def _check_alike(name: str, parts: Sequence[Tensor]) -> None:
    if not parts:
        raise FewstepError(f"no text is given to the encoder {name}: all are empty.")
    shapes = list(dict.fromkeys(tuple(part.shape[1:]) for part in parts))
    if len(shapes) > 1:
        raise FewstepError(
            f"the encoder {name} gives embeddings of shape {list(shapes[0])} and of "
            f"{list(shapes[1])}: pad all texts to one number of tokens, with zeros."
        )


def _place(name: str, texts: Sequence[str], folder: Path) -> Path:
    """Where the embeddings are kept, while the file of the encoder's function does not change."""
    what = json.dumps([name, code_of(name.rpartition(":")[0]), list(texts)])
    digest = hashlib.sha256(what.encode("utf-8", "surrogatepass")).hexdigest()
    return expanded(folder) / f"texts-{digest[:24]}.safetensors"


def _kept(place: Path, n: int) -> Tensor | None:
    try:
        found = load_file(place)["embeddings"]
        return found if len(found) == n else None
    except (OSError, SafetensorError, KeyError):
        return None


def _keep(place: Path, found: Tensor) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place) as partial:
            save_file({"embeddings": found}, partial)
    except OSError:
        return  # they are made anew next time
