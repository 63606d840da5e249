"""What the scores of the methods say, in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fewstep.report.methods_plan import FAMILY, recipes
from fewstep.report.methods_scores import DATA, LATENTS, PIXELS, Findings, Measured, Sampled

COUNTS = {1: "one step", 2: "two steps", 4: "four steps"}


@dataclass(frozen=True)
class Behind:
    """A method that does not reach CD.

    Args:
        method: which.
        where: in how many steps, with what it has and what CD has.
        remarks: what its recipe says of its settings, and of what was tried.
    """

    method: Measured
    where: str
    remarks: str


def introduction(findings: Findings) -> tuple[str, ...]:
    """What was compared, and how: paragraphs."""
    edm, cd = findings.teacher, findings.reference
    return (
        "Methods since consistency models (Song et al. 2023) on one data set, with one network and "
        "at one training compute: scikit-learn's 8x8 digits and a residual MLP. "
        f"{_completeness(findings)}",
        "Compute is counted in evaluations of the network for each image of a batch. A pass "
        "forwards is 1, a pass backwards 2, a derivative in forward mode 2, and a teacher's passes "
        f"count too. What begins with a diffusion model spends what CD does: {cd.spent:,.0f}, on "
        f"top of the {edm.spent:,.0f} of that model. What learns from data alone spends what CD "
        f"and its teacher do together: {cd.spent + edm.spent:,.0f}. A recipe that spends another "
        "amount is trained for other steps here. Stages of one method share what it may spend. An "
        "autoencoder comes on top.",
        f"FD is the Fréchet distance of {findings.n:,} samples to the training images, over the "
        f"features of a small digit classifier. The test images have {findings.real:.2f}, and a "
        f"Gaussian fitted to the pixels of each class has {findings.R:.2f}. {_seeds(findings)}",
    )


def _completeness(findings: Findings) -> str:
    """Which recipes are not among what was measured."""
    here = {method.name for method in findings.all}
    known = [recipe.removeprefix(FAMILY) for recipe in recipes()]
    missing = [name for name in known if name not in here]
    if not missing:
        return "All that have a recipe are here."
    return f"Not measured here, though there are recipes of them: {', '.join(missing)}."


def _seeds(findings: Findings) -> str:
    again = [m for m in findings.methods if m.seeds > 1]
    if not again:
        return "Each score is of one seed of the training."
    ranked = sorted(findings.methods, key=lambda m: min(s.fd.values[0] for s in m.sampled))
    which = (
        f"the {len(again)} methods that were lowest with the first seed, at their best of 1, 2 and "
        "4 steps"
    )
    if {m.name for m in again} != {m.name for m in ranked[: len(again)]}:
        which = ", ".join(m.name for m in again)
    return (
        f"Mean ± standard deviation is over {max(m.seeds for m in again)} seeds of the training, "
        f"each from the same models: of the diffusion model, of CD, and of {which}. Other scores "
        "are of one seed."
    )


def sentences(findings: Findings) -> list[str]:
    """What was expected of the methods, and what was found."""
    return [*_in_one(findings), *_in_few(findings), _ahead(findings), *_widest(findings)]


def _in_one(findings: Findings) -> Iterator[str]:
    """The best method in one step, of each group, against CD."""
    for group, methods in findings.groups.items():
        others = [m for m in methods if m is not findings.reference]
        if (best := _best(others, 1)) is not None:
            yield _below(findings, AMONG[group], *best)


AMONG = {
    PIXELS: "Of those that begin with a diffusion model and spend what CD does",
    LATENTS: "Of those that do so in the latent space of an autoencoder, which comes on top",
    DATA: "Of those that learn from data alone and spend what CD and its teacher do together",
}


def _below(findings: Findings, among: str, method: Measured, one: Sampled) -> str:
    cd = findings.reference.at(1)
    assert cd is not None
    share = 1 - one.fd.mean / cd.fd.mean
    where = f"{abs(share):.0%} {'below' if share > 0 else 'above'} CD's {cd.fd}"
    return f"{among}, {method.name} is best in one step: {one.fd}, {where}."


def _in_few(findings: Findings) -> Iterator[str]:
    """The best methods in two and four steps, against the diffusion model in many."""
    edm = findings.teacher.best
    for steps in (2, 4):
        if (best := _best(findings.methods, steps)) is not None:
            method, few = best
            lower = "below" if few.fd.mean < edm.fd.mean else "not below"
            yield (
                f"In {COUNTS[steps]} {method.name} is best: {few.fd}, {lower} the {edm.fd} of the "
                f"diffusion model in {edm.nfe} evaluations."
            )


def _ahead(findings: Findings) -> str:
    """How many methods are ahead of CD, by the number of steps."""
    counts = []
    for steps, words in COUNTS.items():
        have = [m for m in findings.methods if m.at(steps)]
        ahead = [m for m in have if not _is_behind(m, findings.reference, steps)]
        counts.append(f"{len(ahead)} of {len(have)} in {words}")
    return f"Ahead of CD are {', '.join(counts)}."


def _widest(findings: Findings) -> Iterator[str]:
    """Where the seeds differ most, if there are several."""
    found = [(m, s) for m in findings.methods for s in m.sampled if s.fd.std is not None]
    if found:
        method, s = max(found, key=lambda pair: pair[1].fd.std or 0.0)
        yield (
            f"The seeds differ most in {COUNTS[s.steps]} of {method.name}: {s.fd}. Scores of one "
            "seed that differ by less may be luck."
        )


def _best(methods: Iterable[Measured], steps: int) -> tuple[Measured, Sampled] | None:
    """The method with the lowest distance in so many steps."""
    found = [(method, s) for method in methods if (s := method.at(steps))]
    return min(found, key=lambda pair: pair[1].fd.mean, default=None)


def _is_behind(method: Measured, reference: Measured, steps: int) -> bool:
    ours, cd = method.at(steps), reference.at(steps)
    return ours is not None and cd is not None and ours.fd.mean >= cd.fd.mean


CAPTIONS = {
    "quality": "Fréchet distance against evaluations of the network for an image. Colours have the "
    "methods with several seeds.",
    "seconds": "Fréchet distance against the seconds of the training, with all it builds on.",
    "training": "Energy distance to the data over the training, of samples in one step. It is a "
    "distance of pixels, so that it ranks otherwise than FD.",
}
"""What the pictures show, by their names."""


def why_behind(findings: Findings) -> str:
    """What is said of all methods that do not reach CD."""
    many = findings.teacher.best
    return (
        "In these numbers of steps, with what the recipes say of their settings and of what was "
        "tried. All were trained as long as CD, which is short: a method that improves slowly, or "
        "that was made for larger networks and data, does not show here what it can do. A method "
        f"that follows the diffusion model inherits its errors: with {many.nfe} evaluations that "
        f"model has {many.fd} itself."
    )


def behind(findings: Findings) -> Sequence[Behind]:
    """The methods that do not reach CD in some number of steps, the nearest first."""
    found = []
    for method in findings.methods:
        steps = [k for k in COUNTS if _is_behind(method, findings.reference, k)]
        if steps:
            where = ", ".join(_against(method, findings.reference, k) for k in steps)
            found.append(Behind(method, where, method.remarks))
    return found


def _against(method: Measured, reference: Measured, steps: int) -> str:
    ours, cd = method.at(steps), reference.at(steps)
    assert ours is not None
    assert cd is not None
    return f"{ours.fd.mean:.2f} against {cd.fd.mean:.2f} in {COUNTS[steps]}"
