"""Weights of other projects: read without running them, and equal to the authors' own networks."""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import foreign
from fewstep.cli import run
from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.exchange.exported import STATE_DICTS
from fewstep.exchange.sources import Wanted, import_model
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.networks import ADM, MLP, ConvAutoencoder, UNet
from fewstep.parameterization import EDM, VP, TrigFlow
from fewstep.sampling import sample
from fewstep.trained import CONSISTENCY, DIFFUSION
from foreign import CASES, nested, parity, weights_of, write


@pytest.fixture
def nvidia() -> Iterator[None]:
    with foreign.nvidia():
        yield


def denoised(f: FlowMap, case: dict[str, Any], *, consistency: bool) -> Tensor:
    """What the model makes of the reference's images, as the numbers that it holds."""
    x, t = parity.images(case["size"]), torch.tensor(case["t"], dtype=torch.float64)
    condition = Condition(label=torch.tensor(parity.LABELS)) if case["labels"] else Condition()
    if case["kind"] in ("VPPrecond", "iDDPMPrecond"):  # theirs take x / alpha and the noise level
        t = f.p.time_of_log_snr(-t.log())
        x = x * f.p.alpha(t)[:, None, None, None].float()
    with torch.no_grad():
        D = f(x, t, condition=condition) if consistency else f.D(x, t, condition)
    step = D[0].numel() // parity.SHOWN
    return torch.stack([image.flatten()[::step] for image in D])


@pytest.mark.parametrize("name", list(CASES))
def test_imported_networks_denoise_as_the_authors_do(
    name: str, tmp_path: Path, nvidia: None
) -> None:
    case = CASES[name]
    size = {"openai": 16, "guided": 16}.get(case["kind"])
    consistency = name.startswith("cd") if case["kind"] == "openai" else None
    wanted = Wanted(size=size, consistency=consistency)
    imported = import_model(write(case, name, tmp_path), wanted)
    f = imported.f
    expected = torch.tensor(case["D"])
    assert f.trained.denoises != name.startswith("cd")
    found = denoised(f, case, consistency=name.startswith("cd"))
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
    assert f.info["origin"]["sha256"]
    f.save(tmp_path / "model.safetensors")
    again = FlowMap.load(tmp_path / "model.safetensors")
    assert torch.equal(denoised(again, case, consistency=name.startswith("cd")), found)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [(Wanted(size=99), "--size says 99"), (Wanted(heads_lead=True), "--attention-order")],
)
def test_what_a_file_says_itself_is_not_asked_for(
    wanted: Wanted, said: str, tmp_path: Path, nvidia: None
) -> None:
    file = write(CASES["edm-vp"], "edm-vp", tmp_path)
    with pytest.raises(FewstepError, match=said):
        import_model(file, wanted)
    assert import_model(file, Wanted(size=CASES["edm-vp"]["size"])).f.image_shape[1] > 0


# What a file leaves open, and what it says


def test_what_an_unknown_file_of_openai_leaves_open_is_noted(tmp_path: Path) -> None:
    """A network of steps is told their index, and one of EDM's process 1000 ln(t) / 4."""
    path = write(CASES["edm_bedroom256"], "mine", tmp_path)
    for process, last in (({"name": "vp_discrete"}, 999.0), ({"name": "edm"}, 1095.5)):
        asked = Wanted(size=16, consistency=False, process=process)
        imported = import_model(path, asked)
        f = imported.f
        assert f.network.time_scale * float(f.p.c_noise(torch.tensor(f.p.T))) == pytest.approx(
            last, rel=1e-3
        )
        said = " ".join(imported.notes)
        assert f"told {f.network.time_scale:g} times c_noise (--time-scale)" in said
        assert "64 channels (--head-channels, --heads)" in said
    known = {"head_channels": 64, "time_scale": 1.0}
    imported = import_model(path, replace(asked, network=known))
    assert imported.f.network.time_scale == 1.0
    assert not any("heads" in note or "c_noise" in note for note in imported.notes)


def preconditioned(kind: str, folder: Path, settings: Any = (), **state: Any) -> Path:
    case = CASES["edm2" if kind == "Precond" else "edm-vp"]
    network = nested(weights_of(case), "Network", _init_kwargs={**case["kwargs"], **dict(settings)})
    inside = "unet" if kind == "Precond" else "model"
    path = folder / "mine.pkl"
    modules = OrderedDict([(inside, network)])
    path.write_bytes(pickle.dumps({"ema": foreign.Persistent(kind, _modules=modules, **state)}))
    return path


