"""``fewstep cite``: the BibTeX of all that a run used, and that every entry is somebody's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fewstep.data.known import KNOWN, known_data
from fewstep.data.pairs import Manifest, write_manifest
from fewstep.evaluation.choice import CLASSES
from fewstep.evaluation.scores import CITATIONS
from fewstep.exchange.layouts.published import CITED
from fewstep.latents import Latents
from fewstep.objectives import OBJECTIVES
from fewstep.papers import OURS, bibtex, papers, several
from fewstep.recipes import RECIPES
from fewstep.registry import REGISTRIES
from fewstep.runs.cited import of_origin
from fewstep.runs.directory import RunDirectory
from fewstep.runs.record import Record
from fewstep.runs.sources import Source
from fewstep.training.config import Training
from fewstep.version import __version__

ROOT = Path(__file__).parents[1]
MODELS = Path(__file__).parent / "models"
Call = Callable[..., tuple[int, str, str]]


def begin(
    home: Path, recipe: str, sources: dict[str, Source] | None = None, **settings: object
) -> Path:
    """The folder of a run that has made no step yet."""
    run = RECIPES[recipe](**settings)
    RunDirectory(home).write(Record(recipe=recipe, run=run, sources=sources or {}))
    return home


def entries(text: str) -> dict[str, str]:
    """The comment above each entry, by its key."""
    return {key: why for why, key in re.findall(r"^% (.*)\n@\w+\{([^,]+),", text, re.MULTILINE)}


def declared() -> Iterator[str]:
    """Everything that anything of this package says to cite."""
    things: list[object] = [Training, Latents, *CLASSES.values()]
    for registry in REGISTRIES:
        things += [
            registry[name] for name in registry if registry[name].__module__.startswith(OURS)
        ]
    for thing in things:
        yield from several(getattr(thing, "citation", ""))
        for also in getattr(thing, "also_cites", ()):
            yield from several(also.citation)
    yield from (key for known in KNOWN for key in several(known.citation))
    yield from (*CITED.values(), *CITATIONS.values(), OURS)
    yield from (key for key, _ in of_origin({"project": "diffusers' UNet2DModel"}))


def test_every_citation_is_an_entry_and_every_entry_is_cited() -> None:
    assert OBJECTIVES in REGISTRIES  # with all that they name
    assert set(declared()) == set(papers())


def test_every_entry_is_whole() -> None:
    text = (ROOT / "src/fewstep/papers.bib").read_text(encoding="utf-8")
    assert len(papers()) == text.count("\n@") + 1
    for key, entry in papers().items():
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},?$", entry, re.MULTILINE))
        assert {"title", "author"} <= fields.keys(), key
        assert entry.count("{") == entry.count("}"), key
        if key != OURS:
            year = re.search(r"\d{4}", key)
            assert year is not None, key
            assert 0 <= int(fields["year"]) - int(year[0]) <= 2, key
            family = fields["author"].split(",")[0].replace("{\\'n}", "n").split()[-1].lower()
            assert key.startswith((family[:4], "vonplaten")), key


def test_our_own_entry_says_what_the_citation_file_says() -> None:
    cff = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    said = dict(re.findall(r'^(\w+): "?(.*?)"?$', cff, re.MULTILINE))
    authors = re.findall(r'^  - name: "(.*)"$', cff, re.MULTILINE)
    entry = bibtex(OURS)
    for field in ("title", "version", "license"):
        assert f"{field} = {{{said[field]}}}" in entry
    assert said["version"] == __version__
    assert "author = {" + " and ".join(f"{{{name}}}" for name in authors) + "}" in entry


def test_a_run_cites_down_to_its_teacher_and_its_data(tmp_path: Path, call: Call) -> None:
    edm = begin(tmp_path / "edm", "digits/edm")
    cd = begin(tmp_path / "cd", "digits/cd", teacher=str(edm))
    code, out, err = call("cite", cd)
    assert (code, err) == (0, "")
    found = entries(out)
    assert (
        found["song2023consistency"]
        == f"{cd}: objective cd, form of the map shifted, sampler jumps"
    )
    assert "solver heun" in found["karras2022elucidating"]
    assert f"{edm}: objective score_matching" in found["karras2022elucidating"]
    assert found["alpaydin1998optical"].count("data set digits") == 2
    assert f"{edm}: training with optimizer=adam" in found["kingma2015adam"]
    assert found["fewstep"] == "fewstep itself"
    assert out.count("@") == len(found)
    assert "not known" not in out


def test_defaults_count_and_what_they_name(tmp_path: Path, call: Call) -> None:
    ict = entries(call("cite", begin(tmp_path / "ict", "digits/ict"))[1])
    assert "distance pseudo_huber" in ict["song2023improved"]
    flow = entries(call("cite", begin(tmp_path / "meanflow", "toy2d/meanflow"))[1])
    assert "distribution of two times" in flow["geng2025mean"]
    assert "distribution of training times lognormal" in flow["karras2022elucidating"]
    dfno = entries(call("cite", begin(tmp_path / "dfno", "digits/dfno"))[1])
    assert "network dfno" in dfno["zheng2023fast"]
    other = {"network__label_dropout": 0.1, "objective__guidance": "guided(w=2, interval=(0.3, 5))"}
    guided = entries(call("cite", begin(tmp_path / "guided", "digits/cd", **other))[1])
    assert "network mlp (label_dropout=0.1)" in guided["ho2022classifier"]
    assert "guidance guided" in guided["kynkaanniemi2024applying"]
    assert "kynkaanniemi2024applying" not in flow | ict


def test_several_runs_and_a_folder_of_runs_cite_each_paper_once(tmp_path: Path, call: Call) -> None:
    homes = [begin(tmp_path / name, f"digits/{name}") for name in ("ct", "ict", "vp")]
    one, other = call("cite", *homes)[1], call("cite", tmp_path)[1]
    assert one == other
    assert one.count("@inproceedings{song2023consistency,") == 1
    assert all(str(home) in one for home in homes)
    out = tmp_path / "used.bib"
    assert call("cite", *homes, "-o", out)[1] == ""
    assert out.read_text() == one


def test_what_nobody_knows_is_said(tmp_path: Path, call: Call) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    gone = Source(fingerprint="0", path=str(tmp_path / "gone"), relative="../gone")
    run = RECIPES["digits/cd"](teacher="gone", data=str(photos))
    home = tmp_path / "cd"
    RunDirectory(home).write(Record(recipe="digits/cd", run=run, sources={"teacher": gone}))
    code, out, _ = call("cite", home)
    assert code == 0
    (line,) = re.findall(rf"^% not known: the teacher of {home}: nothing is at (.*)$", out, re.M)
    assert f"{tmp_path}/gone" in line
    assert f"% not known: the data set {photos} of {home}" in out
    strange = replace(run, objective=replace(run.objective, name="mine", arguments={}))
    RunDirectory(tmp_path / "mine").write(Record(recipe="mine", run=strange))
    assert (
        "% not known: objective mine, which is not known here" in call("cite", tmp_path / "mine")[1]
    )


def test_pairs_name_their_sampler_and_their_model(tmp_path: Path, call: Call) -> None:
    edm = begin(tmp_path / "edm", "digits/edm")
    manifest = Manifest(
        teacher="0", solver="dpm3", steps=4, seed=0, n=1, shard=1, shape=(1, 8, 8),
        conditional=False, path=str(edm), data={"data": "digits"},
    )  # fmt: skip
    (tmp_path / "pairs").mkdir()
    write_manifest(tmp_path / "pairs", manifest)
    kd = begin(tmp_path / "kd", "digits/kd", data=str(tmp_path / "pairs"))
    found = entries(call("cite", kd)[1])
    assert f"the pairs {tmp_path}/pairs: solver dpm3" in found["lu2022dpm"]
    assert str(edm) in found["karras2022elucidating"]
    assert "data set digits" in found["alpaydin1998optical"]


def test_a_model_file_cites_what_its_header_says(call: Call) -> None:
    found = entries(call("cite", MODELS / "consistency.safetensors")[1])
    assert "objective cd" in found["song2023consistency"]
    assert "alpaydin1998optical" in found


def test_what_was_used_besides_is_asked_for(tmp_path: Path, call: Call) -> None:
    found = entries(call("cite", "--also", "dpm3", "fd", "inception")[1])
    assert found["lu2022dpm"] == "asked for: solver dpm3"
    assert set(found) == {"fewstep", "lu2022dpm", "heusel2017gans", "szegedy2016rethinking"}
    code, _, err = call("cite", "--also", "dpm9")
    assert code == 2
    assert "nothing is called 'dpm9'" in err
    assert call("cite")[0] == 2
    assert call("cite", tmp_path / "nothing")[0] == 2


@pytest.mark.parametrize(
    ("given", "recipe", "name"),
    [
        ("digits", "", "scikit-learn's digits"),
        ("/data/my digits", "", None),
        ("hub:uoft-cs/cifar10", "", "CIFAR-10"),
        ("train.parquet", "cifar10/edm", "CIFAR-10"),
        ("/data/fashion-mnist/train-images-idx3-ubyte", "", "Fashion-MNIST"),
        ("hub:ylecun/mnist", "", "MNIST"),
        ("photos/", "digits/cd", None),
        ("toy2d", "", "points of the plane, made by fewstep"),
    ],
)
def test_data_sets_are_known_by_name(given: str, recipe: str, name: str | None) -> None:
    found = known_data(given, recipe)
    assert (found and found.name) == name
