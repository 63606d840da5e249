"""Code of a user's own: how it is loaded, what is kept of it, and what its mistakes look like."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fewstep
from fewstep.data import NoSplit
from fewstep.errors import FewstepError, FewstepWarning
from fewstep.evaluation.choice import feature_network
from fewstep.model_file import open_model_file
from fewstep.names import LEDGER
from fewstep.planning.prepared import prepare
from fewstep.plugins import load, used
from fewstep.recipes import RECIPES

Call = Callable[..., tuple[int, str, str]]

NETWORK = '''"""A network, and a recipe with it."""

from dataclasses import replace

from fewstep import MLP, RECIPES
from fewstep.networks import NETWORKS
from fewstep.recipes.digits import edm
from fewstep.runs.run import Run, component


@NETWORKS.register("mine")
class Mine(MLP):
    """A perceptron of my own."""


@RECIPES.add("digits/mine")
def mine() -> Run:
    """EDM with a network of mine.

    No paper.
    """
    return replace(edm(), network=component("mine", width=16, blocks=1, hidden=16))
'''
TINY = ["--steps", "2", "--samples", "4", "--warmup", "0", "--quiet", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a folder of its own, and forget what plugins have registered."""
    monkeypatch.chdir(tmp_path)
    before, modules, path = set(LEDGER), set(sys.modules), sys.path.copy()
    monkeypatch.setattr(load, "_LOADED", {})
    monkeypatch.setattr(used, "_SAID", set())
    yield
    for filed in [x for x in LEDGER if x not in before and not x.ours]:
        filed.remove()
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    sys.path[:] = path


