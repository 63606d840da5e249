"""What a reproduction is of: its images, its plan, and the words of its page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from fewstep.data import Dataset
from fewstep.errors import FewstepError
from fewstep.evaluation import Evaluator
from fewstep.evaluation.classifier import Classifier
from fewstep.flow_map import FlowMap
from fewstep.report.editing import Edits
from fewstep.report.plan import Plan
from fewstep.report.scoring import SHEET, Result, Scoreboard

BASELINES = "Baselines"
TEST, TRAINING = "real test split", "real training images"
HELD_OUT = "real test images, half against half"
REAL = (TEST, HELD_OUT)
GAUSSIAN = "class-wise pixel Gaussian"


@dataclass(frozen=True)
class Section:
    """A part of the page that only some stories have.

    Args:
        title: heading.
        lines: sentences, each a paragraph.
        pictures: PNG bytes by name, which is that of a file as well.
    """

    title: str
    lines: tuple[str, ...]
    pictures: Mapping[str, bytes] = field(default_factory=dict)


class Story(ABC):
    """A reproduction on real images; a subclass says of which, and what they show."""

    plan: Plan
    title: ClassVar[str]
    caption: ClassVar[str]
    """Under the first picture: what the rows are."""
    edited_by: ClassVar[tuple[str, str]] = ("cd", "edm")
    """The stages whose models edit: a consistency model and its teacher."""
    edits_note: ClassVar[str]
    """Under the table of edits: what was measured."""
    expected: ClassVar[str]
    """Before the list of what was expected."""
    papers: ClassVar[bool] = False
    """Whether the papers' table is written beside the page."""
    samples: int | None = None
    """Of each row, that are scored; default as many as the reference has."""
    sheet: int = SHEET
    """Of each row, in a picture."""
    sheet_width: ClassVar[str] = "17rem"
    """Of that picture on the page."""

    @property
    @abstractmethod
    def train(self) -> Dataset:
        """Labelled images to learn from."""

    @property
    @abstractmethod
    def test(self) -> Dataset:
        """Labelled images that no training has seen."""

    @abstractmethod
    def evaluator(self, network: Classifier) -> Evaluator:
        """What scores, by a classifier of the training images."""

    @abstractmethod
    def baselines(self, evaluator: Evaluator) -> list[Result]:
        """Real images and the Gaussian, scored."""

    @abstractmethod
    def edits(self, f: FlowMap, teacher: FlowMap, network: Classifier) -> Edits:
        """What is to be edited, and by what."""

    @abstractmethod
    def lead(self, results: Sequence[Result], R: float) -> str:
        """What the page is about."""

    @abstractmethod
    def how(self, results: Sequence[Result], R: float) -> str:
        """How the scores were made."""

    @abstractmethod
    def remarks(self, results: Sequence[Result], R: float) -> list[str]:
        """What the numbers say, in sentences."""

    def targets(self, results: Sequence[Result], R: float) -> list[str]:
        """What was expected, and what was found, where that is not the papers' table."""
        return []

    def more(self, board: Scoreboard) -> list[Section]:
        """Parts of the page that other stories do not have."""
        return []


def labels_of(data: Dataset) -> Tensor:
    """The labels of data that have some.

    Raises:
        FewstepError: it has none.
    """
    if data.labels is None:
        raise FewstepError(f"{data.name} has no labels.")
    return data.labels


def find(results: Sequence[Result], key: str) -> Result:
    """The result of a row."""
    return next(r for r in results if r.key == key)
