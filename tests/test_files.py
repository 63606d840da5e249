"""Files that appear whole, with the user's rights; JSON of any shape; one writer at a time."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from fewstep.digest import sha256_of
from fewstep.errors import FewstepError
from fewstep.files import (
    check_writable,
    partial_of,
    read_json,
    replacing,
    sweep,
    write_json,
    write_tensors,
)
from fewstep.flow_map import FlowMap
from fewstep.lock import locked
from fewstep.networks import MLP
from fewstep.parameterization import EDM

HOLD = """
import sys, time
from pathlib import Path
from fewstep.files import partial_of
from fewstep.lock import locked
folder = Path(sys.argv[1])
with locked(folder):
    partial_of(folder / "model.safetensors").write_bytes(b"cut off")
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_file_is_replaced_whole_or_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("before")

    def interrupted() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.read_text(), *os.listdir(tmp_path)] == ["before", "a"]
    with replacing(path) as partial:
        partial.write_text("after")
    assert [path.read_text(), *os.listdir(tmp_path)] == ["after", "a"]


PLACES = [
    ("sample", "RUN", "-n", 50000, "-o", "PLACE.npz"),
    ("sample", "RUN", "-o", "PLACE"),
    ("edit", "vary", "RUN", "x.png", "-o", "PLACE.png"),
    ("denoise", "RUN", "x.png", "-o", "PLACE.png"),
    ("interpolate", "RUN", "--from", 1, "--to", 2, "-o", "PLACE.gif"),
    ("evaluate", "RUN", "-o", "PLACE.csv"),
    ("evaluate", "RUN", "--save-reference", "PLACE.npz"),
    ("export", "RUN", "--to", "onnx", "-o", "PLACE.onnx"),
    ("export", "RUN", "--to", "diffusers", "-o", "PLACE"),
    ("export", "RUN", "--to", "web", "-o", "PLACE"),
    ("import", "RUN", "-o", "PLACE.safetensors"),
    ("reproduce", "digits", "--full", "--table", "PLACE.md"),
]


@pytest.mark.parametrize("command", PLACES, ids=lambda words: "-".join(map(str, words[:1])))
def test_a_place_that_cannot_be_written_is_found_before_any_work(
    command: tuple[object, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[..., tuple[int, str, str]],
) -> None:
    """The model of these commands is none, which nobody looks at before the place."""
    place, touched = tmp_path / "new" / "x", []

    def refuses(path: Path) -> None:
        touched.append(path.parent)
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuses)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").write_bytes(b"no model")
    named = (str(word).replace("PLACE", str(place)) for word in command)
    code, _, err = call(*(word.replace("RUN", str(tmp_path / "run")) for word in named))
    assert code == 2
    assert touched == [tmp_path]
    assert f"cannot write {place}" in err
    assert "Read-only file system" in err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_place_that_can_be_written_stays_as_it_is(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "x.npz")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(FewstepError, match=r"cannot write .*x\.npz: .*file is not a folder"):
        check_writable(tmp_path / "file" / "x.npz")


def test_tensors_are_written_as_their_library_writes_them(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3, 5), "a": torch.arange(7), "c": torch.randn(2).bfloat16()}
    digest = write_tensors(tmp_path / "t", tensors, {"note": "x"})
    assert (tmp_path / "t").read_bytes() == save(tensors, {"note": "x"})
    assert digest == sha256_of(tmp_path / "t")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_files_have_the_rights_of_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        FlowMap(MLP((2,), width=8, blocks=1), EDM()).save(tmp_path / "model.safetensors")
        write_json(tmp_path / "a.json", {})
        with locked(tmp_path):
            pass
    finally:
        os.umask(before)
    rights = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert rights == {0o666 & ~umask}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "5", '"x"', '{"a": []}', "[" * 100_000, "9" * 5000, "\0", "\xff"],
)
def test_json_of_another_shape_is_one_clear_error(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(FewstepError, match=r"a\.json is not a note .*\. Delete it\.") as caught:
        read_json(path, lambda note: note["a"]["b"], "a note", "Delete it.")
    assert len(str(caught.value)) < 400


def start(program: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)], stdout=subprocess.PIPE, text=True
    )


def test_a_folder_has_one_writer_and_a_killed_one_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewstep.lock.PATIENCE", 0.1)
    process = start(HOLD, tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(FewstepError, match=rf"in use: the process {process.pid} on \S+"):
        locked(tmp_path).__enter__()
    assert len(list(tmp_path.glob("*.partial"))) == 1
    sweep(tmp_path)  # of a process that lives
    assert len(list(tmp_path.glob("*.partial"))) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    mine = partial_of(tmp_path / "mine")
    mine.write_text("")
    with locked(tmp_path):
        assert list(tmp_path.glob("*.partial")) == [mine]
        owner: dict[str, Any] = json.loads((tmp_path / ".lock.json").read_text())
        assert owner["pid"] == os.getpid()
    assert not (tmp_path / ".lock.json").exists()


def test_partial_files_of_other_machines_are_swept_when_they_are_old(tmp_path: Path) -> None:
    young, old, other = (
        tmp_path / name
        for name in (".a.elsewhere.1.0.partial", ".b.elsewhere.1.0.partial", ".c.partial")
    )
    for path in (young, other):
        path.write_text("")
    old.mkdir()
    os.utime(old, (time.time() - 10**6,) * 2)
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == [young, other]


def test_partial_files_of_earlier_versions_are_swept(tmp_path: Path) -> None:
    for name in ("model.safetensors.partial", "run.partial", "shard-00003.partial", "film.partial"):
        (tmp_path / name).write_text("")
    with locked(tmp_path):
        assert [path.name for path in tmp_path.glob("*.partial")] == ["film.partial"]


def test_a_model_that_cannot_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = FlowMap(MLP((2,), width=8, blocks=1), EDM())
    f.save(tmp_path / "m.safetensors")
    before = load_file(tmp_path / "m.safetensors")

    def full(path: Path, *_: object) -> str:
        path.write_bytes(b"cut off")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fewstep.stored_model.write_tensors", full)
    with pytest.raises(FewstepError, match="No space left"):
        f.save(tmp_path / "m.safetensors")
    assert load_file(tmp_path / "m.safetensors").keys() == before.keys()
    assert os.listdir(tmp_path) == ["m.safetensors"]
