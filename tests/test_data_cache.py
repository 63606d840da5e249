"""The cache: decoded once, mapped from then on, rebuilt whenever it must be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fewstep.cache import cache_folder
from fewstep.data import Dataset, cache, load, save_images
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.files import partial_of


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(70):
        path = tmp_path / "data" / f"class é {i % 3}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).save(path)
    return tmp_path / "data"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by one whenever something is decoded."""
    log: list[str] = []
    original = cache.build

    def counted(source, request, shape, write):  # type: ignore[no-untyped-def]
        log.append(source.name)
        return original(source, request, shape, write)

    monkeypatch.setattr(cache, "build", counted)
    return log


def same(a: Dataset, b: Dataset) -> bool:
    assert a.labels is not None
    assert b.labels is not None
    equal = torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
    facts = [(d.classes, d.name, d.source, d.skipped, d.fingerprint()) for d in (a, b)]
    return equal and facts[0] == facts[1]


def labels_of(data: Dataset) -> list[int]:
    assert data.labels is not None
    return data.labels.tolist()


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_the_second_time_nothing_is_decoded(
    tmp_path: Path, pictures: Path, builds: list[str]
) -> None:
    first = load(pictures, cache=tmp_path / "cache")
    second = load(pictures, cache=tmp_path / "cache")
    assert len(builds) == 1
    assert same(first, second)
    expected = Dataset.from_arrays(first.images.clone(), first.labels, first.classes)
    assert expected.fingerprint() == second.fingerprint(), "the stored hash is that of the content"


