"""The real images that scores compare with, and samples in their proportions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fewstep.classes import Agreement, listed
from fewstep.data import Dataset
from fewstep.distributed import Processes
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.evaluation import Evaluator, FeatureNetwork, Reference
from fewstep.evaluation.images import as_bytes, conformed, load_images
from fewstep.evaluation.reference import holds_statistics
from fewstep.flow_map import FlowMap
from fewstep.recipes.directory import RunDirectory
from fewstep.recipes.execute import real_data
from fewstep.recipes.parts import load
from fewstep.recipes.run import Data


@dataclass(frozen=True)
class Real:
    """Real images, or statistics of them.

    Args:
        source: file of the statistics, or what the images were read from.
        data: the images, as bytes; None for statistics.
        settings: how a run names its images.
    """

    source: str
    data: Dataset | None = None
    settings: Data | None = None

    @classmethod
    def of(
        cls,
        target: Path,
        reference: str | None,
        *,
        size: int | None = None,
        channels: int | None = None,
    ) -> Real:
        """What a user gives as the reference, or the images that a run was trained on.

        Args:
            target: a run folder.
            reference: images or statistics; None for those of the run.
            size, channels: to bring the images to.

        Raises:
            FewstepError: no reference was given and the target has none; nothing readable.
        """
        if reference is not None and holds_statistics(reference):
            return cls(reference)
        if reference is not None:
            say = partial(_say, reference)
            return cls(reference, load_images(reference, say, size=size, channels=channels))
        home = RunDirectory(target)
        if not home.started:
            raise FewstepError(f"{target} does not say what it was trained on: give --reference.")
        settings = real_data(home.here())
        source = str(settings.data)
        data = as_bytes(load(settings), partial(_say, source))
        return cls(source, conformed(data, size, channels), settings)

    def test_split(self) -> Dataset | None:
        """The held-out images of the same source; None where it has none."""
        if self.data is None:
            return None
        C, height, width = self.data.shape
        size, say = width if width == height else None, partial(_say, self.source)
        try:
            if self.settings is not None:
                return conformed(as_bytes(load(self.settings, "test"), say), size, C)
            return load_images(self.source, say, split="test", size=size, channels=C)
        except FewstepError:
            return None  # a data set without a test split has one baseline fewer

    def as_seen_by(self, network: FeatureNetwork, group: Processes | None = None) -> Reference:
        """The reference that these images are to a feature network."""
        if self.data is None:
            return Reference.load(self.source, network)
        return Reference.of_data(network, self.data, group=group)


def _say(source: str, note: str) -> None:
    warnings.warn(f"{source}: {note}", FewstepWarning, stacklevel=2)


def labels_like(evaluator: Evaluator, f: FlowMap, n: int) -> tuple[Tensor | None, list[str]]:
    """Classes for ``n`` samples in the reference's proportions, by the model's numbers [n].

    Where the model does not know all of the reference's classes, or the reference is statistics,
    every class of the model comes equally often; the former is said in a note.
    """
    if not f.num_classes:
        return None, []
    in_turn = torch.arange(n) % f.num_classes
    if evaluator.labels is None:
        return in_turn, []
    wanted = evaluator.labels_for(n)
    classes = evaluator.reference.classes
    if not classes:
        return wanted, []
    labels = Agreement(classes, f.classes).translated(wanted)
    if bool((labels >= 0).all()):
        return labels, []
    lost = [classes[i] for i in wanted[labels < 0].unique().tolist()]
    return in_turn, [
        f"the model does not make the reference's classes {listed(lost)}: it was sampled with its "
        f"own, {listed(f.classes)}, equally often."
    ]
