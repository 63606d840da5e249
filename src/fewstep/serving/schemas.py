"""The bodies of requests."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from fewstep.editing.masks import Marks
from fewstep.spec import LONGEST

Format = Literal["b64_json", "png"]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Label = Annotated[int, Field(strict=True, ge=0, lt=2**31)] | Annotated[str, Field(max_length=100)]
Name = Annotated[str, Field(max_length=200)]
Spec = Annotated[str, Field(max_length=LONGEST)]
SAMPLER = (
    "The sampler as a spec, such as jumps(gamma=0.5, steps=4) or walk(solver=dpm3, nfe=12); "
    "default the model's own. What it leaves open, such as its steps, the other fields say."
)

GUIDANCE = (
    "Weight of classifier-free guidance, for a model that knows a null class; 1 is none, default "
    "the model's own."
)
PROMPT = (
    "What is to be seen, for a model that is told texts. For one with classes a class by name, for "
    "clients that know no other field; else it is not looked at."
)
INTERVAL = "Noise levels sigma/alpha, a lower and a higher, between which guidance applies."


class Body(BaseModel):
    """What all requests have in common: unknown fields are refused, so that no typo is ignored."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    model: Name | None = Field(None, description="Id of a model; default the first of /v1/models.")
    seed: Seed | None = Field(None, description="Decides the images; default a random one.")
    steps: int | None = Field(
        None, ge=1, le=10_000, description="Network evaluations; of a diffusion model solver steps."
    )
    label: Label | None = Field(
        None, alias="class", description="Class by number or name, for a conditional model."
    )


class Images(Body):
    """What requests for images have in common with those that OpenAI's clients send."""

    n: int = Field(1, ge=1, le=10_000, description="Number of images, each with noise of its own.")
    size: str | None = Field(
        None,
        max_length=20,
        examples=["256x256"],
        description="WxH, a whole multiple of the model's size, or of that of an edit's result: "
        "pixels are repeated. Or auto: just that size.",
    )
    response_format: Format = "b64_json"
    prompt: Annotated[str, Field(max_length=32_000)] | None = Field(None, description=PROMPT)
    user: Name | None = Field(None, description="Who asks; not looked at.")
    quality: Literal["auto", "standard"] | None = Field(None, description="There is one.")
    background: Literal["auto", "opaque"] | None = Field(None, description="There is one.")
    output_format: Literal["png"] | None = Field(None, description="There is one.")


class GenerationBody(Images):
    """``POST /v1/images/generations``."""

    sampler: Spec | None = Field(None, description=SAMPLER)
    guidance: float | None = Field(None, ge=0, le=1000, description=GUIDANCE)
    guidance_interval: tuple[float, float] | None = Field(None, description=INTERVAL)
    strip: bool = Field(False, description="Also the images after every step.")
    stream: bool = Field(
        False, description="Server-sent events: every step as it is done, then the whole answer."
    )


class EditBody(Images):
    """``POST /v1/images/edits``, as JSON; as a form, ``image`` and ``mask`` are files."""

    image: str = Field(description="Picture in base64; a data URL is fine.")
    mask: str | None = Field(
        None,
        description="Mask in base64, bright where to generate; where its transparency varies, "
        "wholly transparent there. Default the transparent part of the picture itself.",
    )
    marks: Marks | None = Field(
        None,
        description="What of the mask marks the hole: bright, dark, painted or transparent; "
        "default transparent where its transparency varies, else bright.",
    )
    task: Name = Field("inpaint", description="One of the model's tasks in /v1/models.")
    strength: float | None = Field(
        None, gt=0, le=1, description="How far strokes and vary go from the picture."
    )
    factor: int | None = Field(None, ge=2, le=64, description="Of superresolve.")
    sigma: float | None = Field(
        None, ge=0, description="Of denoise: noise in grey levels of 255; default an estimate."
    )
    blur: float | None = Field(None, ge=0, le=1000, description="Of deblur, in model pixels.")
    floor: float | None = Field(None, gt=0, le=1, description="Of deblur: smallest gain trusted.")
    top: int | None = Field(None, ge=0, le=10_000, description="Of outpaint: margin.")
    bottom: int | None = Field(None, ge=0, le=10_000, description="Of outpaint: margin.")
    left: int | None = Field(None, ge=0, le=10_000, description="Of outpaint: margin.")
    right: int | None = Field(None, ge=0, le=10_000, description="Of outpaint: margin.")
    fit: Literal["resize", "tile"] | None = Field(
        None, description="Stretch the picture to the model's size and back, or edit it in pieces."
    )

    def settings(self) -> dict[str, float | int | str]:
        """The task's own settings that were given."""
        names = ("strength", "factor", "sigma", "blur", "floor", "top", "bottom", "left", "right")
        given = {name: getattr(self, name) for name in (*names, "fit")}
        return {name: value for name, value in given.items() if value is not None}


class NeighboursBody(BaseModel):
    """``POST /v1/images/neighbours``."""

    model_config = ConfigDict(extra="forbid")

    model: Name | None = Field(None, description="Id of a model; default the first of /v1/models.")
    image: str = Field(description="Picture of the model's size in base64; a data URL is fine.")
    n: int = Field(8, ge=1, le=25, description="How many training images, the nearest first.")


class End(BaseModel):
    """One end of an interpolation: image number ``index`` of a seed."""

    model_config = ConfigDict(extra="forbid")

    seed: Seed
    index: int = Field(0, ge=0, lt=2**31)


class InterpolationBody(BaseModel):
    """``POST /v1/images/interpolations``."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    model: Name | None = None
    start: End = Field(alias="from")
    to: End
    frames: int = Field(9, ge=2, le=64)
    steps: int | None = Field(None, ge=1, le=10_000)
    sampler: Spec | None = Field(None, description=SAMPLER)
    guidance: float | None = Field(None, ge=0, le=1000, description=GUIDANCE)
    guidance_interval: tuple[float, float] | None = Field(None, description=INTERVAL)
    label: Label | None = Field(None, alias="class")
    prompt: Annotated[str, Field(max_length=32_000)] | None = Field(None, description=PROMPT)
    size: str | None = Field(None, max_length=20)
