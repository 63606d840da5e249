"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fewstep.cli import run

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
def cifar10() -> Path:
    """The folder with the CIFAR-10 Parquet files, which are not part of the project."""
    default = Path(__file__).parents[2] / "shared/data"
    folder = Path(os.environ.get("FEWSTEP_TEST_DATA", default)) / "cifar10"
    if not (folder / "train.parquet").is_file():
        pytest.skip(f"no CIFAR-10 in {folder}; set FEWSTEP_TEST_DATA to the folder above it")
    return folder
