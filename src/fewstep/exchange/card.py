"""The card of a model: what it is, how it is used, what it may be used for.

It is the ``README.md`` of a repository of the hub, or of an exported folder. The hub reads the YAML
at its beginning. Licence and origin of imported weights are a part of every card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewstep.errors import FewstepError
from fewstep.exchange.origin import forbids_commerce, licence_from, lineage, sources
from fewstep.exchange.origin import licence as inherited
from fewstep.files import replacing
from fewstep.flow_map import FlowMap
from fewstep.hub_name import HUB
from fewstep.models import AnyModel
from fewstep.version import __version__

KNOWN = {
    *("mit", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "agpl-3.0"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
    *("cc-by-3.0", "cc-by-sa-3.0", "cc-by-nc-3.0", "cc-by-nc-sa-3.0", "unlicense", "mpl-2.0"),
    *(
        "openrail",
        "creativeml-openrail-m",
        "openrail++",
        "isc",
        "zlib",
        "cdla-permissive-2.0",
    ),
}
"""Licences that the hub has a name for."""
_REPOSITORY = re.compile(rf"{HUB}([\w.-]+(/[\w.-]+)?)")
METRICS = {"fd": "fid", "kid": "kid", "inception_score": "inception_score"}
"""Scores that the hub has a name for."""


def licence_of(f: AnyModel, asked: str | None = None) -> str | None:
    """The licence that a model may be passed on under; None where nobody has said one.

    Weights that were imported, or made from such, keep their licence.

    Args:
        f: the model.
        asked: what the user says; default what the weights came with.

    Raises:
        FewstepError: ``asked`` would drop that the weights are for non-commercial use only.
    """
    bound = inherited(f.info)
    if asked is None or bound is None:
        return asked or bound
    if forbids_commerce(bound) and asked.lower() != bound.lower():
        raise FewstepError(
            f"these weights come from {_whence(f, bound)} under {bound}, which --licence {asked} "
            f"would drop: leave --licence out, and they stay under {bound}."
        )
    return asked


def _whence(f: AnyModel, licence: str) -> str:
    found = (o for o in lineage(f.info) if o.get("licence") == licence)
    return next(iter(sources({"lineage": list(found)})), "another model")


def card(
    f: AnyModel,
    *,
    title: str,
    use: str,
    licence: str | None = None,
    library: str = "fewstep",
    samples: str | None = None,
    scores: str | None = None,
    measured: Sequence[str] = (),
    recipe: str | None = None,
    data: str | None = None,
) -> str:
    """The text of a model's card, in Markdown behind YAML.

    Args:
        f: the model.
        title: its name.
        use: how it is used: Markdown, most often code.
        licence: what it is passed on under; default what its weights came with.
        library: what loads it, as the hub calls it.
        samples: Markdown that shows pictures of it.
        scores: a table of its scores, in Markdown.
        measured: names of these scores, as fields of `fewstep.evaluation.Scores`.
        recipe: how it was trained, in Markdown.
        data: the name of its images; of a data set of the hub the card has the repository.

    Raises:
        FewstepError: the licence would drop one that forbids commercial use.
    """
    licence = licence_of(f, licence)
    parts = [
        f"# {title}",
        _about(f),
        samples,
        f"## Use\n\n{use.strip()}",
        None if scores is None else f"## Scores\n\n{scores.strip()}",
        None if recipe is None else f"## Recipe\n\n{recipe.strip()}",
        "## Licence and origin\n\n" + "\n".join(_terms(f, licence)),
    ]
    said = _front(f, licence, library, measured, data)
    front = "\n".join(line for key, value in said.items() for line in _yaml(key, value))
    return f"---\n{front}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def write_card(folder: Path, text: str) -> None:
    """Put a card into a folder, as its README.md."""
    with replacing(folder / "README.md") as partial:
        partial.write_text(text, encoding="utf-8")


def _front(
    f: AnyModel, licence: str | None, library: str, measured: Sequence[str], data: str | None
) -> dict[str, Any]:
    """What the hub reads of a card."""
    objective = str(f.info.get("objective", "")).partition("(")[0]
    kind = f.trained.kind or "model"
    tags = ["fewstep", kind, *([objective] if objective else []), *_process(f)]
    task = "class-to-image" if f.num_classes else "unconditional-image-generation"
    named = {"license": licence.lower()} if licence and licence.lower() in KNOWN else {}
    if licence and not named:
        named = {"license": "other", "license_name": licence}
    return {
        "library_name": library,
        **named,
        "pipeline_tag": "unconditional-image-generation",
        "tags": list(dict.fromkeys([*tags, task])),
        "base_model": _bases(f.info),
        "datasets": _repositories(data),
        "metrics": [METRICS[name] for name in measured if name in METRICS],
    }


def _process(f: AnyModel) -> list[str]:
    return [f.p.config["name"]] if isinstance(f, FlowMap) else []


def _bases(info: Mapping[str, Any]) -> list[str]:
    """The repositories of the hub that a model was made from."""
    return list(dict.fromkeys(r for o in lineage(info) for r in _repositories(o.get("hub"))))


def _repositories(name: object) -> list[str]:
    """The repository that a name of a model or of data is of; none of other names."""
    match = _REPOSITORY.match(name) if isinstance(name, str) else None
    return [] if match is None else [match[1]]


def _yaml(key: str, value: Any) -> Iterator[str]:
    """A value as YAML; nothing of an empty list. A text of JSON is one of YAML, too."""
    if isinstance(value, list):
        yield from [f"{key}:", *(f"- {json.dumps(x)}" for x in value)] if value else []
    else:
        yield f"{key}: {json.dumps(value)}"


def _about(f: AnyModel) -> str:
    """What a model is, in a paragraph."""
    shape = " x ".join(map(str, f.image_shape))
    names = f.trained.classes
    classes = f" in {f.num_classes} classes" if f.num_classes else ""
    called = f" ({', '.join(names[:20])}{', ...' * (len(names) > 20)})" if names else ""
    count = sum(x.numel() for x in f.network.parameters())
    process = "".join(f", process {name}" for name in _process(f))
    steps = "" if f.trained.step is None else f" after {f.trained.step:,} steps"
    objective = f.info.get("objective")
    made = f" Trained by `{objective}`{steps}." if objective else ""
    images = f.info.get("data")
    on = f" Its images are those of {images}." if images else ""
    what = f.trained.name
    return (
        f"{what[:1].upper()}{what[1:]} of images {shape}{classes}{called}: network "
        f"{f.network.config['name']} of {count:,} parameters{process}.{made}{on} Made with fewstep "
        f"{__version__}."
    )


def _terms(f: AnyModel, licence: str | None) -> Iterator[str]:
    """Under which licence the weights are, and where they are from."""
    if licence is None:
        yield "No licence is stated. Ask the authors before you use these weights."
    else:
        only = " They are for non-commercial use only." if forbids_commerce(licence) else ""
        yield f"These weights are under {licence}.{only}"
    for origin in lineage(f.info):
        whence = next(iter(sources({"lineage": [origin]})), "a file")
        under = licence_from(origin) or "a licence that is not known"
        digest = str(origin.get("sha256") or "")[:12]
        yield f"- made from {whence}, under {under}" + (f", SHA-256 {digest}" if digest else "")
