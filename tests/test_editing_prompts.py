"""Edits by a model that is told texts: what is generated is what the text says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

import fewstep
from fewstep.cli import run
from fewstep.editing import Inpaint, decode, denoise, edit, encode, sdedit, variation
from fewstep.errors import FewstepError
from fewstep.flow_map import FlowMap
from fewstep.networks import DiT
from fewstep.parameterization import EDM
from fewstep.plugins.trusted import trust
from fewstep.serving import Engine, Shelf
from fewstep.serving.app import create_app
from fewstep.trained import CONSISTENCY, DIFFUSION

RED = torch.tensor([[1.0, 0.0, 0.0]])
ENCODER = """
import torch

WORDS = ("red", "blue", "cat")


def encode(texts):
    return torch.tensor([[float(word in text) for word in WORDS] for text in texts])
"""


def told(trained: Any = CONSISTENCY, **info: Any) -> FlowMap:
    """A model of grey images that is told embeddings of three numbers."""
    torch.manual_seed(0)
    network = DiT((1, 8, 8), embeds=3, patch=4, width=32, blocks=1, heads=2)
    f = FlowMap(network, EDM(T=20.0), trained=trained, info=info)
    for weight in f.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return f.eval()


def pictures(n: int) -> torch.Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("edit", lambda f, y, **own: edit(f, y, Inpaint(torch.zeros(1, 8, 8).bool()), **own)),
        ("sdedit", sdedit),
        ("denoise", lambda f, y, **own: denoise(f, y, 0.5, **own)),
        ("decode", decode),
        ("encode", lambda f, y, **own: encode(f, y, N=2, **own)),
    ],
)
def test_every_edit_shows_what_the_embedding_says(name: str, how: Any) -> None:
    f, y = told(DIFFUSION if name == "encode" else CONSISTENCY), pictures(2)
    red, plain, nothing = (how(f, y, embedding=e) for e in (RED, None, torch.zeros(1, 3)))
    assert (red - plain).abs().max() > 1e-3
    assert torch.equal(plain, nothing)
    each = how(f, y, embedding=torch.cat([RED, torch.zeros(1, 3)]))
    torch.testing.assert_close(each, torch.stack([red[0], plain[1]]), rtol=1e-4, atol=1e-4)
    with pytest.raises(FewstepError, match=r"embeddings \[2, 3\]"):
        how(f, y, embedding=torch.ones(1, 4))


def test_variations_are_told_too() -> None:
    f, y = told(), pictures(1)[0]
    assert not torch.equal(variation(f, y, n=2, embedding=RED), variation(f, y, n=2))


def test_the_commands_take_a_prompt_or_an_embedding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "words_of_edits.py").write_text(ENCODER)
    told(encoder="words_of_edits:encode").save(tmp_path / "words.safetensors")
    np.save(tmp_path / "red.npy", RED[0].numpy())
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(tmp_path / "a.png")
    asked = ["words.safetensors", "a.png", "--prompt", "red", "-o", "b.png"]
    assert run(["edit", "vary", *asked]) == 2
    assert "named by a run or a model" in capsys.readouterr().err
    trust("words_of_edits:encode")
    box = ["--box", "0", "0", "8", "4"]
    ways = {"prompt": ["--prompt", "a red one"], "file": ["--embedding", "red.npy"], "none": []}
    for name, words in ways.items():
        assert (
            run(
                ["edit", "inpaint", "words.safetensors", "a.png", *box, *words, "-o", f"{name}.png"]
            )
            == 0
        )
        assert (
            run(
                [
                    "interpolate",
                    "words.safetensors",
                    *words,
                    "--frames",
                    "3",
                    "-o",
                    f"{name}-strip.png",
                ]
            )
            == 0
        )
    for kind in ("", "-strip"):
        found = {name: np.asarray(Image.open(f"{name}{kind}.png")) for name in ways}
        assert (found["prompt"] == found["file"]).all()
        assert (found["prompt"] != found["none"]).any()
    capsys.readouterr()
    words = ["--prompt", "red", "--embedding", "red.npy"]
    assert run(["edit", "inpaint", "words.safetensors", "a.png", *box, *words, "-o", "b.png"]) == 2
    assert "--prompt or --embedding, not both" in capsys.readouterr().err
    plain = FlowMap(fewstep.MLP((1, 8, 8), width=8, blocks=1), EDM(), trained=CONSISTENCY)
    plain.save(tmp_path / "plain.safetensors")
    assert (
        run(["edit", "vary", "plain.safetensors", "a.png", "--prompt", "red", "-o", "b.png"]) == 2
    )
    assert "takes no prompt" in capsys.readouterr().err


def test_an_edit_of_the_api_reads_its_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "words_of_edits.py").write_text(ENCODER)
    told(encoder="words_of_edits:encode").save(tmp_path / "words.safetensors")
    trust("words_of_edits:encode")
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(tmp_path / "a.png")
    shelf = Shelf.open([tmp_path / "words.safetensors"])
    app = create_app(Engine(shelf.models), shelf)
    found = {}
    with TestClient(app, base_url="http://localhost") as client:
        for prompt in ("a red one", "", "a blue one"):
            answer = client.post(
                "/v1/images/edits",
                files={"image": ("a.png", (tmp_path / "a.png").read_bytes(), "image/png")},
                data={"task": "vary", "seed": "3", "prompt": prompt},
            )
            assert answer.status_code == 200, answer.text
            found[prompt] = json.loads(answer.text)["data"][0]["b64_json"]
            assert "not looked at" not in answer.text
    assert len(set(found.values())) == 3
