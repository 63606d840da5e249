"""Models of the hub, by name."""

from __future__ import annotations

import json
import sys
from pathlib import Path, PurePath

import pytest

from fewstep.errors import FewstepError
from fewstep.exchange.files.weights import of_diffusers
from fewstep.exchange.hub.fetching import Fetched, fetched, forget, front_matter, licence_in
from fewstep.exchange.origin import licences, unlicensed
from fewstep.hub_name import HubName, is_hub
from hub import TOKEN, Hub

FILES = {"README.md": b"---\nlicense: mit\n---\n# A model\n", "model.safetensors": b"weights"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hub:ann/digits", HubName("ann/digits")),
        ("hub:gpt2", HubName("gpt2")),
        ("hub:ann/digits/", HubName("ann/digits")),
        ("hub:ann/digits@v1.0", HubName("ann/digits", "", "v1.0")),
        ("hub:ann/digits@refs/pr/1", HubName("ann/digits", "", "refs/pr/1")),
        ("hub:ann/digits/sub/a b.pkl@main", HubName("ann/digits", "sub/a b.pkl", "main")),
        (Path("hub:ann/digits@v1"), HubName("ann/digits", "", "v1")),
        ("https://huggingface.co/ann/digits", HubName("ann/digits")),
        (Path("https://hf.co/ann/digits/"), HubName("ann/digits")),
        ("https://huggingface.co/ann/digits/tree/v1", HubName("ann/digits", "", "v1")),
        ("https://huggingface.co/ann/x/blob/main/a/b.pkl", HubName("ann/x", "a/b.pkl", "main")),
    ],
)
def test_names_of_the_hub_are_taken_apart(name: str | Path, expected: HubName) -> None:
    assert is_hub(name)
    assert HubName.of(name) == expected
    assert HubName.of(str(expected)) == expected


@pytest.mark.parametrize(
    "name", ["hub:", "hub:/", "hub: ann/digits", "hub:a b", "hub:@main", "hub:ann/x@", "hub:ann//x"]
)
def test_what_is_no_name_says_how_they_are_written(name: str) -> None:
    assert is_hub(name)
    with pytest.raises(FewstepError, match=r"names no model of the hub: write hub:OWNER/NAME"):
        fetched(name)


def test_a_data_set_is_no_model_and_a_path_no_name() -> None:
    with pytest.raises(FewstepError, match="one of the hub's datasets"):
        HubName.of("https://huggingface.co/datasets/ann/photos")
    others = ("runs/hub:x", "huggingface.co/a/b", "https://example.org/a/b", None, "")
    assert not any(is_hub(name) for name in others)


def test_a_model_is_fetched_with_the_commit_that_it_was(hub: Hub) -> None:
    first = hub.add("ann/digits", FILES)
    found = fetched("hub:ann/digits")
    assert (found.repo, found.revision, found.path) == ("ann/digits", first, found.folder)
    assert found.licence == "mit"
    assert {f.name: f.read_bytes() for f in found.folder.iterdir()} == FILES
    hub.add("ann/digits", {"model.safetensors": b"other weights"})
    assert fetched("hub:ann/digits").revision == first  # one process sees one commit
    assert fetched("hub:ann/digits").name == f"hub:ann/digits@{first}"
    forget()
    assert fetched("hub:ann/digits").revision != first
    assert (fetched(found.name).folder / "model.safetensors").read_bytes() == b"weights"


def test_patterns_choose_files(hub: Hub) -> None:
    hub.add("ann/parts", {"unet/config.json": b"{}", "unet/w.bin": b"1", "vae/w.bin": b"2"})
    found = fetched("hub:ann/parts", ("unet/*",))
    files = {f.relative_to(found.folder).as_posix() for f in found.folder.rglob("*.*")}
    assert files == {"unet/config.json", "unet/w.bin"}