def test_the_process_of_a_pickle_has_its_numbers(tmp_path: Path, nvidia: None) -> None:
    for kind, state, expected in (
        ("VPPrecond", {}, {"beta_min": 0.1, "beta_max": 20.0, "time_scale": 999.0}),
        (
            "VPPrecond",
            {"beta_d": 9.9, "beta_min": 0.05, "M": 500},
            {"beta_min": 0.05, "beta_max": 9.95, "time_scale": 499.0},
        ),
        ("VEPrecond", {"sigma_min": 0.01, "sigma_max": 50}, {"eps": 0.01, "T": 50.0}),
        ("VEPrecond", {"_init_kwargs": {"sigma_max": 9}}, {"eps": 0.02, "T": 9.0}),
        ("iDDPMPrecond", {"M": 100}, {"N": 100, "time_scale": 99.0, "eps": 0.01}),
    ):
        config = import_model(preconditioned(kind, tmp_path, **state)).f.p.config
        assert {name: config[name] for name in expected} == expected
    for kind, state, said in (
        ("iDDPMPrecond", {"C_2": 0.1}, "C_2 is 0.1, and 0.008 alone"),
        ("VPPrecond", {"M": "many"}, "M is 'many', and no number"),
        ("OddPrecond", {}, "--process edm"),
    ):
        assert_refused(preconditioned(kind, tmp_path, **state), said)


def test_balances_of_a_pickle_are_kept_or_refused(tmp_path: Path, nvidia: None) -> None:
    said = {"label_balance": 0.25, "concat_balance": 0.75, "channels_per_head": 32}
    F = import_model(preconditioned("Precond", tmp_path, said)).f.network
    assert (F.label_balance, F.concat_balance) == (0.25, 0.75)
    assert F.config["head_channels"] == 32
    assert_refused(preconditioned("Precond", tmp_path, {"res_balance": 0.5}), "res_balance", "0.3")


# Files that are not taken