def test_the_file_is_plain_safetensors(tmp_path: Path, pictures: Path) -> None:
    data = load(pictures, cache=tmp_path / "cache")
    content = load_file(only_file(tmp_path / "cache"))
    assert torch.equal(content["images"], data.images)
    assert data.labels is not None
    assert torch.equal(content["labels"], data.labels)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_the_file_is_mapped_not_read(tmp_path: Path, pictures: Path) -> None:
    data = load(pictures, cache=tmp_path / "cache")
    name = str(only_file(tmp_path / "cache"))
    address = data.stored.data_ptr()
    spans = [
        [int(bound, 16) for bound in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(name)
    ]
    assert any(low <= address < high for low, high in spans)
    assert (address - spans[0][0]) % cache.PAGE == 0


def test_options_are_kept_apart(tmp_path: Path, pictures: Path, builds: list[str]) -> None:
    options: list[dict] = [{}, {"size": 5}, {"size": 4}, {"channels": 1}, {"labels": False}]
    for _ in range(2):
        shapes = [load(pictures, cache=tmp_path / "cache", **o).shape for o in options]
    assert shapes == [(3, 5, 7), (3, 5, 5), (3, 4, 4), (1, 5, 7), (3, 5, 7)]
    assert len(builds) == len(options)


def touch(folder: Path) -> None:
    os.utime(folder / "class é 1" / "01.png", ns=(1, 1))


def add(folder: Path) -> None:
    Image.new("RGB", (7, 5)).save(folder / "class é 2" / "more.png")


def remove(folder: Path) -> None:
    (folder / "class é 2" / "02.png").unlink()


def rename(folder: Path) -> None:
    (folder / "class é 2").rename(folder / "other")


@pytest.mark.parametrize("change", [touch, add, remove, rename])
def test_a_change_is_noticed_and_no_old_file_stays(
    tmp_path: Path, pictures: Path, builds: list[str], change: Callable[[Path], None]
) -> None:
    load(pictures, cache=tmp_path / "cache")
    change(pictures)
    after = load(pictures, cache=tmp_path / "cache")
    assert len(builds) == 2
    assert same(after, load(pictures, cache=tmp_path / "fresh"))
    assert only_file(tmp_path / "cache").is_file()


def test_names_of_classes_that_are_exchanged_are_noticed(tmp_path: Path) -> None:
    images, labels = torch.arange(2).byte()[:, None, None, None].expand(-1, 1, 4, 4), [0, 1]
    folder = save_images(images, tmp_path / "d", torch.tensor(labels), ("x/y", "z/w"))
    assert labels_of(load(folder, cache=tmp_path / "c")) == labels
    note = folder / "fewstep-classes.json"
    for before, after in (('"x/y"', '"?"'), ('"z/w"', '"x/y"'), ('"?"', '"z/w"')):
        note.write_text(note.read_text().replace(before, after))
    assert labels_of(load(folder, cache=tmp_path / "c")) == labels[::-1]


def cut(content: bytearray, _: int) -> bytes:
    return bytes(content[:-1])


def longer(content: bytearray, _: int) -> bytes:
    return bytes(content) + b"x"


def one_bit_of_a_pixel(content: bytearray, pixels: int) -> bytes:
    content[pixels + 333] ^= 4
    return bytes(content)


def one_bit_of_a_label(content: bytearray, pixels: int) -> bytes:
    content[pixels - 8 * 70 + 8 * 20] ^= 1
    return bytes(content)


def zeros(content: bytearray, pixels: int) -> bytes:
    return bytes(content[:pixels]) + bytes(len(content) - pixels)


def junk(_: bytearray, __: int) -> bytes:
    return os.urandom(5000)


def nothing(_: bytearray, __: int) -> bytes:
    return b""


DAMAGE = [cut, longer, one_bit_of_a_pixel, one_bit_of_a_label, zeros, junk, nothing]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_rebuilt(
    tmp_path: Path, pictures: Path, builds: list[str], damage: Callable[[bytearray, int], bytes]
) -> None:
    first = load(pictures, cache=tmp_path / "cache")
    expected = Dataset.from_arrays(first.images.clone(), first.labels, first.classes)
    path = only_file(tmp_path / "cache")
    content = bytearray(path.read_bytes())
    path.unlink()
    path.write_bytes(damage(content, len(content) - 70 * 3 * 5 * 7))
    again = load(pictures, cache=tmp_path / "cache")
    assert len(builds) == 2
    assert torch.equal(again.images, expected.images)
    assert again.fingerprint() == expected.fingerprint()
    load(pictures, cache=tmp_path / "cache")
    assert len(builds) == 2


def test_a_folder_that_cannot_be_written(tmp_path: Path, pictures: Path, builds: list[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match="cannot be kept in .*FEWSTEP_CACHE"):
        data = load(pictures, cache=tmp_path / "file" / "cache")
    assert builds == ["data"]
    assert same(data, load(pictures, cache=tmp_path / "cache"))


def test_a_full_disk(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="No space left"):
        data = load(pictures, cache=tmp_path / "cache")
    assert len(data) == 70
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_disk_without_room_is_not_filled(
    tmp_path: Path, pictures: Path, builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has no room is decoded into memory where that is small, else refused."""
    monkeypatch.setattr(cache, "free_disk", lambda _: 7000)
    with pytest.warns(FewstepWarning, match=r"needs 0\.0 GiB of disk.* held in memory"):
        data = load(pictures, cache=tmp_path / "cache")
    assert len(data) == 70
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setattr(cache, "free_memory", lambda: 2 * 70 * 3 * 5 * 7 - 1)
    builds.clear()
    with pytest.raises(FewstepError, match=r"cannot be kept .* too large for the memory.*CACHE"):
        load(pictures, cache=tmp_path / "cache")
    assert builds == []


def test_files_of_killed_processes_are_swept_and_those_of_living_ones_kept(
    tmp_path: Path, pictures: Path
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    host = partial_of(folder / "x").name.split(".")[2]
    dead, alive = (folder / f".data.{host}.{pid}.0.partial" for pid in (999_999_999, os.getppid()))
    for path in (dead, alive):
        path.write_bytes(b"pixels")
    load(pictures, cache=folder)
    assert (dead.exists(), alive.exists()) == (False, True)


def test_the_rights_are_those_of_the_umask(tmp_path: Path, pictures: Path) -> None:
    before = os.umask(0o027)
    try:
        load(pictures, cache=tmp_path / "cache")
        save_images(torch.zeros(1, 1, 4, 4).byte(), tmp_path / "x.npz")
        save_images(torch.zeros(1, 1, 4, 4).byte(), tmp_path / "x")
    finally:
        os.umask(before)
    modes = [
        path.stat().st_mode & 0o777 for path in (only_file(tmp_path / "cache"), tmp_path / "x")
    ]
    assert modes == [0o640, 0o750]
    assert (tmp_path / "x.npz").stat().st_mode & 0o777 == 0o640


def test_a_folder_whose_name_is_no_text(tmp_path: Path, pictures: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    try:
        pictures.rename(odd)
    except OSError:
        pytest.skip("this file system takes text alone")
    first = load(odd, cache=tmp_path / "cache")
    assert same(first, load(odd, cache=tmp_path / "cache"))
    assert len(first) == 70


def test_a_failure_leaves_nothing_behind(tmp_path: Path, pictures: Path) -> None:
    (pictures / "class é 0" / "zz.png").write_bytes(b"")
    with pytest.raises(FewstepError, match="1 of 71"):
        load(pictures, cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_skipped_files_are_not_forgotten(tmp_path: Path, pictures: Path, builds: list[str]) -> None:
    broken = pictures / "class é 0" / "10.png"
    broken.write_bytes(b"")
    for _ in range(2):
        data = load(pictures, cache=tmp_path / "cache", skip_bad=True)
        assert (data.skipped, len(data)) == (1, 70)
    assert len(builds) == 1
    with pytest.raises(FewstepError, match=r"10.png \(empty file\)"):
        load(pictures, cache=tmp_path / "cache")
    broken.unlink()
    assert load(pictures, cache=tmp_path / "cache").skipped == 0


def test_where_the_cache_is(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "own"
    load(pictures)
    assert only_file(tmp_path / "own").name.startswith("data-")
    monkeypatch.delenv("FEWSTEP_CACHE")
    assert cache_folder() == tmp_path / "xdg" / "fewstep"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "fewstep"
