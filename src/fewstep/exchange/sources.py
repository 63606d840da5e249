"""From another project's file to a model of ours.

What a file is follows from what is in it: the classes of its pickled objects, or the names and
shapes of its tensors. What neither tells is taken from the published models' own commands where the
file has the name of one, or from the user; whatever is assumed is said in a note.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property, reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep import networks, parameterization
from fewstep.errors import FewstepError, listed
from fewstep.exchange.diffusers.folder import is_folder
from fewstep.exchange.diffusers.reading import import_folder
from fewstep.exchange.diffusers.writing import own_weights
from fewstep.exchange.files.checkpoint import Checkpoint, read_checkpoint
from fewstep.exchange.files.checkpoint import is_foreign as is_foreign_file
from fewstep.exchange.files.chosen import Chosen, named_part
from fewstep.exchange.files.recognised import seems_to_be
from fewstep.exchange.files.shards import weights_in
from fewstep.exchange.files.tensors import read_tensors
from fewstep.exchange.imported import Imported
from fewstep.exchange.imported import Wanted as Wanted
from fewstep.exchange.layouts.layout import LAYOUTS, READ_HERE, Layout, is_known
from fewstep.exchange.layouts.pickled import arguments_of, process_of, settings_of
from fewstep.exchange.layouts.published import LINEAR, OPENAI, Published, pickled, published
from fewstep.exchange.told import OPENAI as TOLD_BY_OPENAI
from fewstep.exchange.told import as_said, time_scale
from fewstep.flow_map import FlowMap
from fewstep.networks import Network, skeleton, unfinished
from fewstep.trained import CONSISTENCY, DIFFUSION, Trained

EDM = {"name": "edm"}
WRAPPING = ("model", "unet", "net", "module", "_orig_mod", "module._orig_mod", "_orig_mod.module")
"""What stands before the names of a whole network, of which nothing is said."""


def is_foreign(path: Path) -> bool:
    """Whether a file or a folder holds weights of another project, as far as it tells."""
    return is_foreign_file(path) or is_folder(path)


def holds_foreign(folder: Path) -> bool:
    """Whether there are files with weights of another project in a folder."""
    return any(is_foreign_file(path) for path in weights_in(folder))


def import_model(path: Path, wanted: Wanted | None = None) -> Imported:
    """The model of another project's file, or of a folder of diffusers.

    Raises:
        FewstepError: the file is damaged, calls code, or holds a network that there is none of.
    """
    if own_weights(path) is not None:
        raise FewstepError(f"{path} is a model of fewstep already: nothing to import.")
    if is_folder(path):
        return import_folder(path, wanted or Wanted())
    return _Reading(read_checkpoint(path, _holds_known), wanted or Wanted()).imported()


def _holds_known(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors are those of a network that can be read, whatever stands before its names."""
    return named_part(tensors, is_known) is not None


