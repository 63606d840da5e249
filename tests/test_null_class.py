"""The null class, which every conditional network has, and label dropout, which teaches it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from fewstep.condition import Condition
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import MLP, NETWORKS, Network
from fewstep.objectives import CD, ECT, OBJECTIVES, TCM, ScoreMatching
from fewstep.parameterization import EDM
from fewstep.trained import DIFFUSION

SPECS = {
    "mlp": "mlp(width=8, blocks=1)",
    "unet": "unet(channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0)",
    "adm": "adm(channels=32, multipliers=(1,), blocks=1, attention=(), head_channels=32)",
    "edm2": "edm2(channels=8, multipliers=(1,), blocks=1, attention=(), head_channels=8)",
    "dit": "dit(width=8, blocks=1, heads=2)",
    "dfno": "dfno(base='mlp(width=8, blocks=1)')",
}
each = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def network(spec: str, label_dropout: float = 0.0) -> Network:
    F = NETWORKS.build(spec, shape=(1, 4, 4), num_classes=3, label_dropout=label_dropout)
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.2)
    return F


@each
def test_in_a_row_of_the_null_class_a_network_is_told_no_class(spec: str) -> None:
    F = network(spec)
    x, c, label = torch.randn(4, 1, 4, 4), torch.randn(4), torch.tensor([0, 3, 1, 3])
    mixed, null, known = F(x, c, label), F(x, c), F(x, c, torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(mixed[1::2], null[1::2])
    torch.testing.assert_close(mixed[::2], known[::2])
    assert not torch.allclose(null, known)


@each
def test_the_null_class_has_no_weights(spec: str) -> None:
    """So an old file has it, too, and nothing of a class is learned from its rows."""
    F = network(spec, label_dropout=0.1)
    shapes = {name: x.shape for name, x in network(spec).state_dict().items()}
    assert {name: x.shape for name, x in F.state_dict().items()} == shapes
    F(torch.randn(2, 1, 4, 4), torch.randn(2), torch.tensor([3, 3])).sum().backward()
    classes = next(p for name, p in F.named_parameters() if name.endswith("_label.weight"))
    assert classes.grad is None or not classes.grad.any()


@each
@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_a_label_dropout_that_is_no_probability_is_named(spec: str, p: float) -> None:
    with pytest.raises(FewstepError, match="label_dropout"):
        network(spec, label_dropout=p)


@pytest.mark.parametrize("name", ["mlp", "unet", "adm", "dit"])
def test_a_network_that_takes_a_weight_starts_as_one_that_takes_none(name: str) -> None:
    plain = network(SPECS[name])
    F = NETWORKS.build(SPECS[name], shape=(1, 4, 4), num_classes=3, guidance_embedding=True)
    missing, unexpected = F.load_state_dict(plain.state_dict(), strict=False)
    assert ([name.endswith("embed_w.map.weight") for name in missing], unexpected) == ([True], [])
    x, c, label, w = torch.randn(3, 1, 4, 4), torch.randn(3), torch.arange(3), torch.tensor(2.0)
    assert torch.equal(F(x, c, label, w=w.expand(3)), plain(x, c, label))
    nn.init.normal_(F.get_parameter(missing[0]))
    assert not torch.allclose(F(x, c, label, w=w.expand(3)), F(x, c, label, w=w.expand(3) + 1))
    with pytest.raises(FewstepError, match="without guidance_embedding"):
        plain(x, c, label, w=w.expand(3))


@pytest.mark.parametrize("name", ["mlp", "unet", "adm", "dit"])
def test_a_network_that_takes_an_interval_starts_as_one_that_takes_none(name: str) -> None:
    settings = {"shape": (1, 4, 4), "num_classes": 3, "guidance_embedding": True}
    plain = NETWORKS.build(SPECS[name], **settings)
    F = NETWORKS.build(SPECS[name], interval_embedding=True, **settings)
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.3)
    missing, unexpected = F.load_state_dict(plain.state_dict(), strict=False)
    assert [name.endswith("embed_interval.map.weight") for name in missing] == [True]
    assert unexpected == []
    given = torch.randn(3, 1, 4, 4), torch.randn(3), torch.arange(3)
    w, interval = torch.full((3,), 2.0), torch.tensor([[0.0, torch.inf], [0.5, 2.0], [0.0, 3.0]])
    assert torch.equal(F(*given, w=w, interval=interval), plain(*given, w=w))
    nn.init.normal_(F.get_parameter(missing[0]))
    told = F(*given, w=w, interval=interval)
    assert bool(told.isfinite().all())
    for other in (interval.roll(1, 0), interval[:, :1] * torch.tensor([1.0, 2.0])):
        assert not torch.allclose(told, F(*given, w=w, interval=other))
    with pytest.raises(FewstepError, match="without interval_embedding"):
        plain(*given, w=w, interval=interval)


def flow_map(label_dropout: float, eps: float = 0.002) -> FlowMap:
    F = MLP((3,), num_classes=4, width=16, blocks=1, label_dropout=label_dropout)
    for parameter in F.parameters():
        nn.init.normal_(parameter, std=0.3)
    return FlowMap(F, EDM(T=20.0, eps=eps))


def labels_seen(*maps: FlowMap) -> list[Tensor]:
    """Filled with the labels of every evaluation of some maps, in order."""
    seen: list[Tensor] = []
    for f in maps:
        f.F.register_forward_pre_hook(lambda *a: seen.append(a[2]["label"]), with_kwargs=True)
    return seen


def test_training_hides_the_asked_fraction_of_the_labels_and_validation_none() -> None:
    o = ScoreMatching(flow_map(0.25), 10)
    seen, n = labels_seen(o.f), 20_000
    given = Condition(torch.arange(n) % 4)
    o(torch.randn(n, 3), 0, given)
    hidden = seen[0] == 4
    assert torch.equal(seen[0][~hidden], given.label[~hidden])
    assert float(hidden.double().mean()) == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / n) ** 0.5)
    o.eval()(torch.randn(n, 3), 0, given)
    assert torch.equal(seen[1], given.label)


def test_teacher_student_and_target_are_told_the_same() -> None:
    teacher = flow_map(0.5)
    teacher.trained = replace(DIFFUSION, null_class=True)
    for o in (CD(flow_map(0.5), 10, teacher=teacher, mu=0.9), ECT(flow_map(0.5, eps=0.0), 10)):
        seen = labels_seen(*(m for m in o.modules() if isinstance(m, FlowMap)))
        o(torch.randn(64, 3), 0, Condition(torch.arange(64) % 4))
        assert len(seen) >= 2
        assert all(torch.equal(label, seen[0]) for label in seen)
        assert (seen[0] == 4).any()


def test_a_teacher_without_a_null_class_is_no_teacher_of_one() -> None:
    teacher = flow_map(0.0)
    with pytest.raises(FewstepError, match="label dropout needs a null class: the teacher"):
        CD(flow_map(0.1), 10, teacher=teacher)
    with pytest.raises(FewstepError, match="label dropout needs a null class: the teacher"):
        TCM(flow_map(0.1), 10, teacher=teacher)


def test_what_was_trained_with_label_dropout_has_a_null_class() -> None:
    for p in (0.0, 0.1):
        f = flow_map(p)
        ScoreMatching(f, 1)
        assert f.trained.null_class == (p > 0)


def test_a_loss_with_hidden_labels_is_one_graph() -> None:
    o, graphs = ECT(flow_map(0.5, eps=0.0), 100), CompileCounter()
    o.loss_at = torch.compile(o.loss_at, fullgraph=True, backend=graphs)
    for k in (0, 50, 99):
        o(torch.randn(8, 3), k, Condition(torch.arange(8) % 4)).mean().backward()
    assert graphs.frame_count == 1


@pytest.mark.parametrize(("name", "network"), [("kd", "mlp"), ("dfno", "dfno")])
def test_pairs_teach_no_null_class(name: str, network: str) -> None:
    F = NETWORKS.build(network, shape=(3,), num_classes=4, label_dropout=0.1)
    with pytest.raises(FewstepError, match=f"{name} needs the class .* leave out label_dropout"):
        OBJECTIVES.call(name, {"f": FlowMap(F, EDM(T=20.0, eps=0.0)), "K": 1})


def test_without_classes_there_is_nothing_to_hide() -> None:
    f = FlowMap(MLP((3,), width=16, label_dropout=0.1), EDM(T=20.0))
    with pytest.raises(FewstepError, match="score_matching has no classes to hide"):
        ScoreMatching(f, 1)
