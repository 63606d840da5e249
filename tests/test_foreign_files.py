"""Files that are no model, or one that is not read: one line each that says what they are.

And files that are read whatever they are called, and wherever in them the weights lie.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor

import foreign
from fewstep.errors import FewstepError
from fewstep.exchange.sources import Imported, Wanted, import_model
from fewstep.runs.opening import open_model
from foreign import CASES, weights_of

CASE = CASES["edm-vp"]
WANTED = Wanted(consistency=False, process={"name": "vp"})
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights() -> Tensors:
    return weights_of(CASE)


# What is not read


class Calls:
    """Pickled as a call."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def tensors(*names: str) -> Tensors:
    return {name: torch.zeros(4, 4) for name in names}


def torch_bytes(content: Any, **how: Any) -> bytes:
    import io

    file = io.BytesIO()
    torch.save(content, file, **how)
    return file.getvalue()


def zipped(folder: Path) -> None:
    with zipfile.ZipFile(folder / "weights.zip", "w") as file:
        file.writestr("inner.pt", b"PK")


def tarred(folder: Path) -> None:
    (folder / "inner").write_text("x")
    with tarfile.open(folder / "weights.tar", "w") as file:
        file.add(folder / "inner", "inner")


def program(folder: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), folder / "program.pt")


