"""Samplers and maps as graphs: the very images of this package, by whatever runs them."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewstep.autoencoder_model import AutoencoderModel
from fewstep.cli.graphs import Wish, _others
from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.exchange.graphs.graph import Computation, Graph, MapGraph
from fewstep.exchange.graphs.onnx import TooLarge, converted
from fewstep.exchange.graphs.precisions import graph_in
from fewstep.exchange.graphs.runtime import opened
from fewstep.exchange.graphs.written import (
    PACKAGE,
    RUNTIME,
    eager,
    measured,
    write_onnx,
    write_torch,
)
from fewstep.flow_map import FlowMap
from fewstep.latents import Latents
from fewstep.networks import ADM, MLP, DiT, EDM2UNet, FourierOperator, MLPAutoencoder, Network, UNet
from fewstep.networks.dfno import TemporalFourier
from fewstep.parameterization import EDM, PARAMETERIZATIONS, PFGM, Parameterization
from fewstep.runs.run import Data
from fewstep.sampling import NoiseStreams, Walk, sample, sampler_for
from fewstep.solvers import SOLVERS
from fewstep.trained import CONSISTENCY, DIFFUSION, FLOW_MAP, Trained

GUIDED = replace(DIFFUSION, null_class=True)
WEIGHTED = replace(CONSISTENCY, weights=(1.0, 4.0), guidance=2.0)
WITHIN = replace(WEIGHTED, around=1.0)
TELLS: dict[str, Any] = {"guidance_embedding": True, "interval_embedding": True}


def filled(module: nn.Module, std: float = 0.3) -> Any:
    """A module with weights that make every input count."""
    generator = torch.Generator().manual_seed(0)
    for weight in module.parameters():
        nn.init.normal_(weight, std=std, generator=generator)
    return module.eval()


def small(
    trained: Trained, p: Parameterization | None = None, latents: Latents | None = None, **more: Any
) -> FlowMap:
    shape = (1, 4, 4) if latents is None else latents.shape
    two_time = trained == FLOW_MAP
    F = MLP(shape, num_classes=3, width=16, blocks=1, two_time=two_time, **more)
    return FlowMap(filled(F), p or EDM(T=20.0), trained=trained, latents=latents)


def autoencoder() -> MLPAutoencoder:
    F: MLPAutoencoder = filled(MLPAutoencoder((1, 4, 4), latents=5, width=16, blocks=1))
    return F


def replayed(graph: Computation) -> Tensor:
    """Five rows by the recorded graph, which has seen one."""
    module = graph.plan().with_modules(lambda part: part.module())
    with torch.no_grad():
        return module(*graph.example(5))


def assert_the_same(graph: Computation) -> None:
    with torch.no_grad():
        assert torch.equal(replayed(graph), graph(*graph.example(5)))


FIXED = [name for name in SOLVERS if not Walk(2, name).adaptive]


@pytest.mark.parametrize("solver", FIXED)
def test_every_solver_of_fixed_steps_is_a_graph(solver: str) -> None:
    f = small(GUIDED)
    assert_the_same(Graph(f, sampler_for(f, sampler=f"walk(solver={solver}, steps=4)")))
    guided = Graph(f, sampler_for(f, sampler=f"walk(solver={solver}, steps=3, guidance=2)"))
    assert guided.names == ["noise", "label", "guidance"]
    assert_the_same(guided)


@pytest.mark.parametrize(
    "p", [n for n in PARAMETERIZATIONS if n not in ("matched", "composed", "pfgm")]
)
def test_the_sampler_and_the_map_of_every_process_are_graphs(p: str) -> None:
    """The map has its times as an input."""
    p_ = PARAMETERIZATIONS.build(p)
    for trained, spec in (
        (DIFFUSION, "walk(steps=3)"),
        (CONSISTENCY, "jumps(steps=3)"),
        (FLOW_MAP, "jumps(steps=3, gamma=0.3)"),
    ):
        f = small(trained, p_)
        assert_the_same(Graph(f, sampler_for(f, sampler=spec)))
        assert_the_same(MapGraph(f))


def test_samplers_that_their_models_decide_are_graphs() -> None:
    f = small(replace(DIFFUSION, starts="steps", steps=4, sampler="nested_ddim"))
    assert_the_same(Graph(f, sampler_for(f)))
    f = small(DIFFUSION).in_process(PARAMETERIZATIONS.build("rectified_flow"))
    assert_the_same(Graph(f, sampler_for(f, 3)))
    model: Any = AutoencoderModel(autoencoder())
    assert_the_same(Graph(model, sampler_for(model)))


@pytest.mark.parametrize("spec", ["jumps(steps=2)", "walk(steps=3, guidance=2)"])
def test_the_guidance_of_each_row_is_an_input(spec: str) -> None:
    f = small(GUIDED) if "walk" in spec else small(WEIGHTED, guidance_embedding=True)
    graph = Graph(f, sampler_for(f, sampler=spec))
    module = graph.plan().with_modules(lambda part: part.module())
    noise, label, _ = graph.example(3)
    weights = [1.0, 2.0, 3.5]
    with torch.no_grad():
        images = module(noise, label, torch.tensor(weights))
        for i, w in enumerate(weights):
            bare = spec.partition(", guidance")[0].removesuffix(")") + ")"
            alone = Graph(f, sampler_for(f, sampler=bare, guidance=w)).sampler
            (x,) = list(alone.states(f, Rows(noise[i : i + 1]), Condition(label=label[i : i + 1])))[
                -1:
            ]
            torch.testing.assert_close(images[i : i + 1], x.clamp(-1, 1), atol=1e-3, rtol=0)


def test_the_interval_of_each_row_is_an_input_of_jumps() -> None:
    f = small(WITHIN, **TELLS)
    given = "guided(w=3, interval=(0.5, 2))"
    graph = Graph(f, sampler_for(f, 2, guidance=given))
    assert graph.names == ["noise", "label", "guidance", "interval"]
    assert (graph.said["guidance"], graph.said["interval"]) == (3.0, (0.5, 2.0))
    assert Graph(f, sampler_for(f, 2)).said["interval"] is None  # all of them
    assert "interval" not in Graph(small(WEIGHTED, guidance_embedding=True), sampler_for(f)).names
    assert MapGraph(f).names == ["x", "t", "label", "guidance", "interval"]
    module = graph.plan().with_modules(lambda part: part.module())
    noise, label, w, interval = graph.example(3)
    interval[0] = torch.tensor([0.0, torch.inf])
    with torch.no_grad():
        images = module(noise, label, w, interval)
        for i, said in enumerate(["3", given, given]):
            sampler = sampler_for(f, 2, guidance=said)
            told = Condition(label=label[i : i + 1])
            *_, x = sampler.states(f, Rows(noise[i : i + 1]), told)
            torch.testing.assert_close(images[i : i + 1], x.clamp(-1, 1), atol=1e-3, rtol=0)
    assert not torch.allclose(images[0], module(noise, label, w, interval.roll(1, 0))[0])


class Rows(NoiseStreams):
    """Streams whose draws are given."""

    def __init__(self, draws: Tensor) -> None:
        self.draws = list(draws.unbind(1))

    def normal(self, device: Any = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        return self.draws.pop(0).to(dtype)


IN_ONNX: dict[str, Callable[[], Computation]] = {
    "guided walk": lambda: of(small(GUIDED), "walk(steps=2, guidance=2)"),
    "jumps in a latent space": lambda: of(
        small(CONSISTENCY, latents=Latents(autoencoder())), "jumps(steps=2)"
    ),
    "weighted map": lambda: MapGraph(small(WITHIN, scaled_by_weight=True, **TELLS)),
}


def of(f: FlowMap, spec: str) -> Graph:
    return Graph(f, sampler_for(f, sampler=spec))


@pytest.mark.parametrize(
    "name", [n if "map" in n else pytest.param(n, marks=pytest.mark.slow) for n in IN_ONNX]
)
def test_graphs_run_in_onnxruntime(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    graph = IN_ONNX[name]()
    written = write_onnx(graph, tmp_path / "graph.onnx")
    assert written.difference < 1e-5
    assert (written.runs, written.precision) == (RUNTIME, "fp32")
    run = opened(tmp_path / "graph.onnx")
    for rows in (1, 7):
        with torch.no_grad():
            expected = graph(*graph.example(rows))
        torch.testing.assert_close(run(*graph.example(rows)), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_long_walk_has_its_network_once() -> None:
    pytest.importorskip("onnxscript")
    f = small(DIFFUSION)
    model = converted(of(f, "walk(steps=9)"))
    (function,) = model.functions
    assert [n.op_type for n in model.graph.node].count(function.name) == 17
    numbers = sum(x.numel() for x in f.F.parameters())
    content = model.SerializeToString()
    assert len(content) < 4 * numbers + 40_000
    assert b".py" not in content  # nothing of the machine that wrote it


SMALL: Any = {"num_classes": 3, "blocks": 1, "multipliers": (1, 2), "attention": (4,)}
NETWORKS: dict[str, Callable[[], Network]] = {
    "unet": lambda: UNet((1, 8, 8), channels=16, **SMALL),
    "adm": lambda: ADM((1, 8, 8), channels=32, head_channels=32, **SMALL),
    "edm2": lambda: EDM2UNet((1, 8, 8), channels=16, head_channels=16, **SMALL),
    "dit": lambda: DiT(
        (1, 8, 8), num_classes=3, width=32, blocks=2, heads=2, positions="rope", qk_norm=True
    ),
    "dfno": lambda: FourierOperator((1, 8, 8), num_classes=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("network", list(NETWORKS))
def test_every_network_runs_in_onnxruntime(network: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    f = FlowMap(filled(NETWORKS[network](), 0.1), EDM(T=20.0), trained=DIFFUSION)
    assert write_onnx(of(f, "walk(steps=3)"), tmp_path / "x.onnx").difference < 1e-4


@pytest.mark.parametrize(
    ("trained", "spec", "draws"), [(DIFFUSION, "walk(solver=ancestral, steps=3)", 3)]
)
def test_a_program_of_torch_gives_the_images_of_a_seed(
    trained: Trained, spec: str, draws: int, tmp_path: Path
) -> None:
    f = small(trained)
    graph = of(f, spec)
    assert graph.draws == draws
    assert write_torch(graph, tmp_path / "graph.pt2").difference < 1e-5
    streams = NoiseStreams(7, range(3), f.shape)
    noise = torch.stack([streams.normal() for _ in range(draws)], 1)
    label = torch.tensor([2, 0, 1])
    images = torch.export.load(tmp_path / "graph.pt2").module()(noise, label)
    expected = sample(f, 3, sampler_for(f, sampler=spec), seed=7, label=label)
    torch.testing.assert_close(images, expected, atol=1e-4, rtol=0)


def test_a_network_that_torch_cannot_convert_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    F = MLP((1, 4, 4))
    vars(F)["forward"] = lambda x, c_noise: x * float(c_noise.sum())
    f = FlowMap(F, EDM(), trained=CONSISTENCY)
    for write, name in ((write_onnx, "x.onnx"), (write_torch, "x.pt2")):
        with pytest.raises(FewstepError, match="torch cannot make a graph of this") as error:
            write(Graph(f, sampler_for(f, 1)), tmp_path / name)
        assert "\n" not in str(error.value)


def test_what_is_no_graph_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    f = small(DIFFUSION)
    with pytest.raises(FewstepError, match="chooses its own steps"):
        of(f, "walk(solver=rk45)")
    with pytest.raises(FewstepError, match="reads the numbers of its noise"):
        of(small(DIFFUSION, PFGM()), "walk(steps=2)").plan()
    graph = of(f, "walk(steps=2)")
    monkeypatch.setattr("fewstep.exchange.graphs.onnx.find_spec", lambda name: None)
    with pytest.raises(FewstepError, match=r"pip install 'fewstep\[onnx\]'"):
        write_onnx(graph, tmp_path / "x.onnx")
    with pytest.raises(FewstepError, match="differ by"):
        measured(graph, lambda *inputs: graph(*inputs) + 0.1, "a wrong one", 0)


WRITTEN = "fewstep.exchange.graphs.written.converted"


def large(gib: float) -> Any:
    """A graph with a tensor of so many GiB, whose numbers are nowhere."""
    onnx = pytest.importorskip("onnx")
    model = onnx.ModelProto()
    model.graph.initializer.add(data_type=onnx.TensorProto.FLOAT, dims=[int(gib * 2**28)])
    return model


def test_a_graph_of_two_gib_is_refused_with_what_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = of(small(CONSISTENCY), "jumps(steps=2)")
    for gib, precision, said in (
        (2, "fp32", "take --to onnx --precision fp16"),
        (5, "fp32", "take --to onnx --precision int8"),
        (9, "fp32", "take --to torch"),
        (2.5, "fp16", "take --to onnx --precision int8"),
        (2, "int8", "take --to torch"),
    ):
        monkeypatch.setattr(WRITTEN, lambda *_, gib=gib: large(gib))
        graph.precision = precision
        with pytest.raises(TooLarge, match=f"has {gib:.1f} GiB.*: {said}.$"):
            write_onnx(graph, tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_what_no_file_holds_is_left_out_of_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(WRITTEN, lambda *_: large(3))
    monkeypatch.setattr("fewstep.cli.graphs.write_torch", lambda graph, path: eager(graph))
    f = small(CONSISTENCY)
    wish = Wish(tmp_path, tmp_path / "x.onnx", "onnx", "fp16", Data(), compare=True)
    graph = graph_in(f, sampler_for(f, 2), "fp16")
    speeds = _others(graph, f, wish, tmp_path)
    assert {(s.runs, s.precision) for s in speeds} == {(PACKAGE, "fp32"), (PACKAGE, "fp16")}
    assert "no ONNX file is large enough for fp32: it is left out." in capsys.readouterr().out


def test_images_that_are_not_finite_say_whose_fault_that_is() -> None:
    f = small(CONSISTENCY)
    graph = of(f, "jumps(steps=1)")

    def nan(*inputs: Tensor) -> Tensor:
        return graph(*inputs) * torch.nan

    for precision, said in (("fp32", "not to be used"), ("fp16", "range of float16"), ("int8", "")):
        graph.precision = precision
        with pytest.raises(FewstepError, match=f"X gives images that are not finite.*{said}"):
            measured(graph, nan, "X", 0)
    next(f.network.parameters()).data.fill_(torch.nan)
    graph = of(f, "jumps(steps=1)")
    with pytest.raises(FewstepError, match="this model gives images that are not finite") as error:
        measured(graph, graph, "X", 0)
    assert "--precision" not in str(error.value)


def test_where_a_graph_cannot_be_written_is_said_first(tmp_path: Path, call: Any) -> None:
    small(CONSISTENCY).save(tmp_path / "model.safetensors")
    (tmp_path / "folder.onnx").mkdir()
    for words, said in (
        (["--to", "onnx", "-o", tmp_path / "x.png"], "a file that ends in .onnx"),
        (["--to", "onnx", "-o", tmp_path / "folder.onnx"], "is a folder"),
        (["--to", "torch", "-o", tmp_path / "x.onnx"], "x.pt2"),
        (["--to", "onnx", "-o", tmp_path / "model.safetensors" / "x.onnx"], "model.safetensors"),
        (["--to", "torch", "-o", tmp_path / "x.pt2", "--precision", "int8"], "--to onnx"),
        (["--to", "onnx", "-o", tmp_path / "x.onnx", "--sampler", "walk(solver=rk45)"], "solver"),
    ):
        code, _, err = call("export", tmp_path / "model.safetensors", *words)
        assert code == 2
        assert said in err
        assert err.count("\n") == 1, err
    assert not (tmp_path / "x.onnx").exists()


def test_a_full_disk_leaves_no_file(
    tmp_path: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x.onnx"))

    onnx = pytest.importorskip("onnx")
    small(CONSISTENCY).save(tmp_path / "model.safetensors")
    monkeypatch.setattr("fewstep.exchange.graphs.written.converted", lambda *_: onnx.ModelProto())
    monkeypatch.setattr(Path, "write_bytes", full)
    words = ["--to", "onnx", "-o", tmp_path / "x.onnx"]
    code, _, err = call("export", tmp_path / "model.safetensors", *words)
    assert code == 2
    assert "No space left" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors"]


def test_the_fourier_layer_in_real_numbers_is_the_same() -> None:
    """The format has no complex ones."""
    for modes, shape in ((None, (3, 4, 5)), (2, (3, 6, 5, 2, 2)), (None, (2, 5, 3, 2, 2))):
        layer = TemporalFourier(shape[2], shape[1], modes)
        torch.nn.init.normal_(layer.R)
        h = torch.randn(shape)
        u = torch.nn.functional.silu(h)
        with torch.no_grad():
            torch.testing.assert_close(h + layer._in_real_numbers(u), layer(h))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_precision_says_what_it_costs(precision: str, tmp_path: Path, call: Any) -> None:
    pytest.importorskip("onnxscript")
    F = filled(MLP((1, 8, 8), num_classes=10, width=32, blocks=1))
    FlowMap(F, EDM(T=20.0), trained=CONSISTENCY).save(tmp_path / "model.safetensors")
    out = tmp_path / "x.onnx"
    words = ["--to", "onnx", "--precision", precision, "--data", "digits", "-o", out]
    code, said, _ = call("export", tmp_path / "model.safetensors", *words)
    assert code == 0, said
    about = json.loads((tmp_path / "x.onnx.json").read_text())
    assert about["precision"] == opened(out).about["precision"] == precision
    rows = {(row["runs"], row["precision"]): row for row in about["speeds"]}
    assert {("this package", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", precision)} < set(
        rows
    )
    size = rows[RUNTIME, precision]["size"]
    assert size == out.stat().st_size < 0.7 * rows[RUNTIME, "fp32"]["size"]
    assert 0 < rows[RUNTIME, precision]["difference"] < 0.5
    assert set(about["score"]["fd"]) == {"fp32", precision}
    assert "FD" in said
    code, said, _ = call("export", tmp_path / "model.safetensors", *words[:4], "-o", out)
    assert "FD was not measured" in said