class Calls:
    """Pickled as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def assert_refused(path: Path, *said: str, wanted: Wanted | None = None) -> None:
    with pytest.raises(FewstepError) as error:
        import_model(path, wanted)
    text = str(error.value)
    assert "\n" not in text
    for part in (str(path), *said):
        assert part in text, text


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (eval, ("open('{}', 'w')",)),
        (exec, ("open('{}', 'w')",)),
        (open, ("{}", "w")),
        (importlib.import_module, ("os",)),
        (getattr, ("x", "join")),
        (torch.load, ("{}",)),
        (torch.hub.load, ("{}",)),
        (Path.write_text, (Path("x"), "{}")),
        (pickle.loads, (b"",)),
    ],
)
def test_a_pickle_that_calls_code_is_refused_by_name(
    function: Any, arguments: tuple[Any, ...], tmp_path: Path, nvidia: None
) -> None:
    planted = tmp_path / "planted"
    filled = [a.format(planted) if isinstance(a, str) else a for a in arguments]
    network = nested({"w": torch.zeros(2)}, "Network", hook=Calls(function, *filled))
    for content in ({"ema": network}, Calls(function, *filled)):
        path = tmp_path / "evil.pkl"
        path.write_bytes(pickle.dumps(content))
        assert_refused(path, function.__name__, "Nothing in it was run")
    assert not planted.exists()


def test_storages_inside_a_pickle_are_weights_only(tmp_path: Path, nvidia: None) -> None:
    class Storage:
        def __reduce__(self) -> tuple[Any, ...]:
            inside = pickle.dumps(Calls(exec, f"open({str(tmp_path / 'planted')!r}, 'w')"))
            return torch.storage._load_from_bytes, (inside,)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"ema": nested({"w": torch.zeros(2)}, "N", more=Storage())}))
    assert_refused(path)
    assert not (tmp_path / "planted").exists()


def test_a_torch_file_that_calls_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"model": Calls(exec, f"open({str(tmp_path / 'planted')!r}, 'w')")}, path)
    assert_refused(path, "exec", "nothing in it was run")
    assert not (tmp_path / "planted").exists()


def test_files_that_hold_no_weights_say_what_they_are(tmp_path: Path, nvidia: None) -> None:
    case = CASES["edm-ddpmpp"]
    whole = write(case, "edm-ddpmpp", tmp_path).read_bytes()
    state = {
        name: x for name, x in weights_of(CASES["cd_imagenet64"]).items() if "middle" not in name
    }
    torch.save(state, tmp_path / "part.pt")
    torch.save({"optimizer": {"lr": 0.1}}, tmp_path / "optimizer.pt")
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")
    torch.save(weights_of(CASES["edm_bedroom256"]), tmp_path / "cd_bedroom256_l2.pt")
    (tmp_path / "cut.pkl").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "lfs.pt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (tmp_path / "page.pt").write_text("<!DOCTYPE html><html>Quota exceeded</html>")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"\0" * 64)
    (tmp_path / "cut.pt").write_bytes((tmp_path / "part.pt").read_bytes()[:2000])
    size = Wanted(size=16, consistency=True)
    assert_refused(tmp_path / "cut.pkl", "damaged")
    assert_refused(tmp_path / "part.pt", "it has no", "middle_block", wanted=size)
    assert_refused(tmp_path / "optimizer.pt", "optimizer")
    assert_refused(tmp_path / "other.pt", "conv.weight", "UNetModel")
    assert_refused(tmp_path / "cd_bedroom256_l2.pt", "526,304,771", wanted=Wanted(size=16))
    assert_refused(tmp_path / "lfs.pt", "Git LFS")
    assert_refused(tmp_path / "page.pt", "HTML")
    assert_refused(tmp_path / "empty.pt", "empty")
    assert_refused(tmp_path / "model-00001-of-00002.safetensors", "shards")
    assert_refused(tmp_path / "cut.pt")
    assert_refused(tmp_path / "absent.pt", "no model file")


# And back


@pytest.mark.parametrize("name", ["edm-ddpmpp", "edm-ncsnpp", "edm-adm", "edm-vp", "edm-ve"])
def test_what_was_imported_is_exported_to_the_bit(name: str, tmp_path: Path, nvidia: None) -> None:
    """But for Fourier frequencies, which are angles here and periods there: one rounding."""
    case = CASES[name]
    f = import_model(write(case, name, tmp_path)).f
    exported = STATE_DICTS["edm"](f)
    theirs = {f"model.{key}": x for key, x in weights_of(case).items()}
    assert exported.tensors.keys() == theirs.keys()
    for key, x in theirs.items():
        if key.endswith("freqs"):
            torch.testing.assert_close(exported.tensors[key], x, rtol=2e-7, atol=0)
        else:
            assert torch.equal(exported.tensors[key], x), key
    assert case["kind"] in exported.load[1]
    torch.save(exported.tensors, tmp_path / "again.pt")
    again = import_model(tmp_path / "again.pt", Wanted(consistency=False, process=f.p.config)).f
    for key, x in f.tensors().items():
        torch.testing.assert_close(again.tensors()[key], x, rtol=2e-7, atol=0)


@pytest.mark.parametrize("name", ["cd_imagenet64", "edm_bedroom256"])
def test_openai_state_dicts_come_back_to_the_bit(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    wanted = Wanted(size=16, consistency=name.startswith("cd"))
    f = import_model(write(case, name, tmp_path), wanted).f
    exported = STATE_DICTS["openai"](f)
    theirs = weights_of(case)
    assert exported.tensors.keys() == theirs.keys()
    assert all(torch.equal(exported.tensors[key], x) for key, x in theirs.items())
    assert f"distillation={name.startswith('cd')}" in exported.load[-1]


def test_what_a_target_cannot_express_is_named() -> None:
    def refused(target: str, f: FlowMap, *said: str) -> None:
        with pytest.raises(FewstepError) as error:
            STATE_DICTS[target](f)
        assert all(part in str(error.value) for part in said), str(error.value)

    small: dict[str, Any] = {"channels": 16, "multipliers": (1,), "blocks": 1}
    unet = FlowMap(UNet((3, 8, 8), resample="conv", **small), EDM())
    refused("edm", unet, "resample='conv'")
    refused("openai", unet, "unet", "UNetModel")
    refused("edm", FlowMap(MLP((3,)), EDM()), "mlp", "SongUNet")
    refused("edm", FlowMap(UNet((3, 8, 8), **small), TrigFlow()), "trigflow", "edm, ve and vp")
    adm = ADM((3, 8, 8), head_channels=16, attention=(), **small)
    refused("openai", FlowMap(adm, EDM()), "16 channels", "128")
    refused("edm", FlowMap(adm, EDM()), "time_scale=1000.0")
    for kind, wide in (
        (UNet, {}),
        (ADM, {"time_scale": 1.0, "attention": (), "head_channels": 64}),
    ):
        F = kind((3, 8, 8), double_norm=True, **{**small, **wide, "channels": 64})
        refused("edm", FlowMap(F, EDM()), "double_norm=True")


def test_a_state_dict_drops_nothing_silently() -> None:
    small: dict[str, Any] = {"channels": 128, "multipliers": (1,), "blocks": 1, "attention": ()}

    def refused(target: str, said: str, f: FlowMap) -> None:
        with pytest.raises(FewstepError, match=said):
            STATE_DICTS[target](f)

    F, G = UNet((3, 8, 8), **small), ADM((3, 8, 8), **small)
    latents = Latents(ConvAutoencoder((3, 16, 16), latents=3, channels=4, multipliers=(1, 1)))
    refused("edm", "latents='conv_autoencoder'", FlowMap(F, EDM(), latents=latents))
    refused("openai", "augment=9", FlowMap(ADM((3, 8, 8), augment=9, **small), EDM()))
    for target, network in (("edm", F), ("openai", G)):
        f = FlowMap(network, EDM(form="ddim"), trained=CONSISTENCY)
        refused(target, "form='ddim'", f)
    refused("edm", "process='vp'", FlowMap(F, VP(), trained=CONSISTENCY))
    steps = FlowMap(F, VP(time_scale=499.0), trained=DIFFUSION)
    assert "M=500.0" in STATE_DICTS["edm"](steps).load[1]
    f = FlowMap(G, EDM(eps=0.01), trained=replace(CONSISTENCY, null_class=True))
    exported = STATE_DICTS["openai"](f)
    assert "sigma_min=0.01, sigma_max=80.0" in exported.load[-1]
    assert exported.notes == ("its null class is left out, and with it guidance",)
    dropped = UNet((3, 8, 8), num_classes=2, label_dropout=0.1, **small)
    assert "label_dropout=0.1" in STATE_DICTS["edm"](FlowMap(dropped, EDM())).load[1]


def test_an_import_never_replaces_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nvidia: None
) -> None:
    folder = tmp_path / "dl"
    folder.mkdir()
    path = folder / "model.safetensors"
    save_file(weights_of(CASES["edm-vp"]), path)
    before = path.read_bytes()
    (tmp_path / "link").symlink_to(folder)
    words = ["--as", "diffusion", "--process", "vp", "-o"]
    for source in (path, folder, tmp_path / "link"):
        assert run(["import", str(source), *words, str(folder)]) == 2
        assert "is the model itself: give another name" in capsys.readouterr().err
    index = folder / "all.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": path.name}}))
    assert run(["import", str(index), *words, str(folder)]) == 2
    assert "is the model itself" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert run(["import", str(path), *words, str(tmp_path / "out")]) == 0
    assert run(["import", str(path), *words, str(tmp_path / "out")]) == 0


def test_an_export_never_replaces_what_it_is_made_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nvidia: None
) -> None:
    case = CASES["edm-ddpmpp"]
    f = import_model(write(case, "edm-ddpmpp", tmp_path)).f
    mine, out = tmp_path / "mine.pt", tmp_path / "out.pt"
    torch.save(STATE_DICTS["edm"](f).tensors, mine)
    f.save(tmp_path / "model.safetensors")
    before = mine.read_bytes()
    assert run(["export", str(mine), "--to", "edm", "-o", str(mine)]) == 2
    assert "is the model itself" in capsys.readouterr().err
    assert mine.read_bytes() == before
    command = ["export", str(tmp_path / "model.safetensors"), "--to", "edm", "-o", str(out)]
    assert run(command) == 0
    assert "replaced" not in capsys.readouterr().out
    assert run(command) == 0
    assert "that was there is replaced" in capsys.readouterr().out
    assert run([*command, "--no-compare"]) == 2
    assert "--no-compare is for a graph" in capsys.readouterr().err


def test_the_second_stage_of_a_truncated_model_knows_late_times_alone(
    tmp_path: Path, nvidia: None
) -> None:
    file = write(CASES["cd_imagenet64"], "cd_imagenet64", tmp_path)
    f = import_model(file, Wanted(size=16, consistency=True, earliest=1.0)).f
    assert f.trained.earliest == 1.0
    with pytest.raises(FewstepError, match="times from 1 on"):
        sample(f, 1, "jumps(times=(0.5,))")
    assert sample(f, 1, "jumps(times=(2.0,))").isfinite().all()
    diffusion = write(CASES["edm-ddpmpp"], "edm-ddpmpp", tmp_path)
    with pytest.raises(FewstepError, match="leave out --earliest"):
        import_model(diffusion, Wanted(earliest=1.0))
