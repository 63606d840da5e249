"""``fewstep fit`` and ``distil``: what is looked at, what is chosen, how it is carried out."""

from __future__ import annotations

import shlex
import warnings
from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.cli import run
from fewstep.cli.within import Within
from fewstep.data import Dataset, load
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.evaluation.classifier import SmallClassifier
from fewstep.evaluation.reduced import Reduced, alike, reduced, trained_on
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP, UNet
from fewstep.objectives import OBJECTIVES
from fewstep.parameterization import EDM
from fewstep.planning import fitting, rule, trainings
from fewstep.planning import round as rounds
from fewstep.planning.choices import Choices, choices_of
from fewstep.planning.distilling import _check_teacher, plan_distil
from fewstep.planning.fitting import budget_of, needs_of, next_round, plan_fit
from fewstep.planning.looked_at import Looked, Source, called, groups, is_of, look
from fewstep.planning.prepared import held_out, prepare
from fewstep.planning.round import Round, Timed
from fewstep.planning.rule import Speed
from fewstep.planning.state import PLAN, State, read_state
from fewstep.recipes import RECIPES
from fewstep.report.few import commands
from fewstep.runs.components import arguments_of, make_network
from fewstep.runs.directory import RunDirectory
from fewstep.stages.clock import ALL, Clock
from fewstep.stages.how import How
from fewstep.stages.stage import Stage
from fewstep.stages.stages import Stages
from fewstep.trained import CONSISTENCY, DIFFUSION
from fewstep.training.config import Precision

SLOW = Speed(50, 16, 1)
LOOKED = Looked(160, 30, ("cat", "dog"), "2 classes.", 0, 0.0, True, 0.49)


def photos(folder: Path, n: int, classes: tuple[str, ...] = ("cat", "dog"), side: int = 20) -> Path:
    rng = np.random.default_rng(0)
    for i in range(n):
        place = folder / classes[i % len(classes)] if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{i:03d}.png")
    return folder


def pace(speed: Speed, bf16: float = 1.0) -> rule.Pace:
    """As fast as is estimated; in bf16, on networks of 32 channels or more, by a factor more."""

    def of(network: str, channels: int = 24, **arguments: Any) -> tuple[Precision, float]:
        fast = bf16 if channels >= 32 else 1.0
        return "bf16" if fast > 1 else "fp32", fast * speed.of(16, max(4, channels))

    return of


def chosen(**given: Any) -> Choices:
    choices = Choices(given)
    choices.make("channels", 3, "")
    choices.make("size", 16, "")
    rule.choose_network(choices, LOOKED, SLOW, pace(SLOW), 1800)
    alone = trainings.learns_alone(needs_of(rule.choose_method(choices)))
    rule.choose_training(choices, LOOKED, torch.device("cpu"), alone=alone)
    choices.make("seed", 0, "")
    return choices


# What is there


