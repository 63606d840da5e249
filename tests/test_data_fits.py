"""Pictures that are not square: cropped, padded, stretched, cut into tiles."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.data import Dataset, load, tiles
from fewstep.data.build import Request
from fewstep.data.decode import decode
from fewstep.data.fits import start_of_detail, tile_starts
from fewstep.data.sources import load_requested
from fewstep.errors import FewstepError, FewstepWarning

RNG = np.random.default_rng(5)


def put(path: Path, height: int, width: int) -> np.ndarray:
    """A random colour picture [H, W, 3]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def rows(data: Dataset) -> np.ndarray:
    return data.images.permute(0, 2, 3, 1).numpy()


def test_a_whole_picture_keeps_its_shape_where_all_have_one(tmp_path: Path) -> None:
    for i in range(3):
        put(tmp_path / f"{i}.png", 60, 80)
    assert load(tmp_path, size=32, fit="pad").shape == (3, 24, 32)
    assert load(tmp_path, fit="pad").shape == (3, 60, 80)
    assert load(tmp_path, size=32).shape == (3, 32, 32)


def test_pictures_of_several_shapes_are_padded_with_their_edges_and_that_is_said(
    tmp_path: Path,
) -> None:
    wide, tall = put(tmp_path / "a.png", 8, 16), put(tmp_path / "b.png", 16, 10)
    with pytest.warns(FewstepWarning, match=r"laid in 16x16, .* edges are repeated"):
        data = load(tmp_path, size=16, fit="pad")
    first, second = rows(data)
    assert (first[4:12] == wide).all()
    assert (first[:4] == wide[0]).all()
    assert (first[12:] == wide[-1]).all()
    assert (second[:, 3:13] == tall).all()
    assert (second[:, :3] == tall[:, :1]).all()


def test_a_photograph_that_is_reduced_while_it_is_decoded_has_its_own_proportions(
    tmp_path: Path,
) -> None:
    put(tmp_path / "a.jpg", 641, 1004)  # reduced to 81 x 126, whose proportions are a row taller
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (641, 1004)).save(tmp_path / "b.jpg", exif=turned)
    assert load(tmp_path, size=32, fit="pad").shape == (3, 20, 32)


@pytest.mark.filterwarnings("ignore::fewstep.errors.FewstepWarning")
def test_padding_without_a_size_takes_the_largest_sides(tmp_path: Path) -> None:
    put(tmp_path / "a.png", 8, 16)
    put(tmp_path / "b.png", 11, 10)
    assert load(tmp_path, fit="pad").shape == (3, 11, 16)
    with pytest.raises(FewstepError, match=r"differ in size: .* or --fit pad"):
        load(tmp_path)


