"""The search of time points: robust, resumable, and its result is what is sampled with."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep.runs.time_points as time_points
from fewstep.cli.tune_steps import app
from fewstep.condition import NONE, Condition
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.evaluation import classifier
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP
from fewstep.parameterization import EDM
from fewstep.runs.opening import open_model
from fewstep.runs.time_points import MOST, SearchState, greedy_search
from fewstep.sampling import (
    Jumps,
    Multistep,
    NoiseStreams,
    default_taus,
    jumps,
    sample,
    sampler_for,
)
from fewstep.trained import FLOW_MAP

BEST = (9.0, 0.8)  # far from the default points, which a coarse grid has among its own
QUICK = ["-n", "30", "--grid", "3", "--rounds", "1", "--seeds", "2", "--device", "cpu"]
Call = Callable[..., tuple[int, str, str]]


def valley(taus: tuple[float, ...]) -> float:
    return sum(abs(math.log(tau / best)) for tau, best in zip(taus, BEST, strict=False))


# The search


def test_finds_each_point_of_a_known_optimum() -> None:
    assert greedy_search(EDM(), 3, valley, rounds=25) == pytest.approx(BEST, rel=1e-3)


@pytest.mark.parametrize("best", [0.01, 0.3, 2.0, 30.0])
def test_the_scan_finds_the_deepest_of_several_valleys(best: float) -> None:
    def score(taus: tuple[float, ...]) -> float:
        distance = abs(math.log(taus[0] / best))
        return distance + 0.3 * math.sin(9 * distance) ** 2

    (tau,) = greedy_search(EDM(), 2, score)
    assert abs(math.log(tau / best)) < 0.4


def test_the_result_is_the_best_point_that_was_scored() -> None:
    scores: dict[tuple[float, ...], float] = {}

    def score(taus: tuple[float, ...]) -> float:
        return scores.setdefault(taus, torch.rand(()).item())

    taus = greedy_search(EDM(), 4, score)
    for k in range(1, 4):
        rivals = [s for t, s in scores.items() if len(t) == k and t[:-1] == taus[: k - 1]]
        assert len(rivals) == 8 + 2 * 2
        assert scores[taus[:k]] == min(rivals)


@pytest.mark.parametrize("p", [EDM(), EDM(eps=0.0, T=20.0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_points_at_the_ends_of_the_interval_decrease(p: EDM, sign: int) -> None:
    taus = greedy_search(p, 3, lambda taus: sign * taus[-1])
    assert p.T > taus[0] > taus[1] > p.eps


def test_more_steps_than_the_grid_has_room_for_are_refused() -> None:
    with pytest.raises(FewstepError, match=r"grid is too fine .* ask for at most \d steps"):
        greedy_search(EDM(), MOST, lambda taus: taus[-1])


@pytest.mark.parametrize("how", [{"steps": 1}, {"steps": 99}, {"grid": 0}, {"rounds": -1}])
def test_numbers_out_of_range_are_refused(how: dict[str, int]) -> None:
    with pytest.raises(FewstepError):
        greedy_search(EDM(), score=valley, **({"steps": 2} | how))


# The command


@pytest.fixture(scope="module")
def network() -> MLP:
    torch.manual_seed(0)
    F = MLP((1, 8, 8), num_classes=10, width=16, blocks=1)
    for parameter in F.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return F


@pytest.fixture
def model(network: MLP, tmp_path: Path) -> Path:
    """An untrained consistency model of digits, as a file."""
    path = tmp_path / "models" / "a.safetensors"
    path.parent.mkdir()
    FlowMap(network, EDM(T=20.0), info={"kind": "consistency"}).save(path)
    return path


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier that is trained in no time."""
    monkeypatch.setattr(classifier, "STEPS", 5)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[float, ...], int]]:
    """Replaces the Fréchet distance by one with a known optimum; lists what was computed."""
    computed: list[tuple[tuple[float, ...], int]] = []

    def fd(self: time_points.Search, taus: tuple[float, ...], seed: int) -> float:
        computed.append((taus, seed))
        return valley(taus)

    monkeypatch.setattr(time_points.Search, "_fd", fd)
    return computed