def test_the_cache_serves_without_a_connection(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    sha = hub.add("ann/digits", FILES)
    hub.add(
        "ann/digits",
        {"model.safetensors": b"newer"},
    )
    hub.repos["ann/digits"].refs["v1"] = sha
    assert fetched("hub:ann/digits@v1").revision == sha
    forget()
    hub.requests.clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("hub:ann/digits@v1", f"hub:ann/digits@{sha}"):
        assert fetched(name).revision == sha
    assert not hub.requests
    with pytest.raises(FewstepError, match="not in the cache, and HF_HUB_OFFLINE is set: unset it"):
        fetched("hub:ann/digits@v2")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    forget()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody's
    assert fetched("hub:ann/digits@v1").revision == sha
    with pytest.raises(FewstepError, match=r"hub:bob/x is not in the cache, and http.*reached"):
        fetched("hub:bob/x")


def test_a_hub_without_time_is_one_without_a_connection(hub: Hub) -> None:
    sha = hub.add("ann/digits", FILES)
    hub.add("ann/other", FILES)
    fetched("hub:ann/digits")
    for status in (429, 503):
        forget()
        hub.busy = status
        assert fetched("hub:ann/digits").revision == sha
    hub.busy = 429
    with pytest.raises(FewstepError, match=r"cannot fetch hub:ann/other.*429"):
        fetched("hub:ann/other")


def test_half_a_model_in_the_cache_is_none(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("ann/digits", FILES)
    fetched("hub:ann/digits", ("*.md",))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FewstepError, match="not in the cache, and HF_HUB_OFFLINE is set"):
        fetched("hub:ann/digits")


def test_what_the_hub_refuses_is_one_line(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("ann/digits", FILES)
    hub.add("ann/secret", FILES, private=True)
    hub.add("ann/gated", FILES, gated=True)
    hub.add("ann/photos", {"a.parquet": b""}, kind="dataset")
    for name, said in {
        "hub:ann/nothing": "no model 'ann/nothing'.*or it is private.*set HF_TOKEN",
        "hub:ann/secret": "or it is private",
        "hub:ann/gated": "accept them at http.*ann/gated",
        "hub:ann/digits@v9": "hub:ann/digits has no revision 'v9'",
        "hub:ann/digits/sub": "no 'sub' in it, but README.md, model.safetensors",
        "hub:ann/photos": "There is a data set of that name: --data hub:ann/photos",
        "hub:ann/a--b": "names no model of the hub",
    }.items():
        with pytest.raises(FewstepError, match=said) as caught:
            fetched(name)
        assert "\n" not in str(caught.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("hub:ann/secret", "hub:ann/gated"):
        assert fetched(name).licence == "mit"


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FewstepError, match=r"pip install 'fewstep\[hub\]'"):
        fetched("hub:ann/without")


def names(found: Fetched) -> set[str]:
    return {f.relative_to(found.folder).as_posix() for f in found.folder.rglob("*.*")}


def test_weights_are_fetched_once_and_in_the_safest_format(hub: Hub) -> None:
    parts = [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    ]
    left = [
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "safety_checker/model.safetensors",
        "sample.png",
    ]
    index = b'{"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}'
    module = b'{"_class_name": "UNet2DModel"}'
    hub.add("ann/pipeline", dict.fromkeys([*parts, *left], module) | {parts[0]: index})
    assert names(fetched("hub:ann/pipeline")) == set(parts)
    assert fetched("hub:ann/pipeline/unet").path.name == "unet"
    assert names(fetched("hub:ann/pipeline/unet")) == set(parts)


def test_one_file_of_another_project_is_the_model(hub: Hub) -> None:
    hub.add("ann/edm", {"README.md": b"# x", "edm.pkl": b"1", "log.txt": b""})
    assert fetched("hub:ann/edm").path.name == "edm.pkl"
    hub.add("ann/several", {"a.pkl": b"1", "b.pkl": b"2"})
    with pytest.raises(FewstepError, match=r"several models \(a.pkl, b.pkl\): name one, .*/FILE"):
        fetched("hub:ann/several")
    found = fetched("hub:ann/several/b.pkl")
    assert found.path.read_bytes() == b"2"
    assert names(found) == {"b.pkl"}


def test_shards_and_checkpoints_are_models(hub: Hub) -> None:
    index = "model.safetensors.index.json"
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    hub.add("ann/shards", dict.fromkeys([index, *shards, "log.txt", "optimizer.bin"], b"{}"))
    for name in ("hub:ann/shards", f"hub:ann/shards/{index}"):
        found = fetched(name)
        assert found.path.name == index
        assert names(found) == {index, *shards}
    with pytest.raises(FewstepError, match="one of several shards of a model: name the index"):
        fetched(f"hub:ann/shards/{shards[0]}")
    for name in ("last.ckpt", "pytorch_model.bin"):
        hub.add(f"ann/{name}", {name: b"1", "training_args.bin": b"2", "random_states_0.pkl": b""})
        assert fetched(f"hub:ann/{name}").path.name == name


STEM = "unet/diffusion_pytorch_model"
WEIGHTS = {
    "plain pickle before a variant": ([".bin"], [".fp16.safetensors", ".non_ema.bin"]),
    "shards": (
        [".safetensors.index.json", *(f"-0000{i}-of-00002.safetensors" for i in (1, 2))],
        [".fp16.safetensors", ".bin"],
    ),
    "shards of a variant": (
        [".safetensors.index.fp16.json", *(f".fp16-0000{i}-of-00002.safetensors" for i in (1, 2))],
        [".non_ema.safetensors"],
    ),
}


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_a_folder_and_the_hub_choose_the_same_weights(name: str, hub: Hub) -> None:
    taken, left = ([STEM + ending for ending in endings] for endings in WEIGHTS[name])
    index = b'{"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}'
    files = dict.fromkeys(["unet/config.json", *taken, *left], b'{"_class_name": "UNet2DModel"}')
    files["model_index.json"] = index
    hub.add("ann/pipeline", files)
    got = {file for file in names(fetched("hub:ann/pipeline")) if file.startswith(STEM)}
    assert got - {file for file in got if file.endswith(".json")} == {
        file for file in taken if not file.endswith(".json")
    }
    best = of_diffusers(PurePath(file).name for file in files)
    assert best is not None
    assert best.name == PurePath(taken[0]).name


def test_a_card_may_name_no_licence(hub: Hub) -> None:
    for number, (card, expected) in enumerate(
        {
            "license: unknown": None,
            "license: other": None,
            "license: other\nlicense_name: mine": "mine",
            "license: other\nlicense_name: unknown": None,
            "license: MIT": "MIT",
            "tags: []": None,
        }.items()
    ):
        hub.add(f"ann/{number}", {**FILES, "README.md": f"---\n{card}\n---\n".encode()})
        found = fetched(f"hub:ann/{number}")
        assert found.licence == expected
        assert licence_in(front_matter(found.folder)) == expected
    stored = {"origin": {"licence": "other"}, "lineage": [{"licence": "unknown"}]}
    assert licences(stored) == ()
    assert len(unlicensed(stored)) == 2


def test_a_pipeline_that_is_not_known_is_refused_before_it_is_fetched(hub: Hub) -> None:
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "tokenizer": ["transformers", "Clip"]}
    index = json.dumps({"_class_name": "StableDiffusionPipeline", **parts}).encode()
    weights = {"unet/diffusion_pytorch_model.safetensors": b"large"}
    hub.add("ann/text", {"model_index.json": index, **weights})
    with pytest.raises(FewstepError, match=r"^hub:ann/text is StableDiffusionPipeline, which"):
        fetched("hub:ann/text")
    assert not any("unet" in path for _, path in hub.requests)


def test_a_model_of_another_kind_is_named_before_it_is_fetched(hub: Hub) -> None:
    config = b'{"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}'
    hub.add("gpt2", {"config.json": config, "model.safetensors": b"large"})
    hub.add("ann/words", {"README.md": b"# Words"})
    with pytest.raises(FewstepError, match=r"no model of images.*seems to be GPT2LMHeadModel"):
        fetched("hub:gpt2")
    assert not any("safetensors" in path for _, path in hub.requests)
    with pytest.raises(FewstepError, match=r"no weights that can be read, but README.md"):
        fetched("hub:ann/words")
