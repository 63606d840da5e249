"""What a reproduction trains, and which lines its table has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One training.

    Args:
        name: name of its folder.
        recipe: which recipe.
        teacher: the stage whose model it starts from.
    """

    name: str
    recipe: str
    teacher: str | None = None


@dataclass(frozen=True)
class Row:
    """One line of the table: a trained model and a way to sample it.

    Args:
        group: heading it stands under, after Table 1 of Song et al. 2023.
        method: name in the table.
        stage: the training it comes from.
        steps: solver steps of a diffusion model, evaluations of a consistency model.
        solver: solver of a diffusion model.
    """

    group: str
    method: str
    stage: str
    steps: int
    solver: str = "heun"

    @property
    def key(self) -> str:
        """Unique in the table; names files."""
        return f"{self.stage}-{self.solver}-{self.steps}"


STAGES = (
    Stage("edm", "digits/edm"),
    Stage("ict", "digits/ict"),
    Stage("cd", "digits/cd", teacher="edm"),
    Stage("ect", "digits/ect", teacher="edm"),
    Stage("ct", "digits/ct"),
)

SAMPLERS = "Diffusion + samplers"
DISTILLED = "Diffusion + distillation"
DIRECT = "Direct generation"

ROWS = (
    Row(SAMPLERS, "EDM, Heun", "edm", 18),
    Row(SAMPLERS, "EDM, Heun", "edm", 5),
    Row(SAMPLERS, "EDM, Euler (DDIM)", "edm", 35, "euler"),
    Row(SAMPLERS, "EDM, Euler (DDIM)", "edm", 10, "euler"),
    Row(SAMPLERS, "EDM, Euler (DDIM)", "edm", 4, "euler"),
    Row(DISTILLED, "CD", "cd", 1),
    Row(DISTILLED, "CD", "cd", 2),
    Row(DISTILLED, "CD", "cd", 4),
    Row(DISTILLED, "ECT", "ect", 1),
    Row(DISTILLED, "ECT", "ect", 2),
    Row(DISTILLED, "ECT", "ect", 4),
    Row(DIRECT, "iCT", "ict", 1),
    Row(DIRECT, "iCT", "ict", 2),
    Row(DIRECT, "iCT", "ict", 4),
    Row(DIRECT, "CT", "ct", 1),
    Row(DIRECT, "CT", "ct", 2),
)
