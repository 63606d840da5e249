"""Pairs of a diffusion model: made, taken up again, read, and what goes wrong with them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewstep.cli import run as fewstep
from fewstep.condition import Condition
from fewstep.data import load
from fewstep.data.pairs import open_pairs, read_manifest, shard_path
from fewstep.data.sharded import Sharded
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import EDM, RectifiedFlow
from fewstep.recipes import RECIPES
from fewstep.runs.pairs import FIRST, Wish, make_pairs
from fewstep.runs.parts import real_data
from fewstep.sampling import ODE, Asked, NoiseStreams
from fewstep.trained import FLOW_MAP, GENERATOR
from oracles import Exact, Gaussian

WISH = Wish(n=25, steps=4, shard=10, batch=4, trajectory=2)
TINY = ["--steps", "4", "--samples", "4", "--checkpoint-every", "2", "--quiet", "--device", "cpu"]
TINY += ["--network.width", "16", "--network.blocks", "1", "--network.hidden", "16"]


def teacher(kind: str = "diffusion", num_classes: int = 3) -> FlowMap:
    torch.manual_seed(1)
    f = FlowMap(
        MLP((2,), num_classes=num_classes, width=8, blocks=1), EDM(T=20.0), info={"kind": kind}
    )
    for parameter in f.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return f


def bits(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.name}:{key}": value
        for path in sorted(folder.glob("*.safetensors"))
        for key, value in load_file(path).items()
    }


def assert_same(a: Path, b: Path) -> None:
    one, two = bits(a), bits(b)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


# What they are


def test_a_pair_is_noise_and_the_end_of_its_trajectory(tmp_path: Path) -> None:
    f = teacher()
    make_pairs(f, tmp_path / "pairs", WISH)
    data = open_pairs(tmp_path / "pairs")
    assert (len(data), data.shape, data.num_classes) == (25, (2,), 3)
    rows = torch.tensor([24, 3, 12])
    x, labels = data.batch(rows)
    assert labels is not None
    assert labels.tolist() == [0, 0, 0]
    noise = data.column("noise", rows)
    streams = NoiseStreams(0, [FIRST + int(row) for row in rows], (2,))
    assert torch.equal(noise, streams.normal())
    streams = NoiseStreams(0, [FIRST + int(row) for row in rows], (2,))
    with torch.no_grad():
        states = list(ODE(4).steps(f, streams, Condition(labels)))
    torch.testing.assert_close(x, states[-1])
    trajectory = data.column("trajectory", rows)
    torch.testing.assert_close(trajectory, torch.stack([states[1], states[3]], 1))
    times = ODE(4).times(f.p)
    torch.testing.assert_close(data.column("times", rows)[0], torch.tensor([times[2], times[4]]))


def test_no_pair_has_the_noise_of_a_sample(tmp_path: Path) -> None:
    make_pairs(teacher(), tmp_path, replace(WISH, n=5))
    noise = open_pairs(tmp_path).column("noise", torch.arange(5))
    samples = NoiseStreams(0, range(100), (2,)).normal()
    assert float(torch.cdist(noise, samples).min()) > 0


def test_pairs_of_the_exact_model_lie_on_the_flow(tmp_path: Path) -> None:
    truth = Gaussian(EDM(T=20.0))
    f = Exact(truth, "diffusion", dim=2).float()
    make_pairs(f, tmp_path, Wish(n=64, steps=400))
    data = open_pairs(tmp_path)
    z = data.column("noise", torch.arange(64))
    exact = truth.flow(20 * z, torch.full((64,), 20.0), torch.zeros(64))
    torch.testing.assert_close(data.batch(torch.arange(64))[0], exact, rtol=1e-3, atol=2e-3)


def test_a_seed_gives_the_same_pairs_whatever_the_batch(tmp_path: Path) -> None:
    for batch in (1, 7):
        make_pairs(teacher(), tmp_path / str(batch), replace(WISH, batch=batch))
    one, two = bits(tmp_path / "1"), bits(tmp_path / "7")
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-5, atol=1e-5)


def test_a_subset_and_a_subset_of_it_keep_their_noise(tmp_path: Path) -> None:
    make_pairs(teacher(), tmp_path, WISH)
    data = open_pairs(tmp_path)
    part = data.subset([20, 4, 11]).subset([2, 0])
    rows = torch.arange(2)
    assert torch.equal(part.column("noise", rows), data.column("noise", torch.tensor([11, 20])))
    assert torch.equal(part.batch(rows)[0], data.batch(torch.tensor([11, 20]))[0])


def test_sharded_rows_are_those_of_one_tensor() -> None:
    whole = torch.randn(23, 3, 2)
    rows = Sharded(whole.split(5))
    wanted = torch.tensor([22, 0, 4, 5, 5, 17])
    assert rows.shape == whole.shape
    assert torch.equal(rows[wanted], whole[wanted])
    assert torch.equal(rows.whole(), whole)
    assert torch.equal(rows[13], whole[13])


# Taken up again

PROGRAM = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[3])
from fewstep.runs import pairs
from test_pairs import WISH, teacher
write, calls = pairs.write_shard, []
def write_or_die(folder, *rest):
    calls.append(folder)
    if len(calls) == int(sys.argv[2]):
        (folder / "shard-00001.partial").write_bytes(b"cut off")
        os.kill(os.getpid(), signal.SIGKILL)
    write(folder, *rest)
pairs.write_shard = write_or_die
pairs.make_pairs(teacher(), Path(sys.argv[1]), WISH)
"""


