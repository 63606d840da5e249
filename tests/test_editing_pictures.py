"""Pictures and masks as people have them: what a mask shows, and what an edit keeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.data.folder import ENDINGS
from fewstep.editing.masks import Marks, open_mask
from fewstep.editing.opened import Opened
from fewstep.editing.pictures import read, read_all, read_mask
from fewstep.editing.task import How
from fewstep.editing.tasks import InpaintTask, OutpaintTask
from fewstep.editing.written import save
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import EDM

H, W = SIZE = (8, 12)
HOLE = np.zeros(SIZE, dtype=bool)
HOLE[5:, 2:9] = True
QUIET = How(steps=1, advance=lambda _: None)
RANDOM = np.random.default_rng(0)


def network_map(channels: int) -> FlowMap:
    torch.manual_seed(0)
    F = MLP((channels, *SIZE), num_classes=0, width=16, blocks=1)
    for parameter in F.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return FlowMap(F, EDM(T=20.0), info={"kind": "consistency"}).eval()


def on(values: np.ndarray, mode: str | None = None) -> Image.Image:
    return Image.fromarray(values, mode) if mode else Image.fromarray(values)


def layer(colour: tuple[int, int, int], paint: np.ndarray, strength: int = 255) -> Image.Image:
    """Paint of one colour on a transparent layer."""
    rgba = np.zeros((*SIZE, 4), np.uint8)
    rgba[paint] = (*colour, strength)
    return on(rgba)


def palette(colours: list[int], indices: np.ndarray) -> Image.Image:
    image = on(indices.astype(np.uint8)).convert("P")
    image.putdata(indices.flatten().tolist())
    image.putpalette(colours)
    return image


def red_on_black() -> Image.Image:
    rgb = np.zeros((*SIZE, 3), np.uint8)
    rgb[HOLE] = (255, 0, 0)
    return on(rgb)


MASKS: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "white on black": (lambda: on(np.uint8(HOLE * 255)), ""),
    "bits": (lambda: on(HOLE), ""),
    "zeros and ones": (lambda: on(np.uint8(HOLE)), "runs from 0 to 1"),
    "two light greys": (lambda: on(np.uint8(200 + 55 * HOLE)), "runs from 200 to 255"),
    "16 bits": (lambda: on(np.uint16(HOLE * 65535)), ""),
    "255 in 16 bits": (lambda: on(np.uint16(HOLE * 255)), "runs from 0 to 255"),
    "RGB": (lambda: on(np.uint8(HOLE * 255)).convert("RGB"), ""),
    "RGBA, opaque": (lambda: on(np.uint8(HOLE * 255)).convert("RGBA"), ""),
    "red on black": (red_on_black, "runs from 0 to 76"),
    "palette": (lambda: palette([0, 0, 0, 255, 255, 255], HOLE), ""),
    "palette turned round": (lambda: palette([255, 255, 255, 0, 0, 0], ~HOLE), ""),
    "white paint on a layer": (lambda: layer((255, 255, 255), HOLE), "transparency"),
    "black paint on a layer": (lambda: layer((0, 0, 0), HOLE), "transparency"),
    "thin paint on a layer": (lambda: layer((9, 99, 0), HOLE, 90), "transparency"),
    "grey and alpha": (
        lambda: on(np.dstack([np.uint8(0 * HOLE), np.uint8(HOLE * 255)])),
        "transparency",
    ),
}


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_does_what_it_shows(kind: str, tmp_path: Path) -> None:
    make, note = MASKS[kind]
    make().save(tmp_path / "mask.png")
    mask = open_mask(tmp_path / "mask.png", "mask.png")
    assert (mask.hole.numpy() == HOLE).all()
    assert note in " ".join(mask.notes)
    assert bool(mask.notes) == bool(note)


@pytest.mark.parametrize("ending", ["tif", "jpg", "webp", "bmp"])
def test_a_mask_of_every_format(ending: str, tmp_path: Path) -> None:
    large = np.kron(np.uint8(HOLE * 255), np.ones((8, 8), np.uint8))
    on(large).save(tmp_path / f"mask.{ending}")
    mask = open_mask(tmp_path / f"mask.{ending}", "mask")
    assert (mask.hole.numpy() == (large > 0)).mean() > 0.99  # the edges of a JPEG are soft


def test_a_mask_is_turned_as_its_file_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    for ending in ("jpg", "png"):
        path = tmp_path / f"mask.{ending}"
        large = np.kron(np.uint8(HOLE * 255), np.ones((16, 16), np.uint8))
        on(np.rot90(large).copy()).save(path, exif=exif)
        hole = open_mask(path, "mask").hole
        assert tuple(hole.shape) == large.shape
        assert (hole.numpy() == (large > 0)).mean() > 0.98


@pytest.mark.parametrize(
    ("marks", "expected"),
    [("bright", HOLE), ("dark", ~HOLE), ("painted", HOLE), ("transparent", ~HOLE)],
)
def test_what_marks_the_hole_can_be_said(
    marks: Marks, expected: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "mask.png"
    layer((255, 255, 255), HOLE).save(path)
    mask = open_mask(path, "mask", marks)
    assert (mask.hole.numpy() == expected).all()
    assert mask.notes == ()


def test_a_half_erased_pixel_is_kept(tmp_path: Path) -> None:
    """Wholly transparent is what clients of image APIs mark with."""
    rgba = np.full((*SIZE, 4), 255, np.uint8)
    rgba[HOLE, 3] = 0
    rgba[0, 0, 3] = 100
    on(rgba).save(tmp_path / "mask.png")
    mask = open_mask(tmp_path / "mask.png", "mask", layer="transparent")
    assert (mask.hole.numpy() == HOLE).all()
    assert "what is transparent is generated" in mask.notes[0]


@pytest.mark.parametrize(
    ("image", "marks", "hint"),
    [
        (layer((0, 0, 0), HOLE & False), None, "wholly transparent"),
        (on(np.uint8(HOLE)), "painted", "no transparency"),
        (on(np.uint8(HOLE)), "white", "marks must be one of bright"),
    ],
)
def test_masks_that_say_nothing(
    image: Image.Image, marks: Marks, hint: str, tmp_path: Path
) -> None:
    image.save(tmp_path / "mask.png")
    with pytest.raises(FewstepError, match=hint):
        open_mask(tmp_path / "mask.png", "mask.png", marks)


def test_assumptions_of_read_mask_are_warnings(tmp_path: Path) -> None:
    on(np.uint8(HOLE)).save(tmp_path / "mask.png")
    with pytest.warns(FewstepWarning, match="brighter part"):
        assert (read_mask(tmp_path / "mask.png", "mask.png").numpy() == HOLE).all()


def test_a_mask_of_another_size_is_scaled(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    on(RANDOM.integers(0, 256, (2 * H, 2 * W, 3), np.uint8)).save(picture)
    p = read(picture, 3, "picture.png")
    for size, k in ((HOLE, 2), (np.kron(HOLE, np.ones((8, 8), bool)), 2)):
        on(np.uint8(size * 255)).save(tmp_path / "mask.png")
        masked = p.masked(open_mask(tmp_path / "mask.png", "mask.png"))
        assert masked.hole is not None
        assert (masked.hole.numpy() == np.kron(HOLE, np.ones((k, k), bool))).all()
        assert "is scaled to the 24x16 of picture.png" in masked.notes[0]
    on(np.uint8(HOLE.T * 255)).save(tmp_path / "mask.png")
    with pytest.raises(FewstepError, match="the mask has 8x12 pixels, but picture"):
        p.masked(open_mask(tmp_path / "mask.png", "mask.png"))


# What is kept


def values(bands: int, kind: type = np.uint8) -> np.ndarray:
    drawn = RANDOM.integers(0, np.iinfo(kind).max, (*SIZE, bands)).astype(kind)
    return drawn[..., 0] if bands == 1 else drawn


KINDS = {
    "L": values(1),
    "LA": values(2),
    "RGB": values(3),
    "RGBA": values(4),
    "16 bits": values(1, np.uint16),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("kind", KINDS)
def test_inpainting_keeps_the_picture_as_it_came(
    kind: str, ending: str, channels: int, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    before = KINDS[kind]
    network_map(channels).save(tmp_path / "f.safetensors")
    picture, out = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    on(before).save(picture)
    on(HOLE).save(tmp_path / "mask.png")
    words = ["--mask", tmp_path / "mask.png", "--steps", 1, "-o", out]
    code, said, err = call("edit", "inpaint", tmp_path / "f.safetensors", picture, *words)
    assert code == 0, said + err
    with Image.open(out) as image:
        assert image.mode == {"16 bits": "I;16"}.get(kind, kind)
        after = np.asarray(image)
    assert (after[~HOLE] == before[~HOLE]).all()
    assert (after[HOLE] != before[HOLE]).mean() > 0.4
    if kind.endswith("A"):
        assert (after[HOLE][:, -1] == 255).all()  # what is generated is opaque
    in_grey = channels == 1 and kind.startswith("RGB")
    assert ("what is generated is grey" in err) == in_grey
    assert in_grey or not err


@pytest.mark.parametrize("kind", KINDS)
def test_outpainting_keeps_the_picture_as_it_came(kind: str, tmp_path: Path) -> None:
    on(KINDS[kind]).save(tmp_path / "in.png")
    p = read(tmp_path / "in.png", 3, "in.png")
    ((y,),) = OutpaintTask(right=4, top=2)(network_map(3), [p], QUIET)
    assert torch.equal(y[:, -H:, :W], p.values)
    assert y.dtype == p.values.dtype


def test_pictures_of_twelve_bits_floats_and_phones(tmp_path: Path) -> None:
    twelve = RANDOM.integers(0, 4096, SIZE).astype(np.uint16)
    read_so = Opened(on(twelve), halved=False, full=4095.0)
    assert (read_so.values()[0].numpy() == np.rint(twelve * (65535 / 4095))).all()
    assert read_so.lost() == ("has 12 bits, which become 16",)
    on(np.linspace(0, 1, H * W, dtype=np.float32).reshape(SIZE)).save(tmp_path / "in.tif")
    p = read(tmp_path / "in.tif", 1, "in.tif")
    assert torch.equal(p.values, p.pixels)
    on(np.int32(HOLE)).save(tmp_path / "mask.tif")
    mask = open_mask(tmp_path / "mask.tif", "mask.tif")
    assert (mask.hole.numpy() == HOLE).all()
    assert mask.notes
    assert p.lost == ("holds floats, which become 8 bits",)
    thumbnail = on(values(3)[:4, :4].copy())
    on(KINDS["RGB"]).save(tmp_path / "in.jpg", "MPO", save_all=True, append_images=[thumbnail])
    assert read(tmp_path / "in.jpg", 3, "in.jpg").size == SIZE


def test_a_colour_profile_is_kept(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    on(KINDS["RGB"]).save(tmp_path / "in.png", icc_profile=profile)
    p = read(tmp_path / "in.png", 3, "in.png")
    assert p.profile_of(p.values) == profile
    assert p.profile_of(p.values[:1]) is None


LOST = [
    ("vary", 1, "RGB", "png", "the model makes grey images: the result is grey"),
    ("vary", 3, "RGBA", "png", "transparent in parts, which become white"),
    ("denoise", 3, "16 bits", "png", "16 bits, of which 8 are kept"),
    ("inpaint", 3, "RGBA", "bmp", ".bmp files hold no transparency: it is on white"),
    ("inpaint", 1, "16 bits", "webp", ".webp files hold no 16 bits"),
    ("inpaint", 3, "RGB", "jpg", "a format with loss"),
]


@pytest.mark.parametrize(("task", "channels", "kind", "ending", "hint"), LOST)
def test_what_is_lost_is_said(
    task: str,
    channels: int,
    kind: str,
    ending: str,
    hint: str,
    tmp_path: Path,
    call: Callable[..., tuple[int, str, str]],
) -> None:
    on(KINDS[kind]).save(tmp_path / "in.png")
    network_map(channels).save(tmp_path / "f.safetensors")
    verb = ["denoise"] if task == "denoise" else ["edit", task]
    how = ["--box", 1, 1, 3, 3] if task == "inpaint" else []
    how += ["--sigma", 9] if task == "denoise" else ["--steps", 1]
    out = tmp_path / f"out.{ending}"
    code, said, err = call(*verb, tmp_path / "f.safetensors", tmp_path / "in.png", *how, "-o", out)
    assert code == 0, said + err
    assert hint in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_picture_is_written_with_every_ending_that_is_read(ending: str, tmp_path: Path) -> None:
    grey = torch.arange(H * W, dtype=torch.uint8).view(1, H, W)
    notes = save(grey, tmp_path / f"x{ending.upper()}", keeps=True)
    with Image.open(tmp_path / f"x{ending.upper()}") as image:
        again = np.asarray(image.convert("L")).astype(int)
    assert abs(again - grey[0].numpy()).max() <= 2
    lossy = ending in (".jpg", ".jpeg", ".jpe", ".jfif", ".gif")
    assert ["format with loss" in note for note in notes] == [True] * lossy


def test_what_a_format_cannot_have_is_said_before_or_after_the_work(
    tmp_path: Path, call: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    network_map(1).save(tmp_path / "f.safetensors")
    (tmp_path / "in").mkdir()
    for name in ("a.jpg", "b.jfif", "c.png"):
        on(KINDS["L"]).save(tmp_path / "in" / name)
    words = ["edit", "inpaint", tmp_path / "f.safetensors", "--steps", 1, "--box", 1, 1, 3, 3]
    code, _, err = call(*words, tmp_path / "in", "-o", tmp_path / "out")
    assert code == 0, err
    assert [line.split()[1] for line in err.splitlines()] == [".jpg", ".jfif"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg", "b.jfif", "c.png"]
    monkeypatch.setattr(InpaintTask, "__call__", None)  # no work is done
    code, _, err = call(*words, tmp_path / "in/c.png", "-n", 2000, "-o", tmp_path / "x.webp")
    assert code == 2
    assert "24000x8 pixels, and .webp files have at most 16,383" in err


def test_equal_colours_are_no_colour(tmp_path: Path) -> None:
    on(KINDS["L"]).convert("RGB").save(tmp_path / "in.png")
    p = read(tmp_path / "in.png", 1, "in.png")
    assert InpaintTask((0, 0, 3, 3)).notes(network_map(1), p) == []


def test_holes_of_all_and_of_nothing(tmp_path: Path) -> None:
    on(KINDS["L"]).save(tmp_path / "in.png")
    f, p = network_map(1), read(tmp_path / "in.png", 1, "in.png")
    assert "covers all of in.png" in InpaintTask((0, 0, W, H)).notes(f, p)[0]
    for value, hint in ((0, "covers nothing"), (255, "covers all")):
        on(np.full(SIZE, value, np.uint8)).save(tmp_path / "mask.png")
        masked = p.masked(open_mask(tmp_path / "mask.png", "mask.png"))
        if value:
            assert hint in InpaintTask().notes(f, masked)[0]
            continue
        with pytest.raises(FewstepError, match=hint):
            InpaintTask()(f, [masked], QUIET)


def test_a_mask_beside_a_picture_of_another_format(
    tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    for folder in ("pictures", "masks"):
        (tmp_path / folder).mkdir()
    on(KINDS["RGB"]).save(tmp_path / "pictures/a.jpg")
    on(HOLE).save(tmp_path / "masks/a.png")
    network_map(3).save(tmp_path / "f.safetensors")
    words = ["--mask", tmp_path / "masks", "--steps", 1, "-o", tmp_path / "out"]
    code, _, err = call(
        "edit", "inpaint", tmp_path / "f.safetensors", tmp_path / "pictures", *words
    )
    assert code == 0, err


def test_a_folder_of_pictures_is_the_users_own(tmp_path: Path) -> None:
    for name in ("b/2.png", "1.png", "@eaDir/1.png", ".hidden/1.png", "__MACOSX/._1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        on(HOLE).save(tmp_path / name)
    assert [p.name for p in read_all(tmp_path, 1)] == ["1.png", "b/2.png"]
