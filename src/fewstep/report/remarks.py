"""What a reproduction's numbers say, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from fewstep.report.scoring import Result

TEST, GAUSSIAN = "real test split", "class-wise pixel Gaussian"


def _find(results: Sequence[Result], key: str) -> Result:
    return next(r for r in results if r.key == key)


def lead(results: Sequence[Result], R: float, trainings: int) -> str:
    """What the page is about.

    Args:
        results: of all rows.
        R: Fréchet distance of the class-wise Gaussian.
        trainings: how many models were trained.
    """
    teacher, two = _find(results, "edm-heun-18"), _find(results, "cd-heun-2")
    return (
        f"{trainings} trainings on scikit-learn's 8x8 digits, one small network. The diffusion "
        f"model (EDM) needs {teacher.nfe} evaluations of it for a Fréchet distance of "
        f"{teacher.scores.fd:.2f}; distilled into a consistency model, two give "
        f"{two.scores.fd:.2f}. R = {R:.2f} is the "
        "distance of a Gaussian fitted to the pixels of each class, which a generator has to beat "
        "to have shown anything."
    )


def method(results: Sequence[Result], R: float) -> str:
    """How the scores were made."""
    n = next(r.scores.n for r in results if r.nfe)
    test = next(r.scores.n for r in results if r.method == TEST)
    return (
        f"FD is the Fréchet distance to the {n} training images over the 32 features of a small "
        "digit classifier trained on them; IS, precision and recall (k = 3) use the same network. "
        f"Every generator made {n} images with the class counts of the training images; the real "
        f"test split has {test}, and a smaller sample has a slightly larger FD. Class is the share "
        "of images that the classifier takes for the class that was asked for. FD / R is in units "
        f"of the class-wise Gaussian's {R:.3f}. Sampling times include making the noise."
    )


def remarks(results: Sequence[Result], R: float) -> list[str]:
    """What the numbers of this run say, in sentences."""

    def fd(key: str) -> float:
        return _find(results, key).scores.fd

    def recall(key: str) -> float:
        return _find(results, key).scores.recall

    teacher, one = _find(results, "edm-heun-18"), _find(results, "cd-heun-1")
    speed = (teacher.seconds or 0) / (one.seconds or 1)
    return [
        f"CD makes an image in one evaluation at {fd('cd-heun-1') / R:.2f} R, {speed:.0f} times as "
        f"fast as its teacher with Heun's method at {fd('edm-heun-18') / R:.2f} R; the teacher's "
        f"own four Euler steps reach {fd('edm-euler-4') / R:.2f} R.",
        f"A second evaluation changes CD from {fd('cd-heun-1'):.2f} to {fd('cd-heun-2'):.2f}, ECT "
        f"from {fd('ect-heun-1'):.2f} to {fd('ect-heun-2'):.2f}, iCT from "
        f"{fd('ict-heun-1'):.2f} to {fd('ict-heun-2'):.2f}.",
        f"Plain CT, trained as in the paper, ends at {fd('ct-heun-1') / R:.2f} R in one step, "
        f"where iCT in as many steps reaches {fd('ict-heun-1') / R:.2f} R. What limits it is where "
        "it spends its loss: with neighbours chosen uniformly and a weight of 1, the small times "
        "at which strokes take their shape hardly count. docs/digits.md changes one thing at a "
        "time.",
        "FD alone rewards smoothing: a low FD with a low recall has lost variety. Recall at two "
        f"steps is {recall('cd-heun-2'):.2f} (CD), {recall('ect-heun-2'):.2f} (ECT), "
        f"{recall('ict-heun-2'):.2f} (iCT), against {recall('edm-heun-18'):.2f} for the teacher.",
        "One seed each: differences of a tenth of R are noise.",
    ]