def test_a_folder_that_was_killed_ends_with_the_same_bits(tmp_path: Path) -> None:
    make_pairs(teacher(), tmp_path / "whole", WISH)
    (tmp_path / "program.py").write_text(PROGRAM)
    words = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "cut"), "2"]
    killed = subprocess.run(
        [*words, str(Path(__file__).parent)], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert killed.returncode == -signal.SIGKILL
    first = shard_path(tmp_path / "cut", 0)
    stamp = first.stat().st_mtime_ns
    with pytest.raises(FewstepError, match=r"shard-00001.safetensors is missing.*fewstep pairs"):
        open_pairs(tmp_path / "cut")
    make_pairs(teacher(), tmp_path / "cut", WISH)
    assert first.stat().st_mtime_ns == stamp
    assert_same(tmp_path / "whole", tmp_path / "cut")
    whole, cut = open_pairs(tmp_path / "whole"), open_pairs(tmp_path / "cut")
    assert whole.fingerprint() == cut.fingerprint()


def test_a_damaged_shard_is_named_and_made_again(tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        make_pairs(teacher(), tmp_path / name, WISH)
    broken = shard_path(tmp_path / "cut", 1)
    broken.write_bytes(broken.read_bytes()[:-9])
    with pytest.raises(FewstepError, match=r"shard-00001\.safetensors is damaged"):
        open_pairs(tmp_path / "cut")
    make_pairs(teacher(), tmp_path / "cut", WISH)
    assert_same(tmp_path / "whole", tmp_path / "cut")


# What goes wrong


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed was 0, now 1"),
        ({"steps": 5}, "steps was 4, now 5"),
        ({"solver": "euler"}, "solver was 'heun', now 'euler'"),
        ({"n": 26}, "n was 25, now 26"),
        ({"trajectory": 3}, "times was"),
    ],
)
def test_other_settings_do_not_go_into_the_same_folder(
    change: dict[str, object], named: str, tmp_path: Path
) -> None:
    make_pairs(teacher(), tmp_path, WISH)
    with pytest.raises(FewstepError, match=named):
        make_pairs(teacher(), tmp_path, replace(WISH, **change))
    other = teacher()
    with torch.no_grad():
        next(iter(other.parameters())).add_(1)
    with pytest.raises(FewstepError, match="teacher was"):
        make_pairs(other, tmp_path, WISH)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(FewstepError, match="something else"):
        make_pairs(teacher(), tmp_path, WISH)


def test_only_a_diffusion_model_makes_pairs(tmp_path: Path) -> None:
    with pytest.raises(FewstepError, match="diffusion model"):
        make_pairs(teacher("consistency"), tmp_path, WISH)
    with pytest.raises(FewstepError, match="at least as many steps"):
        make_pairs(teacher(), tmp_path, replace(WISH, trajectory=5))


def test_a_shard_of_other_pairs_or_shapes_is_named(tmp_path: Path) -> None:
    make_pairs(teacher(), tmp_path / "a", WISH)
    make_pairs(teacher(), tmp_path / "b", replace(WISH, seed=1))
    path = shard_path(tmp_path / "a", 1)
    good = path.read_bytes()
    path.write_bytes(shard_path(tmp_path / "b", 1).read_bytes())
    with pytest.raises(FewstepError, match=r"shard-00001.safetensors is not a shard of"):
        open_pairs(tmp_path / "a")
    path.write_bytes(good)
    tensors = load_file(path)
    tensors["sample"] = tensors["sample"][:, :1].contiguous()
    save_file(tensors, path, metadata={"fewstep_pairs": read_manifest(tmp_path / "a").key})
    with pytest.raises(FewstepError, match=r"shard-00001.safetensors holds"):
        open_pairs(tmp_path / "a")