def tune(call: Call, model: Path, *more: object) -> tuple[int, str, str]:
    return call("tune-steps", model, *QUICK, "--reference", "digits", *more)


def stored(home: Path) -> dict[str, list[float]]:
    (entry,) = json.loads((home / "taus.json").read_text()).values()
    return entry["taus"]


def test_points_found_are_those_sampled_with(
    model: Path, known: object, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = FlowMap.load(model)
    code, out, _ = tune(call, model)
    assert code == 0
    assert out.count(": kept\n") == 3
    found = stored(model.parent)
    assert {*found} == {"2", "3", "4"}
    f = open_model(model)
    for steps, taus in found.items():
        assert tuple(taus) != default_taus(before, int(steps))
        assert sampler_for(f, int(steps)) == Multistep(tuple(taus))
    assert sampler_for(f, 5) == sampler_for(before, 5)
    times: list[float] = []
    steps_of = FlowMap.__call__

    def spy(self: FlowMap, x: torch.Tensor, t: object, *more: object, **how: object) -> object:
        times.append(float(torch.as_tensor(t).flatten()[0]))
        return steps_of(self, x, t, *more, **how)

    monkeypatch.setattr(FlowMap, "__call__", spy)
    assert call("sample", model, "-n", 2, "--steps", 3, "-o", model.with_suffix(".png"))[0] == 0
    assert times == pytest.approx([20.0, *found["3"]])


@pytest.mark.parametrize(
    ("words", "counts"), [(["2..4"], (2, 3, 4)), (["2", "4"], (2, 4)), (["2..3", "5"], (2, 3, 5))]
)
def test_steps_are_numbers_and_ranges(words: list[str], counts: tuple[int, ...]) -> None:
    _, bound, *_ = app.parse_args(["runs/x", "--steps", *words], print_error=False)
    assert bound.arguments["steps"] == counts


@pytest.mark.parametrize("word", ["4..2", "2..", "..4", "2...4", "2..99999999", "a..b"])
def test_a_range_that_is_none_is_refused(word: str, model: Path, call: Call) -> None:
    code, _, err = call("tune-steps", model, "--steps", word)
    assert code == 2
    assert word in err


def test_a_candidate_is_scored_as_it_will_be_sampled(
    model: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[tuple[float, ...]] = []
    states = Jumps.states

    def spy(self: Jumps, f: FlowMap, noise: NoiseStreams, condition: Condition = NONE) -> object:
        used.append(self.times)
        return states(self, f, noise, condition)

    monkeypatch.setattr(Jumps, "states", spy)
    assert tune(call, model, "--steps", 2)[0] == 0
    # three points of the scan, whose middle is the default one, and two of the ternary search
    assert default_taus(FlowMap.load(model), 2) in used
    assert len({*used}) == 5
    assert all(len(taus) == 1 for taus in used)


def test_points_are_found_for_the_jumps_that_were_asked_for(
    model: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    f = FlowMap.load(model)
    f.trained = FLOW_MAP
    f.save(model)
    used: set[float] = set()
    along = jumps.along

    def spy(*arguments: Any, gamma: float, **rest: Any) -> object:
        used.add(gamma)
        return along(*arguments, gamma=gamma, **rest)

    monkeypatch.setattr(jumps, "along", spy)
    assert tune(call, model, "--steps", 2)[0] == 0
    assert tune(call, model, "--steps", 2, "--sampler", "jumps(gamma=0.5)")[0] == 0
    assert used == {0.0, 0.5}
    for spec, expected in (
        ("walk", "has no argument times"),
        ("jumps(times=(1.0,))", "times is given twice"),
        ("jumps(gamma=2)", "gamma from 0 to 1"),
    ):
        code, _, err = tune(call, model, "--steps", 2, "--sampler", spec)
        assert code == 2
        assert expected in err


@pytest.mark.parametrize(("lucky", "kept"), [(0, False), (-20, False), (0.1, True)])
def test_points_are_kept_if_they_are_better_beyond_chance(
    lucky: float, kept: bool, model: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better on all seeds of the search, and by ``lucky`` on average over the fresh ones."""
    (default,) = default_taus(FlowMap.load(model), 2)

    def fd(self: time_points.Search, taus: tuple[float, ...], seed: int) -> float:
        if seed < 1 + 2:
            return valley(taus)
        noise = (-1) ** seed * 0.1
        return 5 + noise if taus == (default,) else 5 - lucky

    monkeypatch.setattr(time_points.Search, "_fd", fd)
    code, out, _ = tune(call, model, "--steps", 2)
    assert code == 0
    assert (": kept" in out) == kept
    assert ("the default points stay" in out) != kept
    assert (model.parent / "taus.json").exists() == kept
    used = sampler_for(open_model(model), 2)
    assert (used == Multistep((default,))) != kept


def test_points_that_a_new_search_rejects_are_gone(
    model: Path, known: object, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tune(call, model, "--steps", 2, 3)[0] == 0
    monkeypatch.setattr(time_points.Search, "_fd", lambda self, taus, seed: 1.0)
    assert tune(call, model, "--steps", 3)[0] == 0
    assert {*stored(model.parent)} == {"2"}
    assert tune(call, model, "--steps", 2)[0] == 0
    assert sampler_for(open_model(model), 2) == sampler_for(FlowMap.load(model), 2)


def test_points_of_other_numbers_of_steps_stay(model: Path, known: object, call: Call) -> None:
    assert tune(call, model, "--steps", 2)[0] == 0
    first = stored(model.parent)
    assert tune(call, model, "--steps", 3)[0] == 0
    assert stored(model.parent)["2"] == first["2"]
    assert {*stored(model.parent)} == {"2", "3"}


@pytest.mark.parametrize("moment", [1, 7, 20])
def test_an_interrupted_search_resumes_with_the_same_result(
    moment: int, model: Path, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(model.parent, tmp_path / "other")) / model.name
    words = ["--steps", 2, 3]
    expected = tune(call, other, *words)
    computed: list[tuple[tuple[float, ...], int]] = []
    real = time_points.Search._fd

    def fd(self: time_points.Search, taus: tuple[float, ...], seed: int) -> float:
        computed.append((taus, seed))
        if len(computed) == moment:
            raise KeyboardInterrupt
        return real(self, taus, seed)

    monkeypatch.setattr(time_points.Search, "_fd", fd)
    code, _, err = tune(call, model, *words)
    assert (code, err.splitlines()[-1]) == (130, "fewstep: interrupted.")
    assert not (model.parent / "taus.json").exists()
    code, out, _ = tune(call, model, *words)
    assert code == 0
    assert out.replace(str(model.parent), str(other.parent)) == expected[1]
    kept = [path.parent / "taus.json" for path in (model, other)]
    assert [path.exists() for path in kept] in ([False, False], [True, True])
    assert not kept[0].exists() or kept[0].read_text() == kept[1].read_text()
    interrupted = computed.pop(moment - 1)
    assert interrupted in computed
    assert len(computed) == len({*computed}), "a score was computed twice"
    assert not (model.parent / "tune-steps-a.json").exists()


@pytest.mark.parametrize(
    "content",
    ["", '{"settings": {}', "[]", "{}", '{"settings": {}, "scores": [1]}', "\x00", "[" * 50_000],
)
def test_a_damaged_state_is_named(content: str, model: Path, call: Call) -> None:
    state = model.parent / "tune-steps-a.json"
    state.write_text(content)
    code, _, err = tune(call, model)
    assert code == 2
    assert f"fewstep: {state} is not the state of a search" in err
    assert "delete it to start anew" in err
    assert state.read_text() == content


def test_searches_with_other_settings_keep_their_own_scores(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    for name, score in (("a", 4.0), ("b", 5.0)):
        SearchState(path, {"model": name}).score((0.8,), 1, lambda score=score: score)
    for name, score in (("a", 4.0), ("b", 5.0)):
        assert SearchState(path, {"model": name}).score((0.8,), 1, lambda: math.nan) == score
    SearchState(path, {"model": "a"}).remove()
    assert SearchState(path, {"model": "b"}).score((0.8,), 1, lambda: math.nan) == 5.0
    SearchState(path, {"model": "b"}).remove()
    assert not path.exists()


def test_a_search_that_is_refused_blocks_none(model: Path, known: object, call: Call) -> None:
    code, _, err = tune(call, model, "--steps", MOST)
    assert (code, "ask for at most" in err) == (2, True)
    other = ["40" if word == "30" else word for word in QUICK]
    words = ["tune-steps", model, *other, "--reference", "digits", "--steps", 2]
    assert call(*words)[0] == 0


def test_points_of_other_weights_are_not_used(
    model: Path, network: MLP, known: object, call: Call
) -> None:
    assert tune(call, model, "--steps", 2)[0] == 0
    found = tuple(stored(model.parent)["2"])
    moved = Path(shutil.copy(model, model.with_name("copy.safetensors")))
    assert sampler_for(open_model(moved), 2) == Multistep(found), "the same weights"
    f = FlowMap(network, EDM(T=20.0), info={"kind": "consistency", "other": True})
    f.save(model.with_name("b.safetensors"))
    assert sampler_for(open_model(model.with_name("b.safetensors")), 2) == sampler_for(f, 2)
    f.save(model)
    with pytest.warns(FewstepWarning, match=r"taus\.json are of other weights than .*a\.safe"):
        opened = open_model(model)
    assert sampler_for(opened, 2) == sampler_for(f, 2)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"a": 1}', '{"a": {"file": "b", "taus": {"2": [1, 2]}}}', '{"a": {"file": 1}}'],
)
def test_damaged_time_points_are_named(content: str, model: Path, call: Call) -> None:
    (model.parent / "taus.json").write_text(content)
    code, _, err = call("sample", model, "-o", model.with_suffix(".png"))
    assert code == 2
    assert "taus.json is not a file of time points" in err
    assert "delete it" in err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--steps", "1"], "from 2 to 16, got 1"),
        (["--steps", "0"], "from 2 to 16, got 0"),
        (["--steps", "2", "99"], "from 2 to 16, got 2 99"),
        (["--steps", "two"], "--steps"),
        (["-n", "1"], "at least 2 samples"),
        (["--grid", "0"], "grid >= 1"),
        (["--seeds", "0"], "--seeds 0"),
        (["--seed", "-1"], "seed"),
        (["--reference", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(words: list[str], expected: str, model: Path, call: Call) -> None:
    defaults = [] if "--reference" in words else ["--reference", "digits"]
    code, _, err = call("tune-steps", model, *defaults, *words)
    assert (code, len(err.splitlines())) == (2, 1)
    assert expected in err


def test_a_model_file_needs_a_reference(model: Path, call: Call) -> None:
    code, _, err = call("tune-steps", model)
    assert (code, "give --reference" in err) == (2, True)


def test_a_diffusion_model_has_no_time_points(network: MLP, tmp_path: Path, call: Call) -> None:
    path = tmp_path / "edm.safetensors"
    FlowMap(network, EDM(), info={"kind": "diffusion"}).save(path)
    code, _, err = tune(call, path)
    assert code == 2
    assert "diffusion model: time points are for consistency models" in err


# Run folders


TINY = ["--steps", "4", "--samples", "4", "--checkpoint-every", "2", "--quiet", "--device", "cpu"]
TINY += ["--network.width", "16", "--network.blocks", "1", "--network.hidden", "16"]


def test_a_run_keeps_and_uses_its_points(tmp_path: Path, known: object, call: Call) -> None:
    home = tmp_path / "ct"
    assert call("train", "digits/ct", *TINY, "--out", home)[0] == 0
    code, out, _ = call("tune-steps", home, *QUICK, "--steps", 2)  # the reference is its data
    assert code == 0
    assert f"{home}/taus.json: time points for 2 steps" in out
    found = Multistep(tuple(stored(home)["2"]))
    finished = home / "model.safetensors"
    for opened in (open_model(home), open_model(finished)):
        assert sampler_for(opened, 2) == found
    by_hand = sample(FlowMap.load(finished), 3, found, seed=5)
    assert torch.equal(sample(open_model(home), 3, sampler_for(opened, 2), seed=5), by_hand)
    with pytest.warns(FewstepWarning, match="other weights"):
        earlier = open_model(home, checkpoint="2")
    assert sampler_for(earlier, 2) == sampler_for(FlowMap.load(finished), 2) != found