def named(name: str, content: bytes | Tensors) -> Callable[[Path], None]:
    data = content if isinstance(content, bytes) else save(content)
    return lambda folder: (folder / name).write_bytes(data) and None


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n"
OTHERS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    # of other kinds
    "lfs.pkl": (named("lfs.pkl", LFS), ("Git LFS", "git lfs pull")),
    "lfs.safetensors": (named("lfs.safetensors", LFS), ("Git LFS",)),
    "page.pt": (named("page.pt", b"\n <html>Quota exceeded</html>"), ("HTML",)),
    "error.pkl": (named("error.pkl", b'{"error": "not found"}'), ("JSON",)),
    "m.gguf": (named("m.gguf", b"GGUF\3\0\0\0" + b"\0" * 64), ("GGUF",)),
    "m.h5": (named("m.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 64), ("HDF5",)),
    "m.tar.gz": (named("m.tar.gz", b"\x1f\x8b\x08" + b"\0" * 64), ("gzip", "unpack")),
    "weights.tar": (tarred, ("tar archive", "unpack")),
    "weights.zip": (zipped, ("zip archive of inner.pt", "unpack")),
    "program.pt": (program, ("TorchScript", "state_dict")),
    "empty.pkl": (named("empty.pkl", b""), ("empty",)),
    "none.pt": (named("none.pt", torch_bytes({"optimizer": {"lr": 0.1}})), ("no weights",)),
    "list.pt": (named("list.pt", torch_bytes([1, 2])), ("a list",)),
    # that call something
    "evil.ckpt": (named("evil.ckpt", pickle.dumps(Calls("touch planted"))), ("system",)),
    "evil.pt": (named("evil.pt", torch_bytes(Calls("touch planted"))), ("system",)),
    "early.pt": (
        named(
            "early.pt",
            torch_bytes(Calls("touch planted"), _use_new_zipfile_serialization=False),
        ),
        ("system",),
    ),
    # of networks that are not read
    "resnet": (
        named("resnet.safetensors", tensors("layer1.0.conv1.weight", "fc.weight")),
        ("a ResNet",),
    ),
    "vit": (named("vit.safetensors", tensors("cls_token", "patch_embed.proj.weight")), ("vision",)),
    "gpt": (named("gpt.safetensors", tensors("transformer.wte.weight")), ("a language model",)),
    "llama": (named("l.safetensors", tensors("model.embed_tokens.weight")), ("a language model",)),
    "lora": (named("lora.safetensors", tensors("unet.to_q.lora_A.weight")), ("a LoRA", "merge")),
    "kohya": (named("k.safetensors", tensors("lora_unet_a.lora_up.weight")), ("a LoRA",)),
    "clip": (
        named("clip.safetensors", tensors("text_model.embeddings.token_embedding.weight")),
        ("a text encoder",),
    ),
    "sd": (
        named("sd.safetensors", tensors("first_stage_model.x", "model.diffusion_model.time_embed")),
        ("a whole Stable Diffusion checkpoint",),
    ),
    "sd unet": (
        named("u.safetensors", tensors("down_blocks.0.transformer_blocks.0.attn2.to_k.weight")),
        ("a text-to-image U-Net",),
    ),
    "unet2d": (
        named(
            "d.safetensors",
            tensors("down_blocks.0.resnets.0.conv1.weight", "time_embedding.linear_1.weight"),
        ),
        ("a U-Net of diffusers", "config.json"),
    ),
    "vae": (named("vae.safetensors", tensors("quant_conv.weight")), ("the autoencoder", "folder")),
    "dit": (
        named("dit.safetensors", tensors("x_embedder.w", "blocks.0.adaLN_modulation.1.weight")),
        ("DiT",),
    ),
    "score_sde": (named("s.safetensors", tensors("all_modules.0.W")), ("score_sde", "NVlabs/edm")),
    "classifier": (
        named("c.safetensors", tensors("time_embed.0.weight", "input_blocks.0.0.weight")),
        ("classifier",),
    ),
    "other": (named("o.safetensors", tensors("conv.weight")), ("conv.weight", "UNetModel")),
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_what_is_no_model_is_named_for_what_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make, said = OTHERS[name]
    make(tmp_path)
    path = max(tmp_path.iterdir(), key=lambda path: path.stat().st_ctime_ns)
    for read in (lambda: import_model(path, WANTED), lambda: open_model(path)):
        assert_refused(read, path.name, *said)
    assert not (tmp_path / "planted").exists()


def assert_refused(read: Callable[[], object], *said: str) -> None:
    with pytest.raises(FewstepError) as error:
        read()
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in said), text


def test_a_model_that_enlarges_images_is_refused(tmp_path: Path) -> None:
    """ADM's upsamplers have the names of its diffusion models, and read two images."""
    case = dict(CASES["edm_bedroom256"])
    found = weights_of(case)
    for name, rows in (("input_blocks.0.0.weight", 1), ("out.2.weight", 0), ("out.2.bias", 0)):
        found[name] = torch.cat([found[name], found[name]], rows)
    torch.save(found, tmp_path / "64_256_upsampler.pt")
    with pytest.raises(FewstepError, match="enlarge"):
        import_model(tmp_path / "64_256_upsampler.pt", Wanted(size=16, consistency=False))


@pytest.mark.parametrize("name", ["a.pt", "a.pkl", "a.safetensors"])
def test_every_cut_of_a_file_is_one_line(name: str, tmp_path: Path, weights: Tensors) -> None:
    with foreign.nvidia():
        whole = {
            "a.pt": torch_bytes(weights),
            "a.pkl": foreign.write(CASE, "edm-vp", tmp_path).read_bytes(),
            "a.safetensors": save(weights),
        }[name]
    path = tmp_path / name
    for size in (1, 4, 100, len(whole) // 3, len(whole) - 100):
        path.write_bytes(whole[:size])
        for read in (lambda: import_model(path, WANTED), lambda: open_model(path)):
            assert_refused(read, name)


def test_shapes_that_a_network_never_has_are_one_line(tmp_path: Path, weights: Tensors) -> None:
    path = tmp_path / "odd.safetensors"
    for name in ("map_layer0.weight", "enc.16x16_conv.weight", "dec.8x8_in0.qkv.weight"):
        for odd in (torch.tensor(1.0), torch.zeros(0), weights[name][None]):
            save_file({**weights, name: odd.contiguous()}, path)
            assert_refused(lambda: import_model(path, WANTED), "odd.safetensors")


# What is read


def read(path: Path, weights: Tensors) -> Imported:
    """A model whose weights are the ones that were put into the file."""
    imported = import_model(path, WANTED)
    found = imported.f.tensors()["condition.map0.weight"]
    assert torch.equal(found, weights["map_layer0.weight"])
    return imported


RENAMED = ("weights", "weights.ckpt", "weights.pkl", "weights.safetensors", "weights.bin")


@pytest.mark.parametrize("name", RENAMED)
def test_a_file_is_read_by_what_is_in_it(name: str, tmp_path: Path, weights: Tensors) -> None:
    path = tmp_path / name
    with foreign.nvidia():
        pickled = foreign.write(CASE, "edm-vp", tmp_path).read_bytes()
    early = torch_bytes(weights, _use_new_zipfile_serialization=False)
    for content in (torch_bytes(weights), early, save(weights), pickled):
        path.write_bytes(content)
        read(path, weights)


PREFIXES = ("module.", "model.", "_orig_mod.", "ema.", "net_ema.", "a.b.", "model.diffusion_model.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_stands_before_names_is_taken_off(
    prefix: str, tmp_path: Path, weights: Tensors
) -> None:
    longer = {prefix + name: x for name, x in weights.items()}
    save_file(longer, tmp_path / "a.safetensors")
    torch.save({"state_dict": longer, "epoch": 3}, tmp_path / "b.ckpt")
    assert any(prefix[:-1] in note for note in read(tmp_path / "b.ckpt", weights).notes) or (
        prefix in ("module.", "model.", "_orig_mod.")
    )
    read(tmp_path / "a.safetensors", weights)


def test_an_average_is_taken_before_what_it_is_of(tmp_path: Path, weights: Tensors) -> None:
    raw = {name: x + 1 for name, x in weights.items()}
    both = {"model." + name: x for name, x in raw.items()}
    both |= {"net_ema." + name: x for name, x in weights.items()}
    nested = {"opt": {"lr": 1.0}, "model": raw, "ema": weights, "step": 7}
    for content in (both, {"state_dict": both, "epoch": 1}, nested, {"state": nested}):
        torch.save(content, tmp_path / "a.pt")
        notes = " ".join(read(tmp_path / "a.pt", weights).notes)
        assert "ema" in notes
        assert "model" in notes.partition("left out: ")[2]
    torch.save({**weights, "step": 7}, tmp_path / "a.pt")
    read(tmp_path / "a.pt", weights)


NAMED = ("unet_ema", "ema_net", "model_avg", "ema_weights", "ema_0.9999", "target_ema", "swa")


@pytest.mark.parametrize("name", NAMED)
def test_an_average_may_have_any_name(name: str, tmp_path: Path, weights: Tensors) -> None:
    raw = {key: x + 1 for key, x in weights.items()}
    for of in ("unet", "net", "model", "schema"):
        prefixed = {f"{of}.{key}": x for key, x in raw.items()}
        prefixed |= {f"{name}.{key}": x for key, x in weights.items()}
        for content in ({of: raw, name: weights}, prefixed):
            torch.save(content, tmp_path / "a.pt")
            (note,) = read(tmp_path / "a.pt", weights).notes
            assert name in note
            assert note.endswith(f"left out: {of}")


def test_an_average_without_names_gets_those_of_the_raw_weights(
    tmp_path: Path, weights: Tensors
) -> None:
    """As torch_ema and score_sde keep it: in the order of parameters(), without buffers."""
    raw = {key: x + 1 for key, x in weights.items()}
    buffers = [key for key in raw if key.endswith("resample_filter")]
    assert buffers
    shadow = [x for key, x in weights.items() if key not in buffers]
    for ema in (shadow, {"decay": 0.999, "num_updates": 3, "shadow_params": shadow}):
        torch.save({"optimizer": {}, "model": raw, "ema": ema, "step": 1}, tmp_path / "a.pt")
        notes = " ".join(read(tmp_path / "a.pt", weights).notes)
        assert "'ema" in notes
        assert "left out: model" in notes
    twins = [weights[key] for key in weights if key not in (*buffers, "dec.8x8_in0.norm0.bias")]
    for other in (twins, shadow[::-1]):  # which lacks one of two alike, or has another order
        torch.save({"model": raw, "ema": {"shadow_params": other}}, tmp_path / "a.pt")
        (note,) = read(tmp_path / "a.pt", raw).notes
        assert note.endswith("left out: ema (tensors without names)")


def test_what_is_a_network_comes_before_other_tables(tmp_path: Path, weights: Tensors) -> None:
    moments = {"state": {0: {"exp_avg": torch.zeros(2), "exp_avg_sq": torch.zeros(2)}}}
    for name in ("unet_state_dict", "model"):
        torch.save({"optimizer": moments, name: weights}, tmp_path / "a.pt")
        (note,) = read(tmp_path / "a.pt", weights).notes
        assert note == f"its weights are the part {name!r}; left out: optimizer"


def sharded(folder: Path, weights: Tensors) -> list[Path]:
    folder.mkdir()
    names, half = list(weights), len(weights) // 2
    files = [folder / f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    save_file({name: weights[name] for name in names[:half]}, files[0])
    save_file({name: weights[name] for name in names[half:]}, files[1])
    places = {name: files[i >= half].name for i, name in enumerate(names)}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return [index, *files]


def test_shards_are_read_by_their_index(tmp_path: Path, weights: Tensors) -> None:
    index, first, second = sharded(tmp_path / "s", weights)
    read(index, weights)
    read(tmp_path / "s", weights)
    assert_refused(lambda: import_model(first, WANTED), "one of several shards", str(index))
    assert_refused(lambda: open_model(first), "one of several shards")
    places = json.loads(index.read_text())["weight_map"]
    for wrong in ("../a.safetensors", "", 3, str(second)):
        index.write_text(json.dumps({"weight_map": {**places, "x": wrong}}))
        assert_refused(lambda: import_model(index, WANTED), str(index), "lie beside it")
    for content in ("{", "[]", '{"weight_map": {}}'):
        index.write_text(content)
        assert_refused(lambda: import_model(index, WANTED), str(index))
    index.write_text(json.dumps({"weight_map": {**places, "x": second.name}}))
    assert_refused(lambda: import_model(index, WANTED), "have no x")
    second.unlink()
    assert_refused(lambda: import_model(tmp_path / "s", WANTED), second.name, "copy all")
    index.unlink()
    assert_refused(lambda: import_model(tmp_path / "s", WANTED), "holds shards", "no index")


def test_of_a_folder_the_one_model_in_it_is_read(tmp_path: Path, weights: Tensors) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    assert_refused(lambda: import_model(folder, WANTED), "holds no weights", "nothing")
    assert_refused(lambda: open_model(folder), "neither a run folder")
    (folder / "readme.txt").write_text("x")
    assert_refused(lambda: import_model(folder, WANTED), "readme.txt")
    with foreign.nvidia():
        path = foreign.write(CASE, "edm-vp", folder)
    assert read(folder, weights).f.info["origin"]["file"] == path.name
    assert open_model(folder).shape == (3, 16, 16)
    torch.save({"state": {}}, folder / "optimizer.pt")
    assert open_model(folder).shape == (3, 16, 16)
    shutil.copy(path, folder / "b.pkl")
    for look in (lambda: import_model(folder, WANTED), lambda: open_model(folder)):
        assert_refused(look, "b.pkl, edm-vp.pkl", "give one of them")


def test_arrays_of_numpy_are_no_model(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    np.save(tmp_path / "a.npy", np.zeros(3))
    assert_refused(lambda: import_model(tmp_path / "a.npz", WANTED), "numpy's arrays")
    assert_refused(lambda: import_model(tmp_path / "a.npy", WANTED), "an array of numpy")