@pytest.mark.parametrize(
    ("name", "changed", "why"),
    [
        ("sample", lambda x: x.half(), "sample is torch.float16"),
        ("noise", lambda x: x.to(torch.int32), "noise is torch.int32"),
        ("noise", lambda x: x.double(), "noise is torch.float64"),
        ("label", lambda x: x + 3, "none of the 3 classes"),
        ("label", lambda x: x - 1, "none of the 3 classes"),
        ("sample", lambda x: x / 0, "NaN or infinities"),
    ],
)
def test_values_that_cannot_be_are_named(
    name: str, changed: Callable[[torch.Tensor], torch.Tensor], why: str, tmp_path: Path
) -> None:
    """Also in a shard of an earlier version, which carries no hash of its tensors."""
    make_pairs(teacher(), tmp_path, WISH)
    path = shard_path(tmp_path, 1)
    tensors = load_file(path)
    tensors[name] = changed(tensors[name])
    save_file(tensors, path, metadata={"fewstep_pairs": read_manifest(tmp_path).key})
    with pytest.raises(FewstepError, match=rf"shard-00001\.safetensors is damaged \(.*{why}"):
        open_pairs(tmp_path)


def test_a_flipped_bit_is_noticed_and_the_shard_made_again(tmp_path: Path) -> None:
    for name in ("whole", "bent"):
        make_pairs(teacher(), tmp_path / name, WISH)
    path = shard_path(tmp_path / "bent", 2)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FewstepError, match=r"shard-00002.* damaged \(its content has changed"):
        open_pairs(tmp_path / "bent")
    make_pairs(teacher(), tmp_path / "bent", WISH)
    assert_same(tmp_path / "whole", tmp_path / "bent")


def test_what_was_refused_or_killed_early_blocks_nothing(tmp_path: Path) -> None:
    with pytest.raises(FewstepError, match="seed must be at least 0"):
        replace(WISH, seed=-1)
    manifest = make_pairs(teacher(), tmp_path, WISH)
    for i in range(3):
        shard_path(tmp_path, i).unlink()
    left = tmp_path / f".shard-00000.safetensors.{socket.gethostname()}.999999999.0.partial"
    left.write_bytes(b"x")
    (tmp_path / "pairs.json").write_text("{")
    assert make_pairs(teacher(), tmp_path, replace(WISH, seed=1)) != manifest
    assert len(open_pairs(tmp_path)) == 25
    assert not left.exists()
    first = tmp_path / "new" / left.name.replace("shard-00000.safetensors", "pairs.json")
    first.parent.mkdir()
    first.write_bytes(b"x")  # all that is there when the manifest was being written
    make_pairs(teacher(), first.parent, WISH)
    assert not first.exists()


HOSTILE = [
    {"shard": 0},
    {"shard": -1},
    {"n": "x"},
    {"n": 0},
    {"n": 2.5},
    {"n": 10**40},
    {"shape": []},
    {"shape": [-1]},
    {"shape": 5},
    {"times": ["x"]},
    {"times": [float("inf")]},
    {"classes": 5},
    {"classes": []},
    {"classes": [1]},
    {"process": []},
    {"data": "digits"},
    {"conditional": "yes"},
    {"unknown": 1},
]


@pytest.mark.parametrize("wrong", HOSTILE)
def test_a_manifest_of_another_shape_is_one_clear_error(wrong: dict, tmp_path: Path) -> None:
    make_pairs(teacher(), tmp_path, WISH)
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    with pytest.raises(FewstepError, match=r"pairs\.json is not a manifest of pairs"):
        open_pairs(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 99}', "5", "[" * 9999])
def test_a_damaged_manifest_is_one_clear_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "pairs.json").write_text(text)
    with pytest.raises(FewstepError, match=r"pairs\.json"):
        open_pairs(tmp_path)


