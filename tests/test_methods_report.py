"""The methods since the paper: which there are, at what compute, and what their scores say."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from fewstep.cli import run
from fewstep.errors import FewstepError
from fewstep.needs import FixedPoint
from fewstep.objectives import OBJECTIVES
from fewstep.recipes import RECIPES
from fewstep.report import methods_figures, methods_plan
from fewstep.report.methods import chosen
from fewstep.report.methods_plan import (
    FAMILY,
    MEASURE,
    NEAR,
    TEACHER,
    Method,
    begins_with,
    budget,
    posted,
    recipes,
    spends,
    stages,
)
from fewstep.report.methods_scores import (
    DATA,
    LATENTS,
    PIXELS,
    Findings,
    Measured,
    Sampled,
    Spread,
    stored,
    write_csv,
)
from fewstep.report.methods_table import markdown, write_table
from fewstep.report.methods_words import behind, introduction, sentences
from fewstep.stages.stage import Stage, Training


@pytest.fixture(scope="module")
def plan() -> dict[str, Method]:
    return {method.name: method for method in methods_plan.methods()}


def test_every_objective_since_the_paper_has_a_row(plan: dict[str, Method]) -> None:
    since = {
        name
        for name in OBJECTIVES
        if posted((cls := OBJECTIVES[name]).citation) >= (2303, 1469)
        and cls.fixed_point is not FixedPoint.DENOISER
    }
    assert {"cd", "ict", "ect", "meanflow", "imm", "lcm"} <= since
    assert not {"score_matching", "kd", "pd", "dfno", "pfgm", "rf"} & since
    shown = [method.run.objective.name for method in plan.values()]
    assert {*shown} == since | {"score_matching"}


def test_all_spend_what_cd_does(plan: dict[str, Method]) -> None:
    """By hand: CD makes 1,200 steps of 6 evaluations, EDM 2,600 of 3."""
    assert spends(MEASURE) == pytest.approx(7_200)
    assert spends(TEACHER) == pytest.approx(7_800)
    for method in plan.values():
        spent = method.spent + sum(
            stage.total() * methods_plan.cost_of(stage.recipe)
            for stage in trainings(method.before)
            if not methods_plan._is_foundation(stage.recipe)
        )
        taught = "edm" in names(method.before) or "guided-lsgm" in names(method.before)
        wanted = 7_200 if taught else 15_000
        if method.recipe != TEACHER:
            assert budget(method.recipe) == pytest.approx(wanted)
            assert spent == pytest.approx(wanted, rel=NEAR), method.name


def trainings(stages: tuple[Stage, ...]) -> list[Training]:
    return [stage for stage in stages if isinstance(stage, Training)]


def names(stages: tuple[Stage, ...]) -> list[str]:
    return [stage.name for stage in stages]


def test_what_a_method_needs_is_found_by_what_it_declares(plan: dict[str, Method]) -> None:
    assert begins_with("digits/meanflow") == {}
    assert begins_with("digits/cd") == {"--teacher": TEACHER}
    assert begins_with("digits/cmt-ect") == {"--init": "digits/cmt"}
    assert names(plan["lcm"].before) == ["autoencoder", "guided-lsgm"]
    assert [method.name for method in plan.values() if method.decoded] == ["lcm"]
    ect, tcm = plan["tcm"].before[-1], plan["tcm"].training
    assert tcm.needs == {"--teacher": ect.name}
    assert isinstance(ect, Training)
    assert ect.steps == round(1500 * 7200 / 13200)  # of 6,000 and 7,200 evaluations
    assert ect.name == f"ect-{ect.steps}"
    everything = stages(plan.values(), seeds=2)
    order = names(everything)
    assert len(order) == len(set(order))
    for stage in everything:
        assert all(order.index(name) < order.index(stage.name) for name in stage.requires)


def test_a_recipe_that_spends_as_it_may_keeps_its_folder(plan: dict[str, Method]) -> None:
    assert plan["cd"].training == Training("cd", {"--teacher": "edm"}, "digits/cd")
    assert plan["ict"].training.name == "ict-3750"
    again = plan["cd"].seed(2)
    assert again.name == "cd-seed2"
    assert again.command(Path("runs"))[-4:] == ["--out", "runs/cd-seed2", "--teacher", "runs/edm"]
    assert again.options == ("--seed", "2")
    assert plan["cd"].seed(0) is plan["cd"].training


def test_a_model_that_no_recipe_makes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = replace(RECIPES["digits/tcm"](), teacher="runs/elsewhere")
    monkeypatch.setitem(
        RECIPES._recipes, "digits/tcm", replace(RECIPES["digits/tcm"], function=lambda: lost)
    )
    with pytest.raises(FewstepError, match=r"digits/tcm begins with runs/elsewhere"):
        begins_with("digits/tcm")


def measured(name: str, *fd: tuple[float, ...], begins: str = PIXELS) -> Measured:
    """A method with distances of seeds in 1, 2 and 4 steps."""
    sampled = tuple(
        Sampled(k, k, Spread(seeds), Spread((0.5,) * len(seeds)))
        for k, seeds in zip((1, 2, 4), fd, strict=False)
    )
    built_on, before = (0.0, 0.0) if begins == DATA else (78.0, 70.0)
    facts = (name, f"{name} of its paper.", f"Tried: {name}.", name, "Paper", "edm", ("data",))
    return Measured(*facts, begins, 10, 7.2, built_on, 60.0, before, sampled)


@pytest.fixture
def findings() -> Findings:
    many = Spread((3.6, 3.4))
    edm = replace(measured("edm"), sampled=(Sampled(18, 35, many, Spread((0.8, 0.8))),))
    cd = measured("cd", (5.4, 5.6), (4.1, 4.3), (4.2, 4.4))
    methods = (
        measured("flow", (3.8, 4.2), (1.5, 1.7), (1.4, 1.6), begins=DATA),
        measured("tuned", (5.0,), (4.5,), (3.0,)),
        measured("slow", (9.0,), (8.0,), (7.0,), begins=DATA),
    )
    return Findings(edm, cd, methods, 9.2, 0.7, 1437, "A machine")


def test_a_mean_has_its_spread() -> None:
    assert str(Spread((4.0, 5.0, 6.0))) == "5.00 ± 1.00"
    assert str(Spread((4.0,))) == "4.00"


def test_what_is_said_follows_the_scores(findings: Findings) -> None:
    taught, alone, two, four, ahead, widest = sentences(findings)
    assert "tuned is best in one step: 5.00, 9% below CD's 5.50 ± 0.14" in taught
    assert "flow is best in one step: 4.00 ± 0.28, 27% below" in alone
    assert "CD and its teacher do together" in alone
    assert "1.60 ± 0.14, below the 3.50 ± 0.14 of the diffusion model in 35" in two
    assert "In four steps flow" in four
    assert ahead == (
        "Ahead of CD are 2 of 3 in one step, 1 of 3 in two steps, 2 of 3 in four steps."
    )
    assert widest.startswith("The seeds differ most in one step of flow: 4.00 ± 0.28")
    assert "of the 1 methods that were lowest" in introduction(findings)[-1]
    best = measured("best", (1.0,))
    again = introduction(replace(findings, methods=(best, *findings.methods)))[-1]
    assert "of CD, and of flow. Other" in again
    coded = measured("coded", (4.4,), (4.0,), begins=LATENTS)
    _, latent, *_ = sentences(replace(findings, methods=(coded, *findings.methods)))
    assert latent.startswith("Of those that do so in the latent space of an autoencoder, which com")


def test_what_was_not_measured_is_named(findings: Findings) -> None:
    """A reader of a part of the table must not take it for the whole."""
    names = [recipe.removeprefix(FAMILY) for recipe in recipes()]
    others = [measured(name, (6.0,)) for name in names if name != "cd"]
    whole = replace(findings, methods=tuple(others))
    assert introduction(whole)[0].endswith("All that have a recipe are here.")
    some = tuple(m for m in others if m.name not in ("tcm", "meanflow"))
    said = introduction(replace(whole, methods=some))[0]
    assert said.endswith("there are recipes of them: tcm, meanflow.")


def test_what_does_not_reach_cd_is_named_with_what_was_tried(findings: Findings) -> None:
    tuned, slow = behind(findings)
    assert tuned.where == "4.50 against 4.20 in two steps"
    assert slow.where.count("against") == 3
    text = markdown(findings, {})
    assert "- **tuned**: 4.50 against 4.20 in two steps. tuned of its paper. Tried: tuned." in text
    (row,) = [line for line in text.splitlines() if line.startswith("| `tuned`")]
    assert [cell.strip() for cell in row.split("|")[3:10]] == [
        *("7.2", "72 / 150", "60 / 130", "1", "5.00", "4.50", "3.00")
    ]
    lines = text.splitlines()
    (edm,) = [i for i, line in enumerate(lines) if line.startswith("| `edm`")]
    assert "3.50 ± 0.14 in 35" in lines[edm]
    assert len({line.count("|") for line in lines[edm - 2 : edm + 7]}) == 1


def test_what_was_measured_is_kept(findings: Findings, tmp_path: Path) -> None:
    findings.write(tmp_path / "methods.json")
    assert Findings.read(tmp_path / "methods.json") == findings
    write_csv(tmp_path / "methods.csv", findings.all)
    with (tmp_path / "methods.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sampling_steps"] for row in rows] == ["18", *["1", "2", "4"] * 4]
    assert float(rows[1]["fd"]) == pytest.approx(5.5)
    (tmp_path / "methods.json").write_text("[]")
    with pytest.raises(FewstepError, match="scores of methods"):
        Findings.read(tmp_path / "methods.json")


def test_the_best_are_trained_again(
    plan: dict[str, Method], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.report.methods.BEST", 2)
    methods = [plan[name] for name in ("edm", "cd", "ect", "scd", "tcm")]
    distances = {"edm": 9.0, "cd": 8.0, "ect": 3.0, "scd": 4.0, "tcm": 2.0}
    first = [measured(method.name, (distances[method.name],)) for method in methods]
    assert [method.name for method in chosen(methods, first)] == ["edm", "cd", "ect", "tcm"]


def test_the_pictures_lie_beside_the_table(findings: Findings, tmp_path: Path) -> None:
    curves = {"cd": [(80.0, 0.3), (150.0, 0.02)], "flow": [(100.0, 0.1)]}
    pictures = methods_figures.pictures(findings, curves)
    write_table(tmp_path / "docs" / "digits-methods.md", findings, pictures)
    text = (tmp_path / "docs" / "digits-methods.md").read_text(encoding="utf-8")
    for name in ("quality", "seconds", "training"):
        assert f"](digits-methods-{name}.png)" in text
        with Image.open(tmp_path / "docs" / f"digits-methods-{name}.png") as image:
            assert image.width > 1000


def test_the_tables_of_the_digits_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reproduce", "digits", "--full", "--methods"]) == 2
    assert "two tables" in capsys.readouterr().err
    assert run(["reproduce", "toy2d", "--methods"]) == 2
    assert "has no --methods" in capsys.readouterr().err
    assert run(["reproduce", "digits", "--methods", "--only", "meanflo"]) == 2
    assert "meanflow" in capsys.readouterr().err


def test_the_documentation_says_what_is_stored() -> None:
    """The scores of this version's own run, which other pages quote as well."""
    path = Path(__file__).parent.parent / "docs" / "digits-methods.md"
    files = {name: f"digits-methods-{name}.png" for name in methods_figures.NAMES}
    assert path.read_text(encoding="utf-8") == markdown(stored(), files)
    assert all(path.with_name(file).is_file() for file in files.values())


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "methods"
    where = ["--out", str(out), "--table", str(tmp_path / "table.md")]
    code = run(["reproduce", "digits", "--methods", "--only", "tcm", "--shorten", "0.004", *where])
    assert code == 0, capsys.readouterr().err
    found = Findings.read(out / "methods.json")
    assert [m.name for m in found.all] == ["edm", "cd", "tcm"]
    assert all(m.seeds == 3 and m.seconds > 0 for m in found.all)
    assert len(set(found.methods[0].best.fd.values)) == 3
    page = (out / "methods.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 3 + 3
    assert "`tcm`" in (tmp_path / "table.md").read_text(encoding="utf-8")
