"""Bad settings, folders and images, as they reach a training: named, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.cli import run
from fewstep.data import Dataset, load
from fewstep.errors import FewstepError
from fewstep.recipes import RECIPES
from fewstep.recipes import Run as Settings
from fewstep.runs.execute import train
from fewstep.runs.opening import open_model

FAST = {"--steps": "2", "--warmup": "0", "--batch": "8", "--samples": "4", "--device": "cpu"}
MLP = {"--network.width": "8", "--network.blocks": "1"}
UNET = {"--network.channels": "8", "--network.blocks": "1", "--network.attention": "4"}

Answer = tuple[int, str]
Attempt = Callable[..., Answer]


def command(recipe: str, out: Path, *words: object) -> list[str]:
    """A short training of a small network; ``words`` come in the place of its settings."""
    given = list(map(str, words))
    settings = FAST | (MLP if recipe.startswith("digits") else UNET) | {"--out": str(out)}
    rest = [word for pair in settings.items() if pair[0] not in given for word in pair]
    plain = [] if recipe.startswith("digits") else ["--no-flip"]  # which would be said
    return ["train", *recipe.split(), "--quiet", *plain, *rest, *given]


@pytest.fixture
def attempt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Attempt:
    """Trains a recipe into ``tmp_path / "run"``: exit code and stderr."""

    def attempt(recipe: str, *words: object) -> Answer:
        code = run(command(recipe, tmp_path / "run", *words))
        return code, capsys.readouterr().err

    return attempt


def refused(answer: Answer, run_folder: Path, *expected: str) -> None:
    code, err = answer
    assert code == 2, err
    assert err.startswith("fewstep: ")
    assert err.count("\n") == 1
    for words in expected:
        assert words in err
    assert not run_folder.exists(), "settings that do not work left a folder behind"


def picture(path: Path, side: int = 8, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.name) + side)
    pixels = rng.integers(0, 256, (side, side, 4), dtype=np.uint8)
    Image.fromarray(pixels, "RGBA").convert(mode).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten colour pictures of 8x8 in two classes."""
    for i in range(10):
        picture(tmp_path / "photos" / ("cat" if i % 2 else "dog") / f"{i}.png")
    return tmp_path / "photos"


# Settings


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--steps 0", "steps must be at least 1, got 0"),
        ("--steps -5", "steps must be at least 1, got -5"),
        ("--batch 0", "batch must be at least 1"),
        ("--lr -0.1", "lr must be positive, got -0.1"),
        ("--lr 0", "lr must be positive"),
        ("--lr nan", "lr must be positive, got nan"),
        ("--lr inf", "lr must be positive, got inf"),
        ("--clip nan", "clip must be positive"),
        ("--weight-decay nan", "weight_decay must be a number >= 0, got nan"),
        ("--ema-rampup nan", "ema_rampup must be a number >= 0"),
        ("--betas 0.9 1", "betas must be in [0, 1), got (0.9, 1.0)"),
        ("--betas nan 0.9", "betas must be in [0, 1)"),
        ("--precision fp12", '"fp32", "tf32", "bf16"'),
        ("--microbatches 3", "microbatches=3 must divide batch=8"),
        ("--microbatches 0", "microbatches=0"),
        ("--ema 0", "half-lives in images above 1, got (0.0,)"),
        ("--ema 0.9 nan", "got (0.9, nan)"),
        ("--samples 0", "samples must be at least 1"),
        ("--keep 0", "keep must be at least 1"),
        ("--objective.s0 0", "s0=0"),
        ("--objective.mu0 1.5", "mu0=1.5"),
        ("--objective.mu0 nan", "mu0 of the objective 'ct' is not a number"),
        ("--objective.distance pseudo_huber(c=-1)", "c > 0, got -1"),
        ("--objective.distance pseudo_huber(d=1)", "'d'. Known: c"),
        ("--objective.distance pseudo_huber(c=", "cannot read 'pseudo_huber(c='"),
        ("--p.T -1", "T=-1"),
        ("--p.sigma-data 0", "sigma_data"),
        ("--network.dropout 1", "dropout"),
        ("--network.frequencies 0", "frequencies"),
        ("--channels 2", "channels must be 1 or 3, got 2"),
        ("--size 0", "size must be at least 1, got 0"),
    ],
)
def test_a_setting_out_of_range_is_named(
    words: str, expected: str, attempt: Attempt, tmp_path: Path
) -> None:
    refused(attempt("digits/ct", *words.split()), tmp_path / "run", expected)


