"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from fewstep.cli import run
from fewstep.exchange.hub import fetching as models_of_the_hub
from hub import Hub, serving

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests out of the user's cache."""
    os.environ["FEWSTEP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "100")

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(word) for word in words])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of models on this machine, empty, with an empty cache; no token is set."""
    constants = pytest.importorskip("huggingface_hub.constants")
    with serving() as server:
        settings = {
            "ENDPOINT": server.url,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HUB_CACHE": str(tmp_path / "hub-cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no-token"),
            "HF_HUB_DISABLE_XET": True,
        }
        for name, value in settings.items():  # the library reads its variables on import alone
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        models_of_the_hub.forget()
        yield server
    models_of_the_hub.forget()


@pytest.fixture
def cifar10() -> Path:
    """The folder with the CIFAR-10 Parquet files, which are not part of the project."""
    return _beside("cifar10", "train.parquet")


@pytest.fixture
def fashion_mnist() -> Path:
    """The folder with Fashion-MNIST's IDX files, which are not part of the project."""
    return _beside("fashion-mnist", "t10k-images-idx3-ubyte.gz")


def _beside(name: str, file: str) -> Path:
    default = Path(__file__).parents[2] / "shared/data"
    folder = Path(os.environ.get("FEWSTEP_TEST_DATA", default)) / name
    if not (folder / file).is_file():
        pytest.skip(f"no {file} in {folder}; set FEWSTEP_TEST_DATA to the folder above it")
    return folder
