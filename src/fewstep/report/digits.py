"""scikit-learn's 8x8 digits: the first story, in minutes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from fewstep.data import Dataset, load
from fewstep.evaluation import Evaluator
from fewstep.evaluation.classifier import Classifier
from fewstep.flow_map import FlowMap
from fewstep.report.editing import Edits
from fewstep.report.plan import Plan
from fewstep.report.scoring import Result
from fewstep.report.story import BASELINES, TEST, Story, find, labels_of
from fewstep.stages.stage import Training


class Digits(Story):
    """The digits by a plan's methods, scored against the training images.

    Args:
        plan: what to train and sample.
    """

    title = "Consistency models on handwritten digits"
    caption = "CD and ECT start from the diffusion model in the first row; iCT and CT never saw it."
    expected = "Of what the paper's own table makes one expect:"
    edits_note = (
        "The feature distance is the mean distance in the 32 features of the digit classifier. The "
        "model is told each image's class, and so is the mean image; the other baselines have no "
        "use for it. The blur is the best of eight widths on the training images."
    )
    papers = True

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @cached_property
    def train(self) -> Dataset:
        return load("digits")

    @cached_property
    def test(self) -> Dataset:
        return load("digits", split="test")

    def evaluator(self, network: Classifier) -> Evaluator:
        return Evaluator.of(network, self.train.images, labels_of(self.train))

    def baselines(self, evaluator: Evaluator) -> list[Result]:
        scores = evaluator.baselines(self.test.images, labels_of(self.test))
        return [Result(BASELINES, name, None, score) for name, score in scores.items()]

    def edits(self, f: FlowMap, teacher: FlowMap, network: Classifier) -> Edits:
        return Edits(f, teacher, self.train, self.test, network)

    def lead(self, results: Sequence[Result], R: float) -> str:
        trainings = sum(isinstance(stage, Training) for stage in self.plan.stages)
        teacher, two = find(results, "edm-heun-18"), find(results, "cd-heun-2")
        return (
            f"{trainings} trainings on scikit-learn's 8x8 digits, one small network. The diffusion "
            f"model (EDM) needs {teacher.nfe} evaluations of it for a Fréchet distance of "
            f"{teacher.scores.fd:.2f}; distilled into a consistency model, two give "
            f"{two.scores.fd:.2f}. R = {R:.2f} is the distance of a Gaussian fitted to the pixels "
            "of each class, which a generator has to beat to have shown anything."
        )

    def how(self, results: Sequence[Result], R: float) -> str:
        n = next(r.scores.n for r in results if r.nfe)
        test = next(r.scores.n for r in results if r.method == TEST)
        return (
            f"FD is the Fréchet distance to the {n} training images over the 32 features of a "
            "small digit classifier trained on them; IS, precision and recall (k = 3) use the same "
            f"network. Every generator made {n} images with the class counts of the training "
            f"images; the real test split has {test}, and a smaller sample has a slightly larger "
            "FD. Class is the share of images that the classifier takes for the class that was "
            f"asked for. FD / R is in units of the class-wise Gaussian's {R:.3f}. Sampling times "
            "include making the noise."
        )

    def remarks(self, results: Sequence[Result], R: float) -> list[str]:
        def fd(key: str) -> float:
            return find(results, key).scores.fd

        def recall(key: str) -> float:
            return find(results, key).scores.recall

        teacher, one = find(results, "edm-heun-18"), find(results, "cd-heun-1")
        speed = (teacher.seconds or 0) / (one.seconds or 1)
        return [
            f"CD makes an image in one evaluation at {fd('cd-heun-1') / R:.2f} R, {speed:.0f} "
            "times as fast as its teacher with Heun's method at "
            f"{fd('edm-heun-18') / R:.2f} R; the teacher's own four Euler steps reach "
            f"{fd('edm-euler-4') / R:.2f} R.",
            f"A second evaluation changes CD from {fd('cd-heun-1'):.2f} to "
            f"{fd('cd-heun-2'):.2f}, ECT from {fd('ect-heun-1'):.2f} to {fd('ect-heun-2'):.2f}, "
            f"iCT from {fd('ict-heun-1'):.2f} to {fd('ict-heun-2'):.2f}.",
            f"Plain CT, trained as in the paper, ends at {fd('ct-heun-1') / R:.2f} R in one step, "
            f"where iCT in as many steps reaches {fd('ict-heun-1') / R:.2f} R. What limits it is "
            "where it spends its loss: with neighbours chosen uniformly and a weight of 1, the "
            "small times at which strokes take their shape hardly count. docs/digits.md changes "
            "one thing at a time.",
            "FD alone rewards smoothing: a low FD with a low recall has lost variety. Recall at "
            f"two steps is {recall('cd-heun-2'):.2f} (CD), {recall('ect-heun-2'):.2f} (ECT), "
            f"{recall('ict-heun-2'):.2f} (iCT), against {recall('edm-heun-18'):.2f} for the "
            "teacher.",
            "One seed each: differences of a tenth of R are noise.",
        ]
