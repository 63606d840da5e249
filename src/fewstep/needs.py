"""What an objective says of itself: what it needs, what it costs, and where its minimum is.

What it needs of the map that it trains, of the data and of other models is one declaration,
``Objective.needs``: it is read by ``fewstep list``, by ``--dry-run``, by the way from
a run to its training, by the errors and by the contracts of objectives, which build a map that
fits. Nothing here imports torch, so that a list of objectives does not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fewstep.errors import FewstepError


class TeacherUse(Enum):
    """What an objective wants of a trained model."""

    NONE = "trains from scratch"
    START = "starts from a diffusion model's weights"
    DISTIL = "starts from a diffusion model's weights and follows its PF-ODE"
    REFINE = "starts from a consistency model's weights and keeps that model beside it"

    @property
    def asked(self) -> bool:
        """Whether the model is asked while the objective trains, and so is held beside the map."""
        return self in (TeacherUse.DISTIL, TeacherUse.REFINE)


PAIRS = ("noise", "trajectory", "times")
"""Columns of the folders that ``fewstep pairs`` makes; a reader of the user's may give others."""
IMAGES, TRAJECTORIES, LATENTS = "images", "trajectories", "latents"
"""What networks give: an image, all states on the way to it, or a code and what it decodes to."""
NETWORKS = {
    TRAJECTORIES: "a network of whole trajectories (network dfno)",
    LATENTS: "an autoencoder network (such as conv_autoencoder)",
}


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What must be there before the first step.

    Args:
        teacher: what it takes from a trained model; with `TeacherUse.DISTIL` and
            `TeacherUse.REFINE` its constructor has an argument ``teacher``.
        columns: what it learns from of each example besides the image and its label, such as the
            noise of a pair; it comes as an argument of this name.
        network: what the network gives: `IMAGES`, `TRAJECTORIES` or `LATENTS`.
        two_time: the network takes both times, where the map starts and where it ends.
        processes: names of the processes that it is defined for; none is any.
        forms: names of the forms of the map that it is defined for; none is any.
        flow: the map begins as the PF-ODE does, whatever its form: see `Parameterization.flow`.
        continuous: the map does not jump at its end, so that it has a derivative in ``t``.
        eps_zero: the map ends at the data itself.
        null_class: the network learns with and without its class, by label dropout.
        guided: its teacher may be guided: its constructor has the arguments ``guidance``, and
            ``weak`` for a weaker model to be guided by.
        every_class: what it learns of an example belongs to its class, so that label dropout,
            which hides some, would teach means over classes.
    """

    teacher: TeacherUse = TeacherUse.NONE
    columns: tuple[str, ...] = ()
    network: str = IMAGES
    two_time: bool = False
    processes: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    flow: bool = False
    continuous: bool = False
    eps_zero: bool = False
    null_class: bool = False
    guided: bool = False
    every_class: bool = False

    @property
    def other_columns(self) -> tuple[str, ...]:
        """The columns that no folder of pairs has."""
        return tuple(name for name in self.columns if name not in PAIRS)

    @property
    def words(self) -> tuple[str, ...]:
        """Each need in a few words; what every objective needs is not said."""
        pairs = [name for name in self.columns if name in PAIRS]
        said = {
            "a teacher to start from": self.teacher is TeacherUse.START,
            "a teacher to distil": self.teacher is TeacherUse.DISTIL,
            "a consistency model to refine": self.teacher is TeacherUse.REFINE,
            f"pairs ({', '.join(pairs)})": bool(pairs),
            f"data with {', '.join(self.other_columns)}": bool(self.other_columns),
            NETWORKS.get(self.network, ""): self.network in NETWORKS,
            "a two-time network": self.two_time,
            f"the process {' or '.join(self.processes)}": bool(self.processes),
            f"the form {' or '.join(self.forms)}": bool(self.forms),
            "a map that is a flow": self.flow,
            "a map that does not jump at its end": self.continuous,
            "eps = 0": self.eps_zero,
            "label dropout": self.null_class,
            "no label dropout": self.every_class,
        }
        return tuple(words for words, needed in said.items() if needed)


class FixedPoint(Enum):
    """Where the minimum of an objective is, of a network that can be any function.

    That is: which map makes the expectation of its loss smallest or, where the loss has a floor or
    a stop-gradient, makes the expectation of its gradient vanish.
    """

    DENOISER = "the denoiser E[x_0 | x_t]"
    """The diffusion model of the data; its map in one step is no sample of them."""
    MAP = "the exact map along the PF-ODE"
    """Of the data, or of the teacher's PF-ODE, whatever the settings.

    Without a teacher a weight that depends on the error, such as MeanFlow's or a tangent of unit
    length, moves it where the velocities of the lines through a point are spread unevenly about
    their mean; on Gaussian data they are not.
    """
    LAW = "the law of the data"
    """Any map that takes the law of the noise to that; it need not follow the PF-ODE."""
    LIMIT = "the exact map in a limit, such as of a gap between two times that closes"
    """Before the limit it is another map, whose distance from that vanishes on the way there."""
    NONE = "nothing that is known"
    """No map along the PF-ODE, or nobody has said."""


@dataclass(frozen=True)
class Fewest:
    """How many images must be computed at once, for a loss to be the one that is written.

    Args:
        images: of a micro-batch.
        why: what takes so many.
    """

    images: int = 1
    why: str = ""

    def check(self, images: int) -> None:
        """Raise `FewstepError` where fewer are computed at once."""
        if images < self.images:
            raise FewstepError(
                f"{self.why}: that takes {self.images} images at once, and {images} of a batch "
                f"{'is' if images == 1 else 'are'} computed at once. Give a larger batch, or fewer "
                "microbatches."
            )


BACKWARD = 2
"""Network evaluations that a backward pass costs."""
TANGENT = 2
"""Network evaluations that a forward-mode derivative adds to the pass that it comes with.

One number for all networks, so that costs can be compared: products of matrices alone would be 1.
`python benchmarks/tangent_cost.py` measures it: on a CPU 2.2 with the MLP of the digits, 2.6 to 2.9
with a transformer or a U-Net of 64 channels, 4.3 with a U-Net of 32 channels on 16x16 pixels, whose
norms and activations cost as much as its convolutions.
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one training step costs for each image, at the objective's default settings.

    In passes through a network of the map's size; a part of the batch counts as a part of a pass.

    Args:
        forward: passes forwards through the map in training and its averages, with or without
            gradient.
        backward: passes backwards.
        tangent: derivatives in forward mode, each beside a pass forwards.
        teacher: passes of frozen models.
    """

    forward: float = 1
    backward: float = 1
    tangent: float = 0
    teacher: float = 0

    @property
    def evaluations(self) -> float:
        """The same in evaluations of the network, forwards and without gradient."""
        return self.forward + BACKWARD * self.backward + TANGENT * self.tangent + self.teacher

    @property
    def words(self) -> str:
        """In a few words, for a list."""
        return f"{self.evaluations:g} evaluations an image"
