"""The real images that scores compare with: their features, or only statistics of them."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewstep.cache import cache_folder
from fewstep.data import Dataset
from fewstep.data.archives import read_named
from fewstep.data.arrays import checked_images
from fewstep.distributed import Processes
from fewstep.errors import FewstepError, refusals, unknown
from fewstep.evaluation.checked import read_checked, warn_damaged, write_checked
from fewstep.evaluation.features import FeatureNetwork, check_images, extract
from fewstep.evaluation.frechet import Moments
from fewstep.evaluation.inception_v3 import InceptionV3
from fewstep.files import check_writable, replacing

VERSION = "2"  # of the files of statistics
LOOKED_AT = 16  # images that say whether a network of the user's own is still what it was


@dataclass(frozen=True)
class Reference:
    """What a feature network says of the real images.

    Args:
        name: for tables.
        n: number of images that the moments are of; None where a file of statistics does not say.
        moments: of the features.
        network: fingerprint of the feature network; "" where a file does not say.
        spatial: moments of the spatial features, of a network that has them.
        features: [N, D]; without them there are Fréchet distances and nothing else.
        labels: classes of the images [N].
        classes: what they are called.
        images: uint8 [N, C, H, W]; of a file of statistics perhaps a part of those.
    """

    name: str
    n: int | None
    moments: Moments
    network: str
    spatial: Moments | None = None
    features: Tensor | None = None
    labels: Tensor | None = None
    images: Tensor | None = None
    classes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        network: FeatureNetwork,
        images: Tensor,
        labels: Tensor | None = None,
        classes: Sequence[str] = (),
        *,
        name: str = "reference",
        group: Processes | None = None,
    ) -> Reference:
        """The reference that these images are: uint8 [N, C, H, W] with labels [N] of classes.

        Raises:
            FewstepError: images that the network does not take, or labels that do not fit.
        """
        check_images(images, network.shape, "the reference images")
        if labels is not None and len(labels) != len(images):
            raise FewstepError(f"{len(images)} reference images but {len(labels)} labels.")
        found = extract(network, images, group=group)
        return cls(
            name=name,
            n=len(images),
            moments=Moments.of(found.features),
            network=network.fingerprint,
            spatial=found.spatial,
            features=found.features,
            labels=labels,
            images=images,
            classes=tuple(classes),
        )

    @classmethod
    def of_data(
        cls,
        network: FeatureNetwork,
        data: Dataset,
        *,
        cache: Path | None = None,
        group: Processes | None = None,
    ) -> Reference:
        """`of` a data set; features are kept in the cache, by content and network.

        What a network of the user's code says can change although its fingerprint does not: of
        such a one the first images are looked at again.

        Args:
            network: feature network.
            data: images.
            cache: folder; default ``FEWSTEP_CACHE`` or ``~/.cache/fewstep``.
            group: the processes that share the work; the first one gets the whole reference.
        """
        group = group or Processes()
        key = hashlib.sha256(f"{VERSION} {network.fingerprint} {data.fingerprint()}".encode())
        folder = (cache or cache_folder()) / "statistics"
        path = folder / f"{key.hexdigest()[:32]}.safetensors"
        known = _cached(path, network)
        if known is not None and not _still_says(network, known, data.images):
            known = None
        if not group.any(known is None) and known is not None:
            return replace(
                known,
                name=data.name,
                labels=data.labels,
                images=data.images,
                classes=data.classes,
            )
        found = cls.of(network, data.images, data.labels, data.classes, name=data.name, group=group)
        if group.first:
            with suppress(OSError, FewstepError):  # without a cache they are computed anew
                folder.mkdir(parents=True, exist_ok=True)
                found.save(path, with_features=True)
        return found

    @classmethod
    @refusals()
    def load(cls, path: str | Path, network: FeatureNetwork) -> Reference:
        """Statistics from a file.

        - ``.safetensors`` that `save` wrote, or with tensors ``mean`` and ``cov``; of a file with
          several sets, ``file.safetensors:train`` takes ``train.mean`` and ``train.cov``;
        - ``.npz`` with ``mu`` and ``sigma`` (pytorch-fid, clean-fid, EDM) and, for the spatial
          features, ``mu_s`` and ``sigma_s`` (ADM's evaluation suite, whose batches also hold
          images: these give precision and recall). Such a file names neither its feature network,
          of which the number of features is all that can be checked, nor how many images its
          statistics are of: those that ADM's batches hold are mostly a part of them.

        Raises:
            FewstepError: no such file, none of these, or statistics of another feature network.
        """
        name, colon, part = str(path).rpartition(".safetensors:")
        file = Path(f"{name}.safetensors" if colon else path)
        if not file.is_file():
            raise FewstepError(f"there is no file {file}.")
        if file.suffix == ".npz":
            found = _from_npz(file, network)
        else:
            found = _from_safetensors(file, part if colon else "", network)
        wanted = network.num_features
        if wanted and len(found.moments.mean) != wanted:
            raise FewstepError(
                f"{path} has statistics of {len(found.moments.mean)} features, but {network.name} "
                f"has {wanted}: they are of another feature network."
            )
        return found

    def save(self, path: Path, *, with_features: bool = False) -> None:
        """Write the statistics: ``.safetensors``, or ``.npz`` with ``mu`` and ``sigma``.

        Args:
            path: of the file, which appears whole or not at all.
            with_features: also every image's features, which precision, recall and the kernel
                distance need; not in an ``.npz``.

        Raises:
            FewstepError: another kind of file, or it cannot be written.
        """
        check_file(path)
        tensors = {"mean": self.moments.mean, "cov": self.moments.covariance}
        if self.spatial is not None:
            tensors |= {"spatial.mean": self.spatial.mean, "spatial.cov": self.spatial.covariance}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".npz":
                arrays: dict[str, Any] = {NPZ_KEYS[k]: v.numpy() for k, v in tensors.items()}
                with replacing(path) as partial, partial.open("wb") as file:
                    np.savez(file, **arrays)
                return
            if with_features and self.features is not None:
                tensors["features"] = self.features.contiguous()
            note = {"fewstep_statistics": VERSION, "name": self.name, "n": self.n}
            write_checked(path, tensors, note | {"network": self.network})
        except (OSError, SafetensorError) as error:
            raise FewstepError(f"cannot write {path}: {error}.") from error


NPZ_KEYS = {"mean": "mu", "cov": "sigma", "spatial.mean": "mu_s", "spatial.cov": "sigma_s"}


def check_file(path: Path) -> None:
    """Raise `FewstepError` for a file that statistics cannot be written to, before any work."""
    if path.suffix not in (".npz", ".safetensors"):
        raise FewstepError(f"statistics are written as .safetensors or .npz, not {path.name}.")
    check_writable(path)


def holds_statistics(path: str | Path) -> bool:
    """Whether a file is statistics rather than images or a model."""
    file = Path(str(path).partition(".safetensors:")[0])
    if ".safetensors:" in str(path):
        return True
    try:
        if file.suffix == ".npz":
            with zipfile.ZipFile(file) as archive:
                return {"mu.npy", "sigma.npy"} <= set(archive.namelist())
        if file.suffix == ".safetensors":
            with safe_open(file, "pt") as tensors:
                return any(key.rpartition(".")[2] == "cov" for key in tensors.keys())  # noqa: SIM118
    except (OSError, zipfile.BadZipFile, SafetensorError):
        return False  # who reads it says what is wrong
    return False


def _cached(path: Path, network: FeatureNetwork) -> Reference | None:
    """A reference from the cache; None where there is none, or a damaged one, which is said."""
    if not os.path.isfile(path):
        return None
    with suppress(FewstepError):
        found = _from_safetensors(path, "", network, foreign=False)
        if found.features is not None and len(found.features) == found.n:
            return found
    warn_damaged(path, "record of the reference's statistics")
    return None


def _still_says(network: FeatureNetwork, known: Reference, images: Tensor) -> bool:
    """Whether a network says of the first images what it is known to have said."""
    if network.fingerprint_is_whole:
        return True
    assert known.features is not None
    now = extract(network, images[:LOOKED_AT]).features
    then = known.features[:LOOKED_AT]
    return now.shape == then.shape and torch.allclose(now, then, rtol=1e-3, atol=1e-5)


def _from_safetensors(
    path: Path, part: str, network: FeatureNetwork, *, foreign: bool = True
) -> Reference:
    tensors, note = read_checked(path, foreign=foreign)
    n, theirs = note.get("n"), note.get("network", "")
    if not (n is None or (isinstance(n, int) and n > 1)) or not isinstance(theirs, str):
        raise FewstepError(
            f"{path} does not say of how many images its statistics are: n is {n!r}."
        )
    if theirs and theirs != network.fingerprint:
        raise FewstepError(
            f"{path} has statistics of another feature network than {network.name} with these "
            "weights and this resize: their hashes differ. Take the statistics anew."
        )
    prefix = f"{part}." if part else ""
    if f"{prefix}mean" not in tensors or f"{prefix}cov" not in tensors:
        sets = sorted({key.rpartition(".")[0] for key in tensors if key.endswith(".cov")})
        raise unknown(f"set of statistics in {path}", part or "(none given)", sets)
    return Reference(
        name=str(note.get("name", f"{path.name}:{part}" if part else path.name)),
        n=n,
        moments=_moments(tensors, f"{prefix}mean", f"{prefix}cov", n, path),
        network=theirs,
        spatial=(
            _moments(tensors, "spatial.mean", "spatial.cov", n, path)
            if "spatial.mean" in tensors and not part
            else None
        ),
        features=tensors.get(f"{prefix}features"),
    )


def _from_npz(path: Path, network: FeatureNetwork) -> Reference:
    arrays = read_named(path, ("mu", "sigma", "mu_s", "sigma_s", "arr_0"))
    if missing := {"mu", "sigma"} - arrays.keys():
        raise FewstepError(f"{path} has no {' and no '.join(sorted(missing))}: no statistics.")
    images = features = None
    if "arr_0" in arrays:
        try:
            images = checked_images(arrays.pop("arr_0"))
        except FewstepError as error:
            raise FewstepError(f"{path}: {error}") from error
    tensors = {key: _real_numbers(array, f"{key} of {path}") for key, array in arrays.items()}
    spatial = None
    if {"mu_s", "sigma_s"} <= tensors.keys():
        spatial = _moments(tensors, "mu_s", "sigma_s", None, path)
    if images is not None:
        features = extract(network, images).features
    return Reference(
        name=path.name,
        n=None,
        moments=_moments(tensors, "mu", "sigma", None, path),
        network=network.fingerprint if isinstance(network, InceptionV3) else "",
        spatial=spatial,
        features=features,
        images=images,
    )


def _real_numbers(array: np.ndarray, what: str) -> Tensor:
    if array.dtype.kind not in "iuf":
        raise FewstepError(f"{what} holds {array.dtype}, not real numbers: no statistics.")
    return torch.from_numpy(array.astype(np.float64))


def _moments(
    tensors: Mapping[str, Tensor], mean: str, cov: str, n: int | None, path: Path
) -> Moments:
    try:
        return Moments.from_statistics(tensors[mean], tensors[cov], n)
    except FewstepError as error:
        raise FewstepError(f"{path}: {error}") from error
