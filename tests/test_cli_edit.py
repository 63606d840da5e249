"""Editing from the command line: sizes, kinds of pictures, what stays, one-line errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.editing.tasks import TASKS
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import EDM

Call = Callable[..., str]
CANVAS = (8, 12)
LATENT = Path(__file__).parent / "models" / "latent.safetensors"
SIZES = [CANVAS, (9, 15), (5, 7), (30, 20)]
EDITS = {
    "inpaint": ["--box", "1", "1", "3", "2"],
    "outpaint": ["--right", "4", "--top", "1"],
    "colourise": [],
    "superresolve": ["--factor", "2"],
    "deblur": ["--blur", "0.8"],
    "strokes": [],
    "vary": [],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A colour, a grey class-conditional and a diffusion model, untrained."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    for name, channels, classes, kind in (
        ("colour", 3, 0, "consistency"),
        ("grey", 1, 3, "consistency"),
        ("teacher", 3, 0, "diffusion"),
    ):
        F = MLP((channels, *CANVAS), num_classes=classes, width=16, blocks=1)
        for parameter in F.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        info = {"kind": kind, "classes": [*"abc"][:classes]}
        FlowMap(F, EDM(T=20.0), info=info).save(folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def call(call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs a command that must succeed: its output. With ``fails`` the one line of its error."""
    monkeypatch.setenv("COLUMNS", "1000")

    def checked(*words: object, fails: bool = False) -> str:
        code, out, err = call(*words)
        assert (code != 0) == fails, out + err
        if fails:
            assert "Traceback" not in err
        return err if fails else out

    return checked