@pytest.mark.parametrize(("height", "width"), [(20, 60), (60, 20), (150, 420)])
def test_the_square_with_the_most_detail(tmp_path: Path, height: int, width: int) -> None:
    pixels = np.full((height, width), 90, np.uint8)
    side, far = min(height, width), max(height, width)
    spot = slice(far - side + side // 4, far - side // 4)
    where = (slice(None), spot) if width > height else (spot, slice(None))
    pixels[where] = RNG.integers(0, 256, pixels[where].shape)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = load(tmp_path, size=side, fit="content").images[0, 0].numpy()
    inside = (found != 90).mean()
    assert inside == pytest.approx((spot.stop - spot.start) / side, abs=0.05)
    assert (load(tmp_path, size=side).images[0, 0].numpy() == 90).mean() > 0.7


def test_a_picture_without_detail_is_cropped_in_the_middle() -> None:
    assert start_of_detail(Image.new("L", (100, 40), 7)) == 30
    assert start_of_detail(Image.new("RGB", (40, 100), "red")) == 30
    assert start_of_detail(Image.new("L", (40, 40))) == 0


def test_stretching_keeps_everything(tmp_path: Path) -> None:
    pixels = np.zeros((10, 40, 3), np.uint8)
    pixels[:, 20:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = rows(load(tmp_path, size=10, fit="stretch"))[0]
    assert image.shape == (10, 10, 3)
    assert image[:, :3].max() < 40
    assert image[:, 7:].min() > 215


def test_tiles_cover_a_picture_and_keep_its_class(tmp_path: Path) -> None:
    large, exact = put(tmp_path / "a" / "1.png", 10, 22), put(tmp_path / "b" / "1.png", 8, 16)
    data = load(tmp_path, size=8, fit="tile")
    assert data.labels is not None
    assert data.labels.tolist() == [0] * 6 + [1] * 2
    cut = rows(data)
    assert (cut[6] == exact[:, :8]).all()
    assert (cut[7] == exact[:, 8:]).all()
    assert (cut[0] == large[:8, :8]).all()
    assert (cut[5] == large[2:, 14:]).all()
    assert tile_starts(22, 8) == [0, 7, 14]
    again = load(tmp_path, size=8, fit="tile")  # from the cache
    assert torch.equal(again.images, data.images)


def test_tiles_are_cut_on_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    def noted(data: object, *rest: object) -> np.ndarray:
        threads.add(threading.current_thread())
        return decode(data, *rest)  # type: ignore[arg-type]

    for i in range(3):
        put(tmp_path / f"{i}.png", 8, 16)
    monkeypatch.setattr(tiles, "decode", noted)
    assert len(load(tmp_path, size=8, fit="tile")) == 6
    assert threading.main_thread() not in threads
    assert threads


def test_a_canvas_that_is_asked_for(tmp_path: Path) -> None:
    wide = put(tmp_path / "d" / "a.png", 8, 16)
    request = Request(size=16, fit="pad", canvas=(16, 16))
    np.savez(tmp_path / "a.npz", wide[None])
    for source in (tmp_path / "d", tmp_path / "a.npz"):
        (row,) = rows(load_requested(source, request))
        assert (row[4:12] == wide).all()
        assert load(source, size=16, fit="pad").shape == (3, 8, 16)
        with pytest.raises(FewstepError, match="need 16x8, which 8x8 does not hold"):
            load_requested(source, request._replace(canvas=(8, 8)))


def test_tiles_of_grey_pictures_are_grey(tmp_path: Path) -> None:
    Image.fromarray(RNG.integers(0, 256, (8, 16), dtype=np.uint8)).save(tmp_path / "a.png")
    assert load(tmp_path, size=8, fit="tile").images.shape == (2, 1, 8, 8)
    arrays = Dataset.from_arrays(RNG.integers(0, 256, (2, 8, 16, 3), dtype=np.uint8))
    assert load(arrays, size=8, fit="tile").images.shape == (4, 3, 8, 8)
    assert load(arrays, size=8, fit="pad").images.shape == (2, 3, 4, 8)
    assert load(arrays, fit="pad") is arrays


def test_what_cannot_be_cut_into_tiles_is_said(tmp_path: Path) -> None:
    put(tmp_path / "a.png", 7, 22)
    with pytest.raises(FewstepError, match=r"a\.png is 22x7, smaller than a tile of 8"):
        load(tmp_path, size=8, fit="tile")
    with pytest.raises(FewstepError, match="say of which size"):
        load(tmp_path, fit="tile")
    with pytest.raises(FewstepError, match=r"fit 'pda'.*'pad'"):
        load(tmp_path, fit="pda")  # type: ignore[arg-type]
    put(tmp_path / "a.png", 8, 8)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(FewstepError, match=r"1 of 2 images .* b\.png"):
        load(tmp_path, size=8, fit="tile")
    assert load(tmp_path, size=8, fit="tile", skip_bad=True).skipped == 1
    with pytest.raises(FewstepError, match=r"1 of 2 images .* b\.png"):
        load(tmp_path, size=8, fit="pad")