def forget(module: str) -> None:
    """As another process, which has not loaded a plugin."""
    for filed in [x for x in LEDGER if x.module == module]:
        filed.remove()
    load._LOADED.clear()
    del sys.modules[module]


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A file with a network and a recipe."""
    file = tmp_path / "my_methods.py"
    file.write_text(NETWORK)
    return file


def test_a_plugin_s_recipe_is_trained_and_goes_on_with_the_plugin_alone(
    plugin: Path, call: Call
) -> None:
    train = ["train", "digits/mine", *TINY, "--out", "run"]
    assert call(*train)[0] == 2
    assert call(*train, "--plugin", plugin) == (0, "", "")
    (kept,) = json.loads(Path("run/run.json").read_text())["plugins"]
    assert kept == {
        "name": "my_methods",
        "given": str(plugin),
        "sha256": hashlib.sha256(plugin.read_bytes()).hexdigest(),
        "gives": ["network mine", "recipe digits/mine"],
    }


@pytest.mark.parametrize(
    "words",
    [
        ("train", "run", "--steps", "4", "--quiet"),
        ("train", "digits/mine", *TINY, "--out", "run"),
    ],
)
def test_a_run_asks_for_its_plugin_and_says_whether_it_changed(
    words: tuple[str, ...], plugin: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it = ("--plugin", "my_methods.py")
    assert call("train", "digits/mine", *TINY, "--out", "run", *with_it)[0] == 0
    forget("my_methods")
    if words[1] == "run":
        code, _, err = call(*words)
        assert code == 2
        assert err == (
            "fewstep: run needs the plugin my_methods for its network mine and recipe "
            f"digits/mine: give it with --plugin {plugin}, or in Python with "
            "fewstep.load_plugin.\n"
        )
    plugin.write_text(f"{NETWORK}# changed\n")
    with pytest.warns(FewstepWarning, match=f"{plugin} has changed since it was used for run: "):
        assert call(*words, *with_it)[0] == 0


def test_a_model_file_says_which_plugin_its_network_is_from(plugin: Path, call: Call) -> None:
    assert call("train", "digits/mine", *TINY, "--out", "run", "--plugin", plugin)[0] == 0
    with open_model_file(Path("run/model.safetensors")) as file:
        (kept,) = file.header.plugins
    assert (kept.given, kept.gives) == ("my_methods.py", ("network mine",)), "no folder of mine"
    words = ("sample", "run/model.safetensors", "-n", "2", "-o", "a.png")
    forget("my_methods")
    assert call(*words) == (
        2,
        "",
        "fewstep: run/model.safetensors needs the plugin my_methods for its network mine: give it "
        "with --plugin my_methods.py, or in Python with fewstep.load_plugin.\n",
    )
    assert call(*words, "--plugin", "my_methods.py")[0] == 0


def test_every_command_that_is_advised_has_its_plugin(plugin: Path, call: Call) -> None:
    words = ("digits/mine", *TINY[: TINY.index("--quiet")], "--out", "run", "--plugin", plugin)
    assert call("train", *words)[1].splitlines()[-1].endswith(f"samples.png --plugin {plugin}")
    assert f"samples.png --plugin {plugin}\n" in call("info", "run")[1]
    assert "samples.png --plugin my_methods.py\n" in call("info", "run/model.safetensors")[1]
    forget("my_methods")
    moved = plugin.rename(plugin.with_name("moved.py"))
    again = call("train", "run", "--steps", 4, "--plugin", moved)[1]
    assert again.splitlines()[-1].endswith(f"samples.png --plugin {moved}")


def test_a_model_of_known_parts_needs_no_plugin(plugin: Path, call: Call) -> None:
    code = NETWORK.replace('component("mine"', 'component("mlp"').replace(
        "digits/mine", "digits/as"
    )
    plugin.write_text(code)
    assert call("train", "digits/as", *TINY, "--out", "run", "--plugin", plugin)[0] == 0
    forget("my_methods")
    assert call("sample", "run", "-n", "2", "-o", "a.png")[0] == 0
    assert "for its recipe digits/as: " in call("train", "run", "--steps", "4")[2]


def test_help_and_lists_show_what_a_plugin_gives(plugin: Path, call: Call) -> None:
    assert "digits/mine" not in call("list", "recipes")[1]
    assert "digits/mine" in call("list", "recipes", "--plugin", plugin)[1]
    assert "A perceptron of my own." in call("list", "networks", "--plugin", "my_methods.py")[1]
    assert "EDM with a network of mine." in call("train", "--help", "--plugin", "my_methods")[1]
    code, out, _ = call("train", "digits/mine", "--help", "--plugin=my_methods.py")
    assert code == 0
    assert "--network.width" in out
    assert "--plugin" in out


REFUSED = {
    "x = (": "line 1: SyntaxError: '(' was never closed.",
    "\nimport no_such_module": "line 2: ModuleNotFoundError: No module named 'no_such_module'.",
    "x = 1\n\nraise RuntimeError('of a\\nsecond line')": "line 3: RuntimeError: of a second line.",
    "import sys\nsys.exit(3)": "line 2: it ends the program when it is imported.",
    "x = 1": 'registers nothing: put @OBJECTIVES.register("name") above a class, say, or '
    '@RECIPES.add("name") above a function that gives a Run.',
    NETWORK.replace('"mine"', '"mlp"'): "line 11: the network 'mlp' is registered "
    "twice, by fewstep.networks.mlp.MLP and my_plugin.Mine: give one of them another name.",
    NETWORK.replace("digits/mine", "digits/edm"): "line 16: the recipe 'digits/edm' "
    "is registered twice, by fewstep.recipes.digits.edm and my_plugin.mine: give one of them "
    "another name.",
    f'{NETWORK}\n@NETWORKS.register("mine")\nclass Mine(MLP): ...\n': "line 24: the "
    "network 'mine' is registered twice, by my_plugin.Mine and my_plugin.Mine: give one of them "
    "another name.",
}


@pytest.mark.parametrize("code", REFUSED)
def test_a_plugin_that_cannot_be_used_is_refused_in_a_line(
    code: str, tmp_path: Path, call: Call
) -> None:
    file = tmp_path / "my_plugin.py"
    file.write_text(code)
    before = len(LEDGER), len(RECIPES)
    words = ("list", "recipes", "--plugin", file)
    wanted = REFUSED[code]
    joined = " " if wanted.startswith("registers") else ", "
    assert call(*words) == (2, "", f"fewstep: the plugin {file}{joined}{wanted}\n")
    assert (len(LEDGER), len(RECIPES)) == before, "what it had registered is gone"
    file.write_text(NETWORK)
    assert call(*words)[0] == 0, "once it is mended it can be loaded"


FAILS = '''
    def __init__(self, shape, num_classes=0, depth=3, name: "Nowhere" = None, **more):
        """Args:
            depth: how deep it goes.
        """
        super().__init__(shape, num_classes=num_classes, width=16, blocks=1, hidden=16)

    def forward(self, x, c_noise, **condition):
        return x / nothing
'''


def test_a_failure_in_a_plugin_is_its_own(plugin: Path, call: Call) -> None:
    """Code without annotations is taken, and what it does wrong is not called a bug of ours."""
    code = NETWORK.replace("digits/mine", "digits/fails").replace(
        ", width=16, blocks=1, hidden=16)", ")"
    )
    plugin.write_text(code.replace('    """A perceptron of my own."""\n', FAILS))
    words = ("train", "digits/fails", "--plugin", plugin)
    assert "--network.depth INT" in call(*words, "--help")[1]
    code, _, err = call(*words, *TINY, "--network.depth", "4", "--out", "run")
    assert (code, err.count("\n")) == (2, 1)
    assert f"the plugin {plugin} failed in line 21, in forward: NameError: name 'nothing'" in err


def test_what_is_no_plugin_is_refused_by_its_name(tmp_path: Path, call: Call) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "notes.txt").write_text("none")
    (tmp_path / "random.py").write_text(NETWORK)
    refused = {
        "no_such.py": "there is no plugin 'no_such.py'.",
        "no_such": "the plugin no_such is neither a file nor a module",
        "./folder": "the plugin folder is a folder without __init__.py",
        "./notes.txt": "the plugin notes.txt is no Python file",
        "json": "the plugin json registers nothing",
        "random.py": "is called like another module",
        "": "no plugin is named: give a Python file",
    }
    for which, reason in refused.items():
        code, out, err = call("list", "grids", "--plugin", which)
        assert (code, out, err.count("\n")) == (2, "", 1), which
        assert reason in err


@pytest.mark.parametrize("inside", ["run", "run/deep/er"])
def test_code_in_a_run_s_folder_is_never_imported(
    inside: str, plugin: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(inside).mkdir(parents=True)
    Path("run/run.json").write_text("{}")
    Path(inside, "theirs.py").write_text("raise SystemExit('imported')")
    assert "from which no code is imported" in call("list", "--plugin", f"{inside}/theirs.py")[2]
    Path("link.py").symlink_to(Path(inside, "theirs.py"))
    assert "from which no code is imported" in call("list", "--plugin", "link.py")[2]
    monkeypatch.chdir(inside)
    assert "from which no code is imported" in call("list", "--plugin", "theirs")[2]


def test_a_plugin_is_one_however_its_path_is_written(plugin: Path, call: Call) -> None:
    Path("lib").mkdir()
    Path("linked").symlink_to(plugin.parent)
    spellings = ("my_methods.py", plugin, "lib/../my_methods.py", "linked/my_methods.py")
    words = [word for which in spellings for word in ("--plugin", which)]
    code, out, err = call("list", "recipes", *words, "--plugin", "my_methods")
    assert (code, err) == (0, "")
    assert "digits/mine" in out
    assert len(load.loaded()) == 1


def test_a_run_does_not_begin_around_its_own_plugin(plugin: Path, call: Call) -> None:
    words = ("train", "digits/mine", *TINY, "--plugin", plugin, "--out", ".")
    code, _, err = call(*words)
    assert code == 2
    assert f"the plugin {plugin} lies in the run folder" in err
    assert not Path("run.json").exists()


def test_a_package_is_a_plugin_of_all_its_files(tmp_path: Path, call: Call) -> None:
    home = tmp_path / "lib/pack"
    home.mkdir(parents=True)
    (home / "__init__.py").write_text("from pack import inside\nfrom . import inside")
    (home / "inside.py").write_text(NETWORK)
    assert "digits/mine" in call("list", "recipes", "--plugin", home)[1]
    digest = load.loaded()[0].sha256
    (home / "inside.py").write_text(f"{NETWORK}#\n")
    assert load.digest(home / "__init__.py") != digest


def test_the_environment_names_plugins(
    plugin: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSTEP_PLUGINS", f"{plugin}")
    assert "digits/mine" in call("list", "recipes")[1]
    monkeypatch.setenv("FEWSTEP_PLUGINS", "no_such.py")
    assert call("list")[2] == "fewstep: FEWSTEP_PLUGINS: there is no plugin 'no_such.py'.\n"


def test_installed_packages_are_plugins_by_their_entry_points(
    plugin: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fewstep]\nmine = my_methods\nbad = no_such_module\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(FewstepWarning, match="left out: the plugin no_such_module is neither"):
        assert "digits/mine" in call("list", "recipes")[1]


def test_the_hash_sees_what_a_file_imports_from_beside_it(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("WIDTH = 16")
    (tmp_path / "other.py").write_text("WIDTH = 16")
    file = tmp_path / "with_helper.py"
    file.write_text(f"from helper import WIDTH\n{NETWORK}")
    plugin = fewstep.load_plugin(file)
    assert plugin.gives == ["network mine", "recipe digits/mine"]
    (tmp_path / "other.py").write_text("WIDTH = 17")
    assert load.digest(file) == plugin.sha256
    (tmp_path / "helper.py").write_text("WIDTH = 17")
    assert load.digest(file) != plugin.sha256


OTHERS = """
import torch