# Training on them, through the command line


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two diffusion models, pairs and trajectories of the first, and its KD."""
    folder = tmp_path_factory.mktemp("home")
    for name, seed in (("edm", "0"), ("other", "1")):
        words = ["train", "digits/edm", *TINY, "--seed", seed, "--out", str(folder / name)]
        assert fewstep(words) == 0
    pairs = ["pairs", str(folder / "edm"), "-n", "40", "--steps", "3", "--device", "cpu"]
    assert fewstep([*pairs, "-o", str(folder / "pairs")]) == 0
    assert train_kd(folder, folder / "kd") == 0
    return folder


def train_kd(home: Path, out: Path, *more: str, data: str = "", teacher: str = "edm") -> int:
    words = ["--teacher", str(home / teacher), "--data", data or str(home / "pairs")]
    words += ["--out", str(out)]
    return fewstep(["train", "digits/kd", *TINY, *words, *more])


def test_a_model_learns_from_pairs(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    f = FlowMap.load(home / "kd/model.safetensors")
    assert replace(f.trained, step=None, classes=()) == GENERATOR
    assert f.trained.classes == tuple("0123456789")
    assert fewstep(["sample", str(home / "kd"), "-n", "4", "-o", str(tmp_path / "a.png")]) == 0
    capsys.readouterr()
    words = ["sample", str(home / "kd"), "-n", "4", "-o", str(tmp_path / "b.png")]
    for more in (["--steps", "2"], ["--taus", "0.5"]):
        assert fewstep([*words, *more]) == 2
        assert "distilled for 1 step" in capsys.readouterr().err


def test_it_is_scored_against_the_images_that_its_teacher_saw(home: Path) -> None:
    from fewstep.runs.directory import RunDirectory

    images = real_data(RunDirectory(home / "kd").run()[1])
    assert images.data == "digits"


def test_pairs_of_another_teacher_are_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_kd(home, tmp_path / "a", teacher="other") == 2
    error = capsys.readouterr().err
    assert "another model" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "a").exists()


def test_images_are_not_pairs(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_kd(home, tmp_path / "a", data="digits") == 2
    assert "learns from pairs" in capsys.readouterr().err
    assert train_kd(home, tmp_path / "a", data="nowhere") == 2
    assert "fewstep pairs" in capsys.readouterr().err
    assert train_kd(home, tmp_path / "a", "--flip") == 2
    assert "mirrored" in capsys.readouterr().err


def test_other_methods_take_the_samples_for_images(home: Path, tmp_path: Path) -> None:
    words = ["--data", str(home / "pairs"), "--out", str(tmp_path / "a")]
    assert fewstep(["train", "digits/ct", *TINY, *words]) == 0
    data = load(home / "pairs")
    assert data.batch(torch.arange(3))[0].shape == (3, 1, 8, 8)
    with pytest.raises(FewstepError, match="no split"):
        load(home / "pairs", split="test")


def test_a_manifest_names_no_more_than_it_needs(home: Path) -> None:
    stored = json.loads((home / "pairs/pairs.json").read_text())
    assert stored["data"]["data"] == "digits"
    assert stored["process"] == FlowMap.load(home / "edm/model.safetensors").p.config


def test_the_default_folder_is_that_of_the_documents() -> None:
    assert RECIPES["digits/kd"]().data.data == "runs/pairs"


def test_a_rectified_flow_steps_uniformly() -> None:
    assert ODE(4).times(RectifiedFlow()) == pytest.approx([1, 0.75, 0.5, 0.25, 0])


def test_a_flow_map_makes_pairs_by_its_own_jumps(tmp_path: Path) -> None:
    """The states of the trajectory stand at the times between, and the record says the sampler."""
    truth = Gaussian(EDM(T=20.0), m=0.3, v=0.25)
    f = Exact(truth, "consistency", dim=3)
    f.trained = FLOW_MAP
    how = Asked(sampler="jumps(gamma=0, times=(2.0, 0.5))")
    made = make_pairs(f, tmp_path, Wish(n=8, how=how, trajectory=3), model="fm")
    assert made.solver == made.sampler == "jumps(gamma=0.0, times=(2.0, 0.5))"
    assert (made.steps, made.times) == (3, (2.0, 0.5, f.p.eps))
    shard = load_file(shard_path(tmp_path, 0))
    x_T, states = 20.0 * shard["noise"].double(), shard["trajectory"].double()
    for k, t in enumerate(made.times):
        now = torch.full((8,), t).double()
        exact = truth.flow(x_T, torch.full((8,), 20.0).double(), now)
        torch.testing.assert_close(states[:, k], exact, rtol=1e-4, atol=1e-4)
    noisy = Asked(sampler="jumps(gamma=0.5, times=(2.0,))")
    with pytest.raises(FewstepError, match=r"deterministic sampler, not jumps\(gamma=0.5"):
        make_pairs(f, tmp_path / "other", Wish(n=8, how=noisy))