class _Reading:
    """One file on its way to a model."""

    def __init__(self, file: Checkpoint, wanted: Wanted) -> None:
        self.file, self.wanted = file, wanted
        self.notes: list[str] = []
        self.outer = file.network
        self.tensors = self._of_network()
        self.layout = self._layout()
        self.known = self._known()

    def imported(self) -> Imported:
        """The model, its weights in their own type."""
        arguments = self._arguments()
        tensors = self._without_variance(arguments)
        with skeleton():
            F = networks.NETWORKS.call(self.layout.network, dict(arguments))
        weights = read_tensors(
            self.layout.pairs(F, self._heads_lead()),
            self._of_one_type(tensors),
            unused=self.layout.unused,
            source=self.file.path,
        )
        F = self._filled(F, arguments, weights)
        p = parameterization.from_config(self.process)
        f = FlowMap(F, p, trained=self._trained(), info={"origin": self._origin(F)})
        self._check_count(F)
        return Imported(f.eval(), self.layout.project, tuple(self.notes))

    def _of_network(self) -> dict[str, Tensor]:
        """The tensors of the raw network, without what is around it."""
        if self.outer is not None:
            self._say_part([self.file.part], self.file.left)
            inner = self.outer.part("model") or self.outer.part("unet") or self.outer
            return dict(inner.tensors())
        self._check_kind()
        part = named_part(self.file.tensors, is_known) or Chosen(self.file.tensors)
        self._say_part([self.file.part, part.name], (*self.file.left, *part.left))
        return dict(part.content)

    def _say_part(self, path: list[str], left: tuple[str, ...]) -> None:
        named = list(filter(None, path))
        telling = [name for name in named if name not in WRAPPING]
        if telling or left:
            rest = f"; left out: {listed(left)}" if left else ""
            self.notes.append(f"its weights are the part {'.'.join(telling or named)!r}{rest}")

    def _check_kind(self) -> None:
        """Raise `FewstepError` for weights that are of something else, as far as names tell."""
        kind = seems_to_be(self.file.tensors)
        if kind is not None:
            remedy = f": {kind.remedy}" if kind.remedy else ""
            raise FewstepError(f"{self.file.path} seems to be {kind.what}{remedy}. {READ_HERE}")

    def _layout(self) -> Layout:
        for layout in LAYOUTS:
            if layout.is_it(self.tensors):
                return layout
        seen = listed(list(self.tensors)[:3])
        raise FewstepError(
            f"{self.file.path} holds {len(self.tensors)} tensors ({seen}) of no network that is "
            f"known. {READ_HERE}"
        )

    def _known(self) -> Published | None:
        if self.outer is not None:
            return pickled(self.file.path, self.outer.kind)
        return published(self.file.path)

    def _arguments(self) -> dict[str, Any]:
        try:
            found = self.layout.arguments(self.tensors, self.wanted)
        except KeyError as error:
            raise FewstepError(
                f"{self.file.path} looks like {self.layout.project}, but has no tensor {error}."
            ) from error
        except FewstepError as error:
            raise FewstepError(
                f"{self.file.path} is {self.layout.project}, but {error}."
            ) from error
        except (LookupError, ArithmeticError, TypeError, ValueError) as error:
            raise FewstepError(
                f"{self.file.path} has the names of {self.layout.project}, but shapes that it "
                "never has: it is damaged, or another network."
            ) from error
        self._check_wanted(found["shape"][1])
        settings = self._assumed(found["shape"][1]) if self.layout.silent else {}
        settings |= {} if self.known is None else self.known.settings
        return {**found, **self._said(), **settings, **self.wanted.network}

    def _assumed(self, size: int) -> dict[str, Any]:
        """What a silent file leaves open; each assumption is a note."""
        scale = time_scale(self.process, consistency=False, project=TOLD_BY_OPENAI)
        wanted, known = self.wanted, self.known is not None
        if wanted.size is None:
            self.notes.append(f"its images are taken to be {size} pixels wide (--size)")
        if not known and not {"heads", "head_channels"} & set(wanted.network):
            self.notes.append(
                "its attention heads are taken to have 64 channels (--head-channels, --heads)"
            )
        if not known and "time_scale" not in wanted.network:
            self.notes.append(as_said(scale))
        return {"time_scale": scale}

    def _said(self) -> dict[str, Any]:
        """The arguments that a pickled network remembers."""
        try:
            return arguments_of(self._settings(), self.layout.network)
        except FewstepError as error:
            raise FewstepError(f"{self.file.path}: {error}.") from error

    def _check_wanted(self, size: int) -> None:
        """Raise `FewstepError` where the user says what the file says itself, or has no place."""
        if self.layout.silent:
            return
        if self.wanted.size not in (None, size):
            raise FewstepError(
                f"the images of {self.file.path} are {size} pixels wide, and --size says "
                f"{self.wanted.size}: leave it out."
            )
        if self.wanted.heads_lead is not None:
            raise FewstepError(
                f"{self.file.path} is {self.layout.project}, whose order of queries, keys and "
                "values is known: leave out --attention-order."
            )

    def _settings(self) -> dict[str, Any]:
        """What a pickled network remembers of its construction and of itself."""
        if self.outer is None:
            return {}
        inner = self.outer.part("model") or self.outer.part("unet")
        return {**settings_of(self.outer), **({} if inner is None else settings_of(inner))}

    def _without_variance(self, arguments: Mapping[str, Any]) -> dict[str, Tensor]:
        """The tensors without a last layer's second half, which predicts a variance."""
        image = arguments["shape"][0]
        last = {"adm": ("out.2", "out_conv")}.get(self.layout.network, ())
        tensors = dict(self.tensors)
        for layer in last:
            for kind in ("weight", "bias"):
                x = tensors.get(f"{layer}.{kind}")
                if x is not None and len(x) == 2 * image:
                    tensors[f"{layer}.{kind}"] = x[:image]
        if any(x.shape != self.tensors[name].shape for name, x in tensors.items()):
            self.notes.append("its prediction of the variance is left out")
        return tensors

    def _learns_variance(self) -> bool:
        out = self.tensors.get("out.2.bias")
        read = self.tensors.get("input_blocks.0.0.weight")
        return out is not None and read is not None and len(out) == 2 * read.shape[1]

    def _heads_lead(self) -> bool:
        if not self.layout.silent:
            return True
        if self.wanted.heads_lead is not None:
            return self.wanted.heads_lead
        if self.known is not None:
            return self.known.heads_lead
        lead = self._learns_variance()
        order = "head, three, channel" if lead else "three, head, channel"
        self.notes.append(f"its queries, keys and values are taken to be in the order ({order})")
        return lead

    def _of_one_type(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights of several types in the widest of them, which changes no number."""
        types = {x.dtype for x in tensors.values()}
        if len(types) == 1:
            return tensors
        widest = reduce(torch.promote_types, types)
        self.notes.append(f"its weights have several types, and are kept in {widest}"[:120])
        return {name: x.to(widest) for name, x in tensors.items()}

    def _filled(
        self, F: Network, arguments: Mapping[str, Any], weights: Mapping[str, Tensor]
    ) -> Network:
        """The network with these weights, in the type that they have."""
        shapes = {name: x.shape for name, x in F.state_dict().items()}
        for name, x in weights.items():
            if x.shape != shapes[name]:
                raise FewstepError(
                    f"{name} of {self.file.path} has the shape {list(x.shape)}, where "
                    f"{self.layout.project} of its settings has {list(shapes[name])}."
                )
        F.load_state_dict(dict(weights), assign=True, strict=False)
        if unfinished(F):  # tensors that no file stores, but the arguments decide
            F = networks.NETWORKS.call(self.layout.network, dict(arguments))
            F.load_state_dict(dict(weights), assign=True, strict=False)
        return F

    @cached_property
    def process(self) -> dict[str, Any]:
        """Name and arguments of its process."""
        return dict(self.wanted.process or self._own_process())

    def _own_process(self) -> dict[str, Any]:
        if self.outer is not None:
            try:
                return process_of(self.outer)
            except FewstepError as error:
                raise FewstepError(f"{self.file.path}: {error}.") from error
        if self.known is not None and self.known.process:
            return self.known.process
        if self._learns_variance():
            self.notes.append("its process is taken to be DDPM's of 1000 linear betas (--process)")
            return LINEAR
        if self.known is None:
            self.notes.append("its process is taken to be EDM's with sigma_data 0.5 (--process)")
        return EDM

    def _trained(self) -> Trained:
        """What it can do. A class that was left out now and then is a null class."""
        guided = bool(self._settings().get("label_dropout"))
        consistency, earliest = self._is_consistency(), self.wanted.earliest
        if earliest is not None and not consistency:
            raise FewstepError(
                f"{self.file.path} is a diffusion model, which knows all times: leave out "
                "--earliest."
            )
        made = CONSISTENCY if consistency else DIFFUSION
        return replace(made, null_class=guided, earliest=earliest)

    def _is_consistency(self) -> bool:
        if self.wanted.consistency is not None:
            return self.wanted.consistency
        if self.known is not None:
            return self.known.consistency
        if self._learns_variance():
            return False
        raise FewstepError(
            f"{self.file.path} does not say whether it is a diffusion or a consistency model, and "
            "its name is of none that was published: say which with fewstep import --as diffusion "
            "or --as consistency."
        )

    def _origin(self, F: Network) -> dict[str, Any]:
        """Where the weights are from, and under which licence: a name alone gives none."""
        known = self.known
        if known is not None and known.parameters not in (None, _count(F)):
            known = replace(known, licence="")
        return {
            "file": self.file.path.name,
            "sha256": self.file.sha256,
            "project": self.layout.project,
            "source": None if known is None else known.source or None,
            "licence": None if known is None else known.licence or None,
        }

    def _check_count(self, F: Network) -> None:
        """Raise `FewstepError` where a published name hides another network.

        Where the name decides no more than details of the network, it is only noted.
        """
        expected = None if self.known is None else self.known.parameters
        count = _count(F)
        if expected is None or count == expected:
            return
        if self.known is not None and self.known.source != OPENAI:
            self.notes.append(
                f"the published model of its name has {expected:,} parameters, and this one "
                f"{count:,}: it is another one"
            )
        else:
            raise FewstepError(
                f"{self.file.path} has the name of a published model of {expected:,} parameters, "
                f"but {count:,}: it is another one. Give it another name, and say what it is."
            )


def _count(F: Network) -> int:
    return sum(x.numel() for x in F.parameters())