def draw(path: Path, size: tuple[int, int] = CANVAS, mode: str = "RGB") -> np.ndarray:
    """A picture of random pixels; its array."""
    shape = size if mode == "L" else (*size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_every_task_has_a_command() -> None:
    assert {*TASKS} == {*EDITS, "denoise"}


# What comes out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("task", EDITS)
def test_results_have_the_size_that_went_in(
    task: str, size: tuple[int, int], models: Path, tmp_path: Path, call: Call
) -> None:
    draw(tmp_path / "in.png", size)
    out = tmp_path / "out.png"
    said = call("edit", task, models / "colour.safetensors", tmp_path / "in.png", *EDITS[task],
                "-o", out)  # fmt: skip
    assert "1 picture, " in said
    H, W = size
    expected = {
        "superresolve": (2 * H, 2 * W),
        "outpaint": (H + round(H / 7), W + round(4 * W / 8)),
    }.get(task, size)
    assert pixels(out).shape == (*expected, 3)


@pytest.mark.parametrize("fit", ["resize", "tile"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", SIZES)
def test_pixels_outside_the_mask_stay_to_the_bit(
    size: tuple[int, int], mode: str, fit: str, models: Path, tmp_path: Path, call: Call
) -> None:
    before = draw(tmp_path / "in.png", size, mode)
    hole = np.random.default_rng(1).random(size) < 0.3
    Image.fromarray(hole).save(tmp_path / "mask.png")
    name, label = ("colour", []) if mode == "RGB" else ("grey", ["--label", "b"])
    call("edit", "inpaint", models / f"{name}.safetensors", tmp_path / "in.png", *label,
         "--mask", tmp_path / "mask.png", "--fit", fit, "-o", tmp_path / "out.png")  # fmt: skip
    after = pixels(tmp_path / "out.png")
    assert (after[~hole] == before[~hole]).all()
    assert (after[hole] != before[hole]).mean() > 0.5


@pytest.mark.parametrize("size", SIZES)
def test_outpainting_keeps_the_picture(
    size: tuple[int, int], models: Path, tmp_path: Path, call: Call
) -> None:
    before = draw(tmp_path / "in.png", size)
    call("edit", "outpaint", models / "colour.safetensors", tmp_path / "in.png", "--left", 4,
         "-o", tmp_path / "out.png")  # fmt: skip
    after = pixels(tmp_path / "out.png")
    assert (after[:, -size[1] :] == before).all()
    assert after.shape[1] > size[1]


def test_enlarging_keeps_the_means(models: Path, tmp_path: Path, call: Call) -> None:
    before = draw(tmp_path / "in.png", (9, 15)) // 2 + 64  # away from black and white, which clip
    Image.fromarray(before).save(tmp_path / "in.png")
    call("edit", "superresolve", models / "colour.safetensors", tmp_path / "in.png",
         "-o", tmp_path / "out.png")  # fmt: skip
    after = pixels(tmp_path / "out.png").astype(float)
    unclipped = ((after > 0) & (after < 255)).reshape(9, 2, 15, 2, 3).all((1, 3))
    means = after.reshape(9, 2, 15, 2, 3).mean((1, 3))
    assert unclipped.sum() >= 5
    assert np.abs(means - before)[unclipped].max() <= 0.5


def test_a_colourised_picture_keeps_its_grey(models: Path, tmp_path: Path, call: Call) -> None:
    before = draw(tmp_path / "in.png", CANVAS, "L") // 4 + 96
    Image.fromarray(before).save(tmp_path / "in.png")
    call("edit", "colourise", models / "colour.safetensors", tmp_path / "in.png",
         "-o", tmp_path / "out.png")  # fmt: skip
    after = pixels(tmp_path / "out.png").astype(float)
    inside = ((after > 0) & (after < 255)).all(2)
    grey = after @ np.array([0.2989, 0.5870, 0.1140]) / 0.9999
    assert inside.sum() >= 5
    assert np.abs(grey - before)[inside].max() <= 0.6  # half a level of rounding and that of floats
    assert np.ptp(after, axis=2).max() > 10


def test_seed_and_number(models: Path, tmp_path: Path, call: Call) -> None:
    draw(tmp_path / "in.png")
    results = []
    for seed, n in ((0, 1), (0, 1), (1, 1), (0, 3)):
        call("edit", "vary", models / "colour.safetensors", tmp_path / "in.png",
             "--seed", seed, "-n", n, "-o", tmp_path / "out.png")  # fmt: skip
        results.append(pixels(tmp_path / "out.png"))
    a, again, other, three = results
    assert (a == again).all()
    assert (a != other).any()
    assert three.shape == (8, 36, 3)
    assert np.abs(three[:, :12].astype(int) - a).max() <= 1
    assert (three[:, 12:24] != a).any()


def test_a_folder_with_its_masks(models: Path, tmp_path: Path, call: Call) -> None:
    inside, masks = tmp_path / "in", tmp_path / "masks"
    (inside / "sub").mkdir(parents=True)
    (masks / "sub").mkdir(parents=True)
    before, holes = {}, {}
    for i, (name, size) in enumerate({"a.png": (8, 12), "sub/b.png": (20, 9)}.items()):
        before[name] = draw(inside / name, size)
        holes[name] = np.zeros(size, dtype=bool)
        holes[name][i : i + 4, 2:6] = True
        Image.fromarray(holes[name]).save(masks / name)
    model, out = models / "colour.safetensors", tmp_path / "out"
    said = call("edit", "inpaint", model, inside, "--mask", masks, "-o", out)
    assert "2 pictures" in said
    for name in before:
        after = pixels(out / name)
        assert (after[~holes[name]] == before[name][~holes[name]]).all()
        assert (after[holes[name]] != before[name][holes[name]]).any()
    (masks / "sub/b.png").unlink()
    said = call("edit", "inpaint", model, inside, "--mask", masks, "-o", tmp_path / "x", fails=True)
    assert "sub/b.png" in said
    assert "in the way" in call(
        "edit", "inpaint", model, inside, "--mask", masks, "-o", out, fails=True
    )


@pytest.mark.parametrize("name", ["colour", "teacher"])
def test_denoising(name: str, models: Path, tmp_path: Path, call: Call) -> None:
    draw(tmp_path / "in.png", (9, 15))
    model = models / f"{name}.safetensors"
    said = call("denoise", model, tmp_path / "in.png", "-o", tmp_path / "out.png")
    assert "grey levels" in said
    given = call("denoise", model, tmp_path / "in.png", "--sigma", "20", "-o", tmp_path / "out.png")
    assert "noise of 20.0 grey levels" in given
    assert pixels(tmp_path / "out.png").shape == (9, 15, 3)


def test_models_of_latents_are_refused_by_what_is_asked(tmp_path: Path, call: Call) -> None:
    draw(tmp_path / "in.png")
    for *verb, what in (("edit", "vary", "editing"), ("denoise", "denoising")):
        said = call(*verb, LATENT, tmp_path / "in.png", "-o", tmp_path / "out.png", fails=True)
        assert f"{what} works on pixels" in said


@pytest.mark.parametrize("ending", ["png", "gif", "webp"])
def test_interpolating(ending: str, models: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / f"out.{ending}"
    call("interpolate", models / "grey.safetensors", "--from", "3", "--to", "5", "--frames", 4,
         "-o", out)  # fmt: skip
    with Image.open(out) as image:
        frames = getattr(image, "n_frames", 1)
    assert frames == (1 if ending == "png" else 6)  # there and back


def test_interpolating_pictures_through_the_teacher(
    models: Path, tmp_path: Path, call: Call
) -> None:
    for name in ("a.png", "b.png"):
        draw(tmp_path / name, (20, 30))
    ends = ["--from", tmp_path / "a.png", "--to", tmp_path / "b.png", "-o", tmp_path / "out.png"]
    teacher = models / "teacher.safetensors"
    call("interpolate", models / "colour.safetensors", *ends, "--teacher", teacher)
    said = call("interpolate", models / "colour.safetensors", *ends, fails=True)
    assert "give the diffusion model with --teacher" in said


# Kinds of pictures


@pytest.mark.parametrize("mode", ["P", "CMYK", "RGBA", "LA", "1", "I;16", "YCbCr"])
def test_pictures_of_every_mode_are_read(
    mode: str, models: Path, tmp_path: Path, call: Call
) -> None:
    grey = np.random.default_rng(0).integers(0, 256, CANVAS, dtype=np.uint8)
    ending = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    if mode == "I;16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / f"in.{ending}")
    else:
        Image.fromarray(grey).convert("RGB").convert(mode).save(tmp_path / f"in.{ending}")
    call("edit", "vary", models / "colour.safetensors", tmp_path / f"in.{ending}",
         "-o", tmp_path / "out.png")  # fmt: skip
    assert pixels(tmp_path / "out.png").shape[:2] == CANVAS


def test_files_that_are_no_still_picture(models: Path, tmp_path: Path, call: Call) -> None:
    draw(tmp_path / "good.png", (40, 40))
    data = (tmp_path / "good.png").read_bytes()
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("no picture")
    frames = [Image.fromarray(np.full(CANVAS, i, np.uint8)) for i in (0, 99, 200)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    for name, hint in {
        "empty.png": "empty file",
        "cut.png": "cannot read",
        "text.png": "not an image",
        "film.gif": "3 frames",
        "absent.png": "no picture",
    }.items():
        said = call("edit", "vary", models / "colour.safetensors", tmp_path / name,
                    "-o", tmp_path / "out.png", fails=True)  # fmt: skip
        assert name in said, said
        assert hint in said, said
    assert not (tmp_path / "out.png").exists()


# A user's mistakes

MISTAKES: list[tuple[list[str], str]] = [
    (["inpaint", "colour"], "either --mask or --box"),
    (["inpaint", "colour", "--mask", "mask.png"], "the mask has 5x5 pixels, but in.png has 12x8"),
    (["inpaint", "colour", "--mask", "nowhere.png"], "nowhere.png"),
    (["inpaint", "colour", "--box", "10", "0", "4", "4"], "does not lie inside in.png"),
    (["outpaint", "colour"], "needs a margin"),
    (["outpaint", "colour", "--left", "9", "--right", "9"], "leave nothing"),
    (["superresolve", "colour", "--factor", "5"], "does not divide the model's 12x8"),
    (["superresolve", "colour", "--factor", "1"], "at least 2"),
    (["deblur", "colour", "--blur", "-1"], "need blur >= 0"),
    (["colourise", "grey", "--label", "a"], "knows no colours"),
    (["strokes", "colour", "--strength", "1.5"], "strength"),
    (["vary", "colour", "--strength", "0"], "strength"),
    (["vary", "colour", "-n", "0"], "at least 1"),
    (["vary", "colour", "--steps", "0"], "at least 1"),
    (["vary", "colour", "--taus", "1", "2"], "decreasing times"),
    (["vary", "colour", "--taus", "99"], "at most T=20"),
    (["vary", "colour", "--taus", "2", "1", "--steps", "3"], "take 3 taus"),
    (["vary", "colour", "--seed", "-1"], "seed"),
    (["vary", "colour", "--label", "a"], "unconditional"),
    (["vary", "grey"], "conditional"),
    (["vary", "grey", "--label", "d"], "'d'"),
    (["vary", "grey", "--label", "3"], "'3'"),
    (["vary", "teacher"], "distil it first"),
    (["vary", "colour", "-o", "out.xyz"], "out.xyz"),
    (["vary", "colour", "-o", "in.png"], "would overwrite"),
    (["vary", "absent"], "absent"),
]


@pytest.mark.parametrize(("words", "hint"), MISTAKES, ids=[" ".join(w) for w, _ in MISTAKES])
def test_a_mistake_is_one_clear_line(
    words: list[str],
    hint: str,
    models: Path,
    tmp_path: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "in.png")
    draw(tmp_path / "mask.png", (5, 5), "L")
    task, model, *options = words
    out = [] if "-o" in options else ["-o", "out.png"]
    said = call("edit", task, models / f"{model}.safetensors", "in.png", *options, *out, fails=True)
    assert hint in said, said
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--frames", "1"], "at least 2"),
        (["--fps", "0"], "--fps"),
        (["-o", "film.mp4"], ".webp"),
        (["--steps", "0"], "at least 1"),
        (["--sampler", "walk"], "consistency model"),
        (["--sampler", "jumps(steps=2)", "--steps", "2"], "steps is given twice"),
        (["--from", "absent.png"], "absent.png"),
    ],
)
def test_mistakes_of_interpolating(
    options: list[str],
    hint: str,
    models: Path,
    tmp_path: Path,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = [] if "-o" in options else ["-o", "out.png"]
    said = call("interpolate", models / "colour.safetensors", *options, *out, fails=True)
    assert hint in said, said


def test_a_level_of_noise_that_cannot_be(models: Path, tmp_path: Path, call: Call) -> None:
    draw(tmp_path / "in.png")
    for sigma in ("-3", "nan", "1e9"):
        said = call("denoise", models / "colour.safetensors", tmp_path / "in.png",
                    "--sigma", sigma, "-o", tmp_path / "out.png", fails=True)  # fmt: skip
        assert "sigma" in said or "noise levels" in said