def test_a_size_that_the_unet_cannot_halve(attempt: Attempt, photos: Path, tmp_path: Path) -> None:
    answer = attempt("images --method ct", "--data", photos, "--size", 3)
    refused(answer, tmp_path / "run", "3x3 is smaller", "sides of 4, 2 x 4")


def test_a_batch_larger_than_the_data_is_said_and_works(attempt: Attempt, photos: Path) -> None:
    code, err = attempt("images --method ct", "--data", photos, "--batch", 16)
    assert code == 0
    assert err == (
        "note: a batch of 16 is more than the 10 images of photos; some appear in it more than "
        "once.\n"
    )


# Folders that cannot be written


def test_a_run_below_a_file_is_refused(attempt: Attempt, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file/run"):
        answer = attempt("digits/ct", "--out", out)
        refused(answer, tmp_path / "run", f"cannot write to {out}")
    assert (tmp_path / "file").read_text() == ""


def test_a_checkpoint_folder_that_is_in_the_way(attempt: Attempt, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").write_text("")
    code, err = attempt("digits/ct")
    assert code == 2
    assert err.count("\n") == 1
    assert f"{tmp_path}/run" in err


def test_a_full_disk_at_the_very_end_loses_nothing(
    attempt: Attempt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint is written, the finished model is not: the same command finishes the run."""

    def full(source: Path, place: Path) -> None:
        place.write_bytes(b"cut off")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fewstep.runs.directory.copyfile", full)
        code, err = attempt("digits/ct")
        assert code == 2
        assert err.count("\n") == 1
        assert "No space left" in err
        assert f"{tmp_path}/run/model.safetensors" in err
    assert not (tmp_path / "run/model.safetensors").exists()
    assert attempt("digits/ct") == (0, "")
    assert (tmp_path / "run/model.safetensors").is_file()


def test_a_truncated_checkpoint_is_told_and_the_one_before_is_used(
    attempt: Attempt, tmp_path: Path
) -> None:
    assert attempt("digits/ct", "--checkpoint-every", 1)[0] == 0
    whole = (tmp_path / "run/model.safetensors").read_bytes()
    (tmp_path / "run/model.safetensors").unlink()
    damaged = tmp_path / "run/checkpoints/step-00000002/f.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert open_model(tmp_path / "run").trained.step == 1
    code, err = attempt("digits/ct", "--checkpoint-every", 1)
    assert code == 0
    assert "step-00000002 is damaged (f.safetensors does not match" in err
    assert "resuming at step 1 of 2" in err
    assert (tmp_path / "run/model.safetensors").read_bytes() == whole


# Images


def test_mixed_modes_become_colour(attempt: Attempt, photos: Path, tmp_path: Path) -> None:
    for mode in ("L", "LA", "RGBA", "P", "1"):
        picture(photos / "cat" / f"{mode}.png", mode=mode)
    assert attempt("images --method ct", "--data", photos) == (0, "")
    assert open_model(tmp_path / "run").shape == (3, 8, 8)


def test_mixed_sizes_need_a_size(attempt: Attempt, photos: Path, tmp_path: Path) -> None:
    picture(photos / "cat/large.png", side=12)
    answer = attempt("images --method ct", "--data", photos)
    refused(answer, tmp_path / "run", "cat/large.png is 12x12", "8x8", "size")
    assert attempt("images --method ct", "--data", photos, "--size", 8) == (0, "")


def test_an_unreadable_image_is_named_or_left_out_and_counted(
    attempt: Attempt, photos: Path, tmp_path: Path
) -> None:
    (photos / "cat/broken.png").write_bytes((photos / "cat/1.png").read_bytes()[:60])
    answer = attempt("images --method ct", "--data", photos)
    refused(answer, tmp_path / "run", "1 of 11 images", "cat/broken.png", "--skip-bad")
    code, err = attempt("images --method ct", "--data", photos, "--skip-bad")
    assert code == 0
    assert err == "note: images of photos that cannot be read and are left out: 1.\n"


def test_images_beside_class_folders_need_a_decision(
    attempt: Attempt, photos: Path, tmp_path: Path
) -> None:
    picture(photos / "loose.png")
    answer = attempt("images --method ct", "--data", photos)
    refused(answer, tmp_path / "run", "loose.png", "--no-labels")
    assert attempt("images --method ct", "--data", photos, "--no-labels") == (0, "")
    assert open_model(tmp_path / "run").num_classes == 0


def test_without_class_folders_the_model_is_unconditional(attempt: Attempt, tmp_path: Path) -> None:
    for i in range(8):
        picture(tmp_path / "flat" / f"{i}.png")
    assert attempt("images --method ct", "--data", tmp_path / "flat") == (0, "")
    assert open_model(tmp_path / "run").num_classes == 0


def test_a_conditional_teacher_does_not_fit_images_without_classes(
    attempt: Attempt, photos: Path, tmp_path: Path
) -> None:
    teacher = tmp_path / "teacher"
    assert run(command("images --method edm", teacher, "--data", photos)) == 0
    for i in range(8):
        picture(tmp_path / "flat" / f"{i}.png")
    answer = attempt("images --method ect", "--data", tmp_path / "flat", "--teacher", teacher)
    refused(answer, tmp_path / "run", str(teacher), "num_classes 2", "0")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("empty", "holds no images"),
        ("nothing", "no such data"),
        ("notes.txt", "not a kind of data"),
    ],
)
def test_a_source_without_images_is_named(
    name: str, expected: str, attempt: Attempt, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("")
    answer = attempt("images --method ct", "--data", tmp_path / name)
    refused(answer, tmp_path / "run", expected, str(tmp_path / name))


def test_the_nearest_source_is_suggested(attempt: Attempt, photos: Path, tmp_path: Path) -> None:
    answer = attempt("images --method ct", "--data", photos.with_name("fotos"))
    refused(answer, tmp_path / "run", f"Did you mean '{photos}'?")


# Arrays


@pytest.mark.parametrize(
    ("scale", "shift", "expected"),
    [
        (1.0, np.nan, "NaN or infinity in 8 of 8"),
        (1.0, np.inf, "NaN or infinity"),
        (2.0, 0.0, "must lie in [-1, 1]"),
        (127.0, 127.0, "must lie in [-1, 1]"),
    ],
)
def test_float_images_out_of_range_are_refused(
    scale: float, shift: float, expected: str, attempt: Attempt, tmp_path: Path
) -> None:
    x = np.linspace(-1, 1, 8 * 64, dtype=np.float32).reshape(8, 1, 8, 8) * scale + shift
    np.savez(tmp_path / "x.npz", x)
    answer = attempt("digits/ct", "--data", tmp_path / "x.npz")
    refused(answer, tmp_path / "run", expected, str(tmp_path / "x.npz"))


def test_one_nan_in_memory_is_found_before_training() -> None:
    x = np.zeros((20, 1, 8, 8), np.float32) - 0.5
    x[13, 0, 2, 3] = np.nan
    with pytest.raises(FewstepError, match=r"1 of 20 examples, first at index 13"):
        Dataset.from_arrays(x)


def small(recipe: str) -> Settings:
    return RECIPES[recipe](
        steps=2, batch=8, samples=4, network__width=8, network__blocks=1, sample_every=0
    )


def test_data_in_memory_without_labels_train_an_unconditional_model(tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 20 * 64, dtype=np.float32).reshape(20, 1, 8, 8)
    f = train(small("digits/ct"), tmp_path, data=Dataset.from_arrays(x), quiet=True, device="cpu")
    assert f.num_classes == 0


def test_labels_that_do_not_match_their_images_are_refused(tmp_path: Path) -> None:
    x = np.zeros((8, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", images=x, labels=np.arange(7))
    with pytest.raises(FewstepError, match=r"x\.npz: labels must be 8 integers"):
        load(tmp_path / "x.npz")


def test_a_setting_that_does_not_exist_is_named_in_python_too() -> None:
    with pytest.raises(FewstepError, match=r"unknown setting 'stpes'. Did you mean 'steps'"):
        RECIPES["digits/ct"](stpes=3)