from fewstep import Dataset, FewstepError
from fewstep.data import READERS
from fewstep.evaluation.features import FEATURE_NETWORKS, FeatureNetwork, Features


@READERS.register("stripes")
def stripes(where: str, split: str) -> Dataset:
    generator = torch.Generator().manual_seed(int(split == "train"))
    images = torch.randint(0, 256, (int(where or 64), 1, 8, 8), generator=generator)
    return Dataset.from_arrays(images.to(torch.uint8), name="stripes")


@FEATURE_NETWORKS.register("means")
class Means(FeatureNetwork):
    shape, num_classes = None, 0

    def __init__(self, side: int = 4) -> None:
        super().__init__()
        self.side, self.num_features = side, side * side

    def forward(self, images: torch.Tensor) -> Features:
        small = torch.nn.functional.adaptive_avg_pool2d(images.float().mean(1), self.side)
        return Features(small.flatten(1))


@READERS.register("whole")
def whole(where: str, split: str) -> Dataset:
    if split != "train":
        raise FewstepError(f"only all of it, not {split}")
    return stripes(where, split)


@READERS.register("broken")
def broken(where: str, split: str) -> list[int]:
    return [1]
"""


def test_data_and_features_of_a_plugin(tmp_path: Path, call: Call) -> None:
    file = tmp_path / "others.py"
    file.write_text(OTHERS)
    mine = ("--plugin", file)
    assert call("train", "digits/edm", *TINY, "--data", "stripes:80", "--out", "run", *mine)[0] == 0
    assert json.loads(Path("run/run.json").read_text())["plugins"][0]["gives"] == [
        "data reader stripes"
    ]
    words = ("evaluate", "run", "-n", "32", "--bootstrap", "0", "--metrics", "fd", "--features")
    code, out, err = call(*words, "means(side=2)", *mine)
    assert (code, err) == (0, "")
    assert "means(side=2)" in out
    assert "takes no --weights" in call(*words, "means", "--weights", "a.pth", *mine)[2]
    assert "unknown argument of the feature network" in call(*words, "means(a=1)", *mine)[2]
    wrong = call("train", "digits/edm", *TINY, "--data", "broken:", "--out", "b", *mine)
    assert wrong[2].startswith("fewstep: the data reader 'broken' must give a Dataset")
    forget("others")
    assert "run needs the plugin others for its data reader stripes" in call("train", "run")[2]
    assert "no such data: stripes:80" in call("train", "digits/edm", "--data", "stripes:80")[2]


def test_a_reader_that_refuses_a_split_has_none(tmp_path: Path) -> None:
    """So that images are held out of the training ones, as of any source without test images."""
    (tmp_path / "others.py").write_text(OTHERS)
    fewstep.load_plugin(tmp_path / "others.py")
    with pytest.raises(NoSplit, match="only all of it, not test"):
        fewstep.load("whole:40", split="test")
    made = prepare("whole:40", None)
    assert (len(made.train), len(made.test)) == (34, 6)


def test_features_follow_their_plugin_s_code(tmp_path: Path) -> None:
    """Scores and cached features of another code are not taken for those of this one."""
    found = []
    for text in (OTHERS, f"{OTHERS}# other"):
        (tmp_path / "others.py").write_text(text)
        fewstep.load_plugin(tmp_path / "others.py")
        found.append(feature_network("means").fingerprint)
        forget("others")
    assert len(set(found)) == 2


def test_the_function_of_features_is_not_imported_from_a_run_s_folder(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("run.json").write_text("{}")
    Path("theirs.py").write_text("raise SystemExit('imported')")
    with pytest.raises(FewstepError, match="from which no code is imported"):
        feature_network("theirs:features")