def test_a_few_images_are_refused_in_one_line(tmp_path: Path) -> None:
    photos(tmp_path / "few", 3)
    (tmp_path / "few" / "notes.txt").write_text("no image")
    with pytest.raises(FewstepError, match=r"holds 3 images.*16 at least.*--init") as caught:
        Source.of(str(tmp_path / "few"))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_images_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", 30)
    (folder / "cat" / "broken.png").write_bytes(b"no picture")
    found = Source.of(str(folder))
    assert (found.n, found.side, found.colour) == (30, 20, True)
    made = prepare(str(folder), 16)
    assert made.looked.skipped == 1
    assert len(made.train) + len(made.test) == 30
    assert made.train.shape == (3, 16, 16)
    assert "1 files cannot be read" in " ".join(made.looked.words)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ((), "There are no classes"),
        (("cat",), "The one class cat says nothing"),
        (tuple(f"c{i:02d}" for i in range(20)), "20 classes of 1.0 images each are too many"),
    ],
)
def test_classes_that_say_nothing_are_not_told(
    classes: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    made = prepare(str(photos(tmp_path / "photos", 20, classes)), 8)
    assert made.train.labels is None
    assert said in made.looked.why


def test_likenesses_stay_on_one_side() -> None:
    x = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    data = Dataset.from_arrays(torch.cat([x, x.clamp(max=254)]))
    assert groups(data.images).unique().numel() == 40
    rest, apart = held_out(data)
    there = {image.clamp(max=254).numpy().tobytes() for image in rest.images}
    assert not any(image.clamp(max=254).numpy().tobytes() in there for image in apart.images)


def test_likenesses_are_found_wherever_they_are() -> None:
    """Also among many pictures of the same mean, and as chains."""
    x = torch.randint(0, 256, (600, 1, 8, 8), dtype=torch.uint8).clamp(4, 250)
    mirrored = x.flip(-1)  # of the same mean, and no likeness
    chain = torch.cat([x[:1] + 2, x[:1] + 4])
    found = groups(torch.cat([x, mirrored, x + 1, chain]))
    assert found.unique().numel() == 1200
    assert torch.equal(found[:600], found[1200:1800])
    assert (found[1800:] == found[0]).all()
    alike = groups(torch.zeros(1000, 1, 8, 8, dtype=torch.uint8))
    assert not alike.any()


def test_a_class_keeps_something_to_train_on() -> None:
    """Where all its pictures are nearly one they would follow the one that is held out."""
    x = torch.randint(0, 256, (80, 3, 8, 8), dtype=torch.uint8)
    x[:10] = 90
    labels = torch.tensor([0] * 10 + [1] * 70)
    rest, apart = held_out(Dataset.from_arrays(x, labels, ("logo", "photo")))
    assert rest.labels is not None
    assert apart.labels is not None
    assert rest.labels.bincount().tolist()[0] == 10
    assert apart.labels.unique().tolist() == [1]


def test_images_that_train_are_not_held_out(tmp_path: Path) -> None:
    """Also where a source has them in its test split."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    np.savez(tmp_path / "train.npz", images=images[:30])
    np.savez(tmp_path / "test.npz", images=images[25:])
    made = prepare(str(tmp_path / "train.npz"), None)
    assert (len(made.train), len(made.test)) == (30, 10)
    np.savez(tmp_path / "test.npz", images=images[:30])
    made = prepare(str(tmp_path / "train.npz"), None)
    assert (len(made.train), len(made.test)) == (26, 4), "all of them train: others are held out"


def test_images_are_those_that_were_kept(tmp_path: Path) -> None:
    """Whatever the order in which a source names its classes."""
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    names = np.array(["shirt", "bag", "boot"])
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(40) % 3, classes=names)
    made = prepare(str(tmp_path / "data.npz"), 8)
    made.write(tmp_path / "kept")
    again = load(tmp_path / "kept" / "train.npz")
    assert again.classes == made.train.classes == ("bag", "boot", "shirt")
    assert again.fingerprint() == made.train.fingerprint()


def test_a_folder_is_called_as_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (photos(tmp_path / name / "photos.v2", 1) for name in ("a", "b"))
    monkeypatch.chdir(one)
    assert called(".") == called(str(one)) == "photos.v2"
    assert called("hub:owner/name") == called("somewhere/name.npz") == "name"
    assert is_of(".", str(one))
    assert not is_of(str(other), str(one)), "both are there, and are called alike"
    assert is_of(str(other), str(tmp_path / "gone" / "photos.v2")), "it has been moved"


def test_mirroring_is_right_where_mirrored_images_look_like_the_others() -> None:
    x = torch.randint(0, 60, (60, 1, 8, 8), dtype=torch.uint8)
    left = x.clone()
    left[:, :, :, :4] += 150  # all face one way
    assert look(Dataset.from_arrays(x), 5, "").mirrors
    assert not look(Dataset.from_arrays(left), 5, "").mirrors


# The rule


@pytest.mark.parametrize(
    ("speed", "seconds", "size"),
    [(900, 1800, 32), (100, 1800, 16), (900, 300, 16), (2e5, 1800, 64)],
)
def test_a_size_is_the_largest_that_is_seen_often_enough(
    speed: float, seconds: float, size: int
) -> None:
    source = Source("photos", Counter({(64, 64): 600}), True)
    choices = Choices()
    assert rule.choose_size(choices, source, Speed(speed, 16, 1), seconds) == size
    assert choices["channels"] == 3


def test_a_size_that_is_hopeless_is_refused_before_images_are_read() -> None:
    source = Source("photos", Counter({(64, 64): 600}), True)
    with pytest.raises(FewstepError, match=r"of images of 4096 pixels .*which makes it 16"):
        rule.choose_size(Choices({"size": 4096}), source, SLOW, 1800)
    assert rule.choose_size(Choices({"size": 64}), source, SLOW, 1800) == 64


@pytest.mark.parametrize("side", [*range(8, 66), 100, 127])
def test_a_network_for_images_of_any_side(side: int) -> None:
    network = UNet((3, side, side), **rule.network_of(side, 4))
    assert tuple(network.shape) == (3, side, side)


def test_a_width_that_is_none_is_said_by_the_network() -> None:
    for width in (0, -4, 17):
        run = trainings.teacher(chosen(width=width), LOOKED, "photos").run()
        assert run.training.lr == rule.RATE
        with pytest.raises(FewstepError, match=f"multiple of 4; got {width}"):
            make_network(run, (3, 16, 16), 2)


def test_a_faster_machine_has_a_wider_network() -> None:
    widths = []
    for images in (50, 500, 50_000):
        choices = Choices()
        choices.make("size", 16, "")
        speed = Speed(images, 16, 1)
        rule.choose_network(choices, LOOKED, speed, pace(speed), 1800)
        widths.append(choices["width"])
    assert widths == sorted(widths)
    assert widths[-1] == 128
    choices = Choices()
    choices.make("size", 16, "")
    faster = Speed(70, 16, 1)
    rule.choose_network(choices, LOOKED, faster, pace(faster, bf16=3), 1800)
    assert (choices["width"], choices["precision"]) == (32, "bf16")
    slower = Choices()
    slower.make("size", 16, "")
    rule.choose_network(slower, LOOKED, faster, pace(faster), 1800)
    assert (slower["width"], slower["precision"]) == (16, "fp32")


@pytest.mark.parametrize(
    ("images", "seldom"), [(100, False), (160, False), (170, True), (10**5, True)]
)
def test_images_that_are_seen_often_are_kept_from_being_learned_by_heart(
    images: int, seldom: bool
) -> None:
    """`SLOW` sees 49,500 images of 24 channels in this time, narrower ones more."""
    choices = Choices({"width": 24})
    choices.make("size", 16, "")
    rule.choose_network(choices, replace(LOOKED, n=images), SLOW, pace(SLOW), 1800)
    assert (choices["augment"], choices["dropout"]) == ((0.0, 0.0) if seldom else (0.12, 0.1))
    often = {100: "about 500 times", 10**5: "once at most"}.get(images, "about ")
    assert f"each image is seen {often}" in choices.made["augment"].why


def test_a_longer_training_decides_anew_whether_it_learns_by_heart() -> None:
    """Unless the user has decided it, or it was so decided before."""
    for first, kept in (({}, False), ({"augment": 0.0, "dropout": 0.0}, True)):
        brief = Choices({"network": "unet", "width": 24, **first})
        brief.make("size", 16, "")
        rule.choose_network(brief, replace(LOOKED, n=10**5), SLOW, pace(SLOW), 1800)
        assert brief["augment"] == 0
        longer = Choices({}, rule.reopened(choices_of(brief.record())))
        for name in longer.kept:
            longer.make(name, None, "")
        rule.keep_from_copies(longer, 1000)
        assert (longer["augment"], longer["dropout"]) == ((0, 0) if kept else (0.12, 0.1))
        assert rule.reopened(choices_of(longer.record())).keys() == longer.made.keys()


@pytest.mark.parametrize("given", [{"width": 64}, {"dropout": 0.2}, {"augment": 0.2}])
def test_what_a_network_has_no_use_for_is_refused(given: dict[str, Any]) -> None:
    (name,) = given
    assert chosen(network="unet", **given)[name] == given[name]
    with pytest.raises(FewstepError, match=f"dit has no use for --{name} here"):
        chosen(network="dit", **given)
    plain = chosen(network="dit")
    assert not {"width", "dropout"} & plain.made.keys()
    assert (plain["lr"], plain["augment"]) == (rule.CAREFUL, 0.0)
    assert trainings.teacher(plain, LOOKED, "data.npz").run().network.name == "dit"


def test_the_users_choice_comes_first_and_what_was_begun_stays() -> None:
    choices = Choices({"size": 24})
    assert choices.make("size", 16, "by the rule") == 24
    kept = choices_of(choices.record())
    assert Choices({}, kept).make("size", 64, "") == 24
    with pytest.raises(FewstepError, match=r"begun with size 24.*--size 32"):
        Choices({"size": 32}, kept).make("size", 24, "")


def test_trainings_are_command_lines_with_what_was_chosen(tmp_path: Path) -> None:
    teacher = trainings.teacher(chosen(), LOOKED, "data.npz")
    few = trainings.few_steps(chosen(method="meanflow"), LOOKED, "data.npz")
    made = teacher.run()
    assert (made.objective.name, made.network.arguments["channels"]) == ("score_matching", 16)
    assert made.training.augment == 0.12
    assert not made.training.flip
    assert made.p.arguments["sigma_data"] == 0.49
    assert few.run().network.arguments["two_time"] is True
    command = teacher.stage("teacher", 70).command(tmp_path)
    assert command[:4] == ["train", "images", "--steps", "70"]
    assert command[-2:] == ["--out", str(tmp_path / "teacher")]
    assert run([*command, "--write-config"]) == 0, "every word of it is a setting"


@pytest.mark.parametrize("method", ["cd", "soflow", "meanflow", "imf", "ect"])
def test_short_trainings_have_the_settings_of_short_recipes(method: str) -> None:
    """What such a recipe leaves at its default is not that of the paper, either."""
    few = trainings.few_steps(chosen(method=method), LOOKED, "data.npz").run()
    family = "fashion" if f"fashion/{method}" in RECIPES else "digits"
    like = RECIPES[f"{family}/{method}"]()
    usual = {k: v.default for k, v in arguments_of("objective", method).items()}
    assert {**usual, **few.objective.arguments} == {**usual, **like.objective.arguments}
    for name in trainings.SHORT:
        assert getattr(few.training, name) == getattr(like.training, name)


def test_what_learns_from_few_images_alone_is_kept_from_learning_them_by_heart() -> None:
    for method, augment, dropout in (("cd", 0.0, 0.0), ("soflow", 0.12, 0.1)):
        few = trainings.few_steps(chosen(method=method), LOOKED, "data.npz").run()
        assert (few.training.augment, few.network.arguments["dropout"]) == (augment, dropout)
        assert few.training.flip == (LOOKED.mirrors and not augment)


def test_a_learning_rate_that_was_asked_for_is_the_one_that_is_trained_with() -> None:
    """That of the rule falls as the network grows wider."""
    for given, rate in (
        ({"width": 32}, 2e-3),
        ({"width": 96}, 6.7e-4),
        ({"width": 32, "method": "cd"}, 1e-3),
        ({"width": 96, "method": "cd"}, 5e-4),
        ({"width": 96, "lr": 3e-4}, 3e-4),
    ):
        made = chosen(**given)
        for training in (trainings.teacher, trainings.few_steps):
            assert training(made, LOOKED, "data.npz").run().training.lr == rate


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("edm", "takes many steps"),
        ("tcm", "refines a consistency model"),
        ("autoencoder", "makes no images"),
        ("ectt", "Did you mean 'ect'"),
    ],
)
def test_methods_that_no_plan_has(method: str, said: str) -> None:
    with pytest.raises(FewstepError, match=said):
        trainings.check_method(method)


def test_a_method_that_refines_is_for_a_consistency_model() -> None:
    needs = OBJECTIVES["tcm"].needs
    trainings.check_method("tcm", refines=True)
    for trained, said in ((CONSISTENCY, None), (DIFFUSION, "tcm refines .*distil it first")):
        f = FlowMap(MLP((1, 8, 8), width=8, blocks=1), EDM(), trained=trained)
        with nullcontext() if said is None else pytest.raises(FewstepError, match=said):
            _check_teacher(f, "a/model", "tcm", needs)


# A budget


class Fake(Stage):
    """A stage that takes no time."""

    def _command(self, directory: Path, shorten: float) -> list[str | Path]:
        return []

    def total(self, shorten: float = 1.0) -> int:
        return 1

    def there(self, directory: Path) -> int | None:
        return None

    def finished(self, directory: Path) -> bool:
        return False

    def progress(self, directory: Path) -> Any:
        raise AssertionError


def a_round(tmp_path: Path, budget: float, asked: list[tuple[str, int]]) -> Round:
    def timed(name: str, share: float, seconds: float) -> Timed:
        def stage(n: int) -> Stage:
            asked.append((name, n))
            return Fake(name)

        return Timed(name, share, stage, seconds=seconds)

    data = Dataset.from_arrays(torch.zeros(4, 8, 8, dtype=torch.uint8))
    stages = [timed("teacher", 0.5, 0.1), timed("few-1", 0.3, 0.2)]
    return Round(tmp_path, budget, stages, 0.2, data, How(device="cpu", threads=1))


def test_a_budget_is_laid_out_in_shares_of_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[int] = []
    monkeypatch.setattr(Stages, "run", lambda self, within: ran.append(len(self.stages)) or True)
    monkeypatch.setattr(rounds, "STARTUP", 0.0)
    asked: list[tuple[str, int]] = []
    made, clock = a_round(tmp_path, 100, asked), Clock(tmp_path)
    state = State(kind="fit", source="photos", fingerprint="x")
    state = made.run(state, clock)
    assert state.steps == {"teacher": 500, "few-1": 300}, "half of 100 s, then 0.3/0.5 of the rest"
    assert ran == [1, 2]
    assert read_state(tmp_path, "fit") == state
    clock.add(ALL, 60)
    assert made.run(state, clock).steps == state.steps, "what was begun keeps its length"
    later = replace(state, steps={"teacher": 500})
    assert made.run(later, clock).steps["few-1"] == 120
    assert any("500 steps, which were begun" in line for line in made.lines(later, 40))


def test_a_budget_that_is_too_short_says_the_shortest(tmp_path: Path) -> None:
    with pytest.raises(FewstepError, match=r"10s is too short here.*--budget 60s"):
        a_round(tmp_path, 10, []).check(10)
    a_round(tmp_path, 90, []).check(90)


def test_a_stage_that_is_slower_than_measured_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = iter([False, True, False, True])
    monkeypatch.setattr(Stages, "run", lambda self, within: next(late))
    folder = tmp_path / "teacher" / "checkpoints" / "step-00000040"
    monkeypatch.setattr(
        type(RunDirectory(tmp_path).checkpoints),
        "latest",
        lambda self: type("Latest", (), {"step": 40, "path": folder})(),
    )
    teacher = trainings.teacher(chosen(), LOOKED, "data.npz")
    data = Dataset.from_arrays(torch.zeros(4, 8, 8, dtype=torch.uint8))
    timed = Timed("teacher", 1.0, lambda n: teacher.stage("teacher", n), seconds=0.1)
    made = Round(tmp_path, 100, [timed], 0.2, data, How(device="cpu", threads=1))
    state = State(kind="fit", source="photos", fingerprint="x")
    with pytest.warns(FewstepWarning, match="slower than measured: it ends after 40 of"):
        assert made.run(state, Clock(tmp_path)).steps == {"teacher": 40}
    begun = replace(state, steps={"teacher": 40})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made.run(begun, Clock(tmp_path)).steps == begun.steps, "all are made: it only ends"


def test_a_folder_goes_on_with_a_longer_budget_alone(tmp_path: Path) -> None:
    state = State(kind="fit", source="p", fingerprint="x", steps={"teacher": 9}, rounds=(600.0,))
    with pytest.raises(FewstepError, match="has spent its budget: give a longer --budget"):
        budget_of(state, 600, tmp_path, 1800)
    assert budget_of(state, 1200, tmp_path, 1800) == 1200
    assert next_round(state, 1200).steps == {}
    begun = replace(state, budget=1200.0)
    assert next_round(begun, 1200).steps == {"teacher": 9}, "interrupted, it goes on"
    state.write(tmp_path)
    with pytest.raises(FewstepError, match="of fewstep fit, not distil"):
        read_state(tmp_path, "distil")
    (tmp_path / PLAN).unlink()
    Clock(tmp_path).add(ALL, 1)
    with pytest.raises(FewstepError, match="holds a reproduction"):
        read_state(tmp_path, "fit")


def test_a_budget_that_was_begun_is_the_one_that_is_spent(tmp_path: Path) -> None:
    assert budget_of(None, None, tmp_path, 1800) == 1800
    begun = State(kind="fit", source="p", fingerprint="x", steps={"teacher": 9}, budget=7200.0)
    assert budget_of(begun, None, tmp_path, 1800) == 7200, "whatever the default is"
    assert budget_of(begun, 7200, tmp_path, 1800) == 7200
    with pytest.raises(FewstepError, match=r"spends a budget of 2h that was begun: leave out"):
        budget_of(begun, 1800, tmp_path, 1800)
    assert budget_of(begun, 36_000, tmp_path, 1800) == 7200, "the longer one comes after it"


def test_a_longer_budget_begins_when_the_one_that_was_begun_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spent: list[Any] = []
    monkeypatch.setattr(Within, "_carry_out", lambda self, plan: spent.append(plan))
    budgets = iter([1800.0, 7200.0])

    def planned() -> Any:
        return SimpleNamespace(round=SimpleNamespace(budget=next(budgets)))

    Within().do(planned, 7200)
    assert [plan.round.budget for plan in spent] == [1800, 7200]
    assert "The budget of 30m that was begun here is spent first." in capsys.readouterr().out
    budgets = iter([1800.0])
    Within().do(planned, 1900)
    assert "begun here is spent.\n" in capsys.readouterr().out
    budgets = iter([600.0])
    Within().do(planned, None)
    assert [plan.round.budget for plan in spent[2:]] == [1800, 600]


# Plans


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "small_speed", lambda *what: SLOW)
    monkeypatch.setattr(fitting, "pace_of", lambda *what: pace(SLOW))
    monkeypatch.setattr(rounds, "seconds_per_step", lambda *what, **how: 0.1)


@pytest.mark.usefixtures("brief")
def test_a_dry_run_says_every_choice_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path / "photos", 40)
    assert run(["fit", "photos", "--budget", "30m", "--dry-run", "--lr", "3e-4"]) == 0
    out = capsys.readouterr().out
    assert "40 colour images of 20x20 in photos." in out
    assert "lr          0.0003: you said so" in out
    assert ": the images are 20 pixels wide" in out
    for name in ("width", "augment", "method", "few-1", "scores"):
        assert f"\n{name:<12}" in out
    assert "\nteacher" not in out
    assert run(["fit", "photos", "--budget", "30m", "--dry-run", "--method", "cd"]) == 0
    assert "\nteacher     17m: about" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
    assert run(["fit", "photos", "--budget", "30m", "--features", "no_such"]) == 2
    assert "unknown feature network 'no_such'" in capsys.readouterr().err
    assert run(["fit", "photos", "--budget", "30m", "--threads", "0", "--dry-run"]) == 2
    assert "threads must be at least 1, got 0" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert run(["fit", "photos", "--budget", "9s", "--dry-run"]) == 2
    assert "the shortest that is worth it is --budget" in capsys.readouterr().err


@pytest.mark.usefixtures("brief")
def test_a_method_from_images_alone_has_no_teacher(tmp_path: Path) -> None:
    folder = str(photos(tmp_path / "photos", 40))
    plan = plan_fit(folder, tmp_path / "out", 1800, {"method": "ict"}, device="cpu")
    assert [timed.name for timed in plan.round.stages] == ["few-1"]
    plan = plan_fit(folder, tmp_path / "out", 1800, {"method": "kd"}, device="cpu")
    assert [timed.name for timed in plan.round.stages] == ["teacher", "pairs-1", "few-1"]


@pytest.mark.usefixtures("brief")
def test_a_model_of_few_steps_is_not_distilled(tmp_path: Path) -> None:
    f = FlowMap(MLP((1, 8, 8), width=8, blocks=1), EDM(), trained=CONSISTENCY)
    f.save(tmp_path / "few.safetensors")
    with pytest.raises(FewstepError, match="few steps already, and there is nothing to distil"):
        plan_distil(str(tmp_path / "few.safetensors"), tmp_path / "out", 600, {}, device="cpu")
    f.trained = DIFFUSION
    path = str(tmp_path / "many.safetensors")
    f.save(path)
    with pytest.raises(FewstepError, match=r"does not say what it was trained on.*--data"):
        plan_distil(path, tmp_path / "out", 600, {}, device="cpu")
    data = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    np.savez(tmp_path / "data.npz", images=data)
    given: dict[str, Any] = {"method": "ect", "threads": 1}
    plan = plan_distil(
        path, tmp_path / "out", 600, given, data=str(tmp_path / "data.npz"), device="cpu"
    )
    command = plan.round.stages[0].stage(100).command(tmp_path / "out")
    assert "--same-network" in command
    assert command[-2:] == ["--teacher", str(tmp_path / "out" / "teacher.safetensors")]


# Scores


def test_features_are_of_images_averaged_down() -> None:
    images = torch.randint(0, 256, (24, 3, 20, 20), dtype=torch.uint8)
    assert reduced(images).shape == (24, 3, 16, 16)
    assert reduced(images[:, :, :8, :8]).shape == (24, 3, 8, 8)
    dark = torch.randint(0, 40, (12, 3, 20, 20), dtype=torch.uint8)
    found = alike(torch.cat([dark, 255 - dark]), k=2)
    assert found[:12].unique().numel() == 1
    assert found[0] != found[12]


def test_without_classes_the_classifier_learns_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def untrained(images: torch.Tensor, labels: torch.Tensor) -> SmallClassifier:
        return SmallClassifier(tuple(images.shape[1:]), int(labels.max()) + 1).eval()

    monkeypatch.setattr("fewstep.evaluation.reduced.train_classifier", untrained)
    images = torch.randint(0, 256, (24, 1, 18, 18), dtype=torch.uint8)
    network = trained_on(images, None)
    assert isinstance(network, Reduced)
    assert "groups of like images, at 16 pixels" in network.name
    assert network(images[:4]).features.shape == (4, network.num_features)


@pytest.mark.slow
@pytest.mark.filterwarnings("default:.*was slower than measured")  # of a busy machine
@pytest.mark.parametrize("method", [(), ("--method", "cd")])
def test_a_folder_becomes_a_generator_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rounds, "LEAST", 1)
    monkeypatch.setattr(rounds, "STARTUP", 0.0)
    monkeypatch.setattr(rule, "PASSES", 10**9)
    photos(tmp_path / "photos", 60)
    small = ("--width", "16", "--threads", "1")
    assert run(["fit", "photos", "--budget", "40s", *small, *method]) == 0
    out = tmp_path / "runs" / "photos-fit"
    assert (out / "report.html").stat().st_size > 100_000
    f = FlowMap.load(out / "model.safetensors")
    assert f.trained.maps_to_eps
    assert read_state(out, "fit").rounds == (40.0,)  # type: ignore[union-attr]
    moved = out.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(rule, "PASSES", 0)
    longer = f"{Clock(moved)[ALL] + 60:.0f}s"  # scores may have taken more than their share
    assert run(["fit", "photos", "--budget", longer, "--out", str(moved)]) == 0
    assert (moved / "few-2").is_dir()
    then = RunDirectory(moved / "few-2").run()[1]
    if not method:
        assert then.init == str(moved / "few-1" / "model.safetensors")
        before = RunDirectory(moved / "few-1").run()[1]
        assert (before.training.augment, then.training.augment) == (0, rule.AUGMENT)
        return
    assert then.init is None
    assert run(["distil", str(moved / "teacher"), "--budget", "20s", "--out", "few"]) == 0
    assert Path("few/report.html").exists()


def test_the_commands_of_the_page_can_be_pasted() -> None:
    """Folders and classes may have names with spaces and quotes in them."""
    classes = ("Ann's cat", "dog")
    few = FlowMap(MLP((1, 4, 4), num_classes=2, width=8, blocks=1), EDM())
    few.trained = replace(few.trained, classes=classes)
    model = Path("my photos/model.safetensors")
    found = [shlex.split(line) for line in commands(model, few)]
    assert [words[:3] for words in found] == [
        ["fewstep", name, str(model)] for name in ("sample", "sample", "serve")
    ]
    assert found[1][found[1].index("--label") + 1] == classes[0]
