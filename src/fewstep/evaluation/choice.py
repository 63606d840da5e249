"""Feature networks by name."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewstep.data import Dataset
from fewstep.errors import FewstepError, unknown
from fewstep.evaluation.classifier import SmallClassifier, train_classifier
from fewstep.evaluation.custom import load_callable
from fewstep.evaluation.dinov2 import DINOv2
from fewstep.evaluation.features import FEATURE_NETWORKS, FeatureNetwork
from fewstep.evaluation.inception_v3 import InceptionV3
from fewstep.evaluation.resnet56 import ResNet56
from fewstep.spec import parse

SMALL = 16  # pixels; images up to this size have little that Inception's features were made for
PUBLISHED: dict[str, Callable[..., FeatureNetwork]] = {
    "inception": InceptionV3.load,
    "dinov2": DINOv2.load,
}
CLASSES: dict[str, type[FeatureNetwork]] = {
    "inception": InceptionV3,
    "dinov2": DINOv2,
    "resnet56": ResNet56,
    "classifier": SmallClassifier,
}
FEATURES = {
    "inception": "Inception-v3 of 2015-12-05, the network of published FIDs; --weights its file",
    "dinov2": "DINOv2 ViT-L/14; --weights its file",
    "resnet56": "the CIFAR ResNet-56; --weights its file",
    "classifier": "a small classifier trained in seconds on the reference and its labels",
}


def feature_network(
    name: str | None = None,
    *,
    weights: str | Path | None = None,
    resize: str | None = None,
    data: Dataset | None = None,
) -> FeatureNetwork:
    """The feature network of a name in `FEATURES`, of a plugin's spec, or of ``module:function``.

    Args:
        name: which; default the classifier for images of several classes and of up to 16 pixels,
            where it can be trained on the spot, and otherwise Inception, the field's own.
        weights: file of published weights; default where each network looks for them.
        resize: how images are brought to the network's size; default as published scores do it.
        data: the reference, for the classifier.

    Raises:
        FewstepError: an unknown name, missing weights, or a choice that the network does not have.
    """
    if name is None:
        small = data is not None and _tells_classes(data) and max(data.shape[1:]) <= SMALL
        name = "classifier" if small and weights is None else "inception"
    if name.partition("(")[0].strip() in FEATURE_NETWORKS:
        return _of_plugin(name, weights=weights, resize=resize, data=data)
    if resize is not None and name not in PUBLISHED:
        raise FewstepError(f"the feature network {name!r} takes images as they are: no resize.")
    if name in PUBLISHED:
        how = {} if resize is None else {"resize": resize}
        return PUBLISHED[name](weights, **how)
    if name == "resnet56":
        weights = weights or os.environ.get("FEWSTEP_RESNET56_WEIGHTS")
        if weights is None:
            raise FewstepError(
                "no weights of the CIFAR ResNet-56: give --weights resnet56.safetensors or set "
                "FEWSTEP_RESNET56_WEIGHTS."
            )
        return ResNet56.load(weights)
    if weights is not None:
        raise FewstepError(f"the feature network {name!r} has no weights to load.")
    if ":" in name:
        return load_callable(name)
    if name != "classifier":
        known = [*FEATURES, *FEATURE_NETWORKS, "module:function"]
        raise unknown("feature network", name, known)
    if data is None or data.labels is None:
        raise FewstepError(
            "the reference has no labels to train a classifier on: choose --features inception."
        )
    if not _tells_classes(data):
        raise FewstepError(
            "the reference is of one class, and a classifier learns nothing from it: choose "
            "--features inception."
        )
    return train_classifier(data.images, data.labels)


def _tells_classes(data: Dataset) -> bool:
    """Whether the images are of two classes at least, which a classifier can tell apart."""
    return data.labels is not None and bool((data.labels != data.labels[0]).any())


def _of_plugin(spec: str, **options: Any) -> FeatureNetwork:
    """A plugin's feature network, with those of the options that its constructor has.

    Raises:
        FewstepError: an option that was given and that it does not have.
    """
    name, arguments = parse(spec)
    taken = inspect.signature(FEATURE_NETWORKS[name]).parameters
    for option in ("weights", "resize"):
        if options[option] is not None and option not in taken:
            raise FewstepError(f"the feature network {name!r} takes no --{option}.")
    given = {key: x for key, x in options.items() if x is not None and key in taken}
    network = FEATURE_NETWORKS.call(name, given | arguments)
    network.name = spec
    return network
