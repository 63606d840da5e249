"""Specs and numbers as anybody may write them: read, or refused in a line that names them."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from cyclopts import Token

from fewstep.cache import cache_folder, expanded
from fewstep.cli.command import whole
from fewstep.errors import FewstepError
from fewstep.networks import NETWORKS
from fewstep.registry import parse
from fewstep.schedules import TIME_GRIDS
from fewstep.solvers import SOLVERS


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("heun", ("heun", {})),
        (" rk45 ( rtol=1e-3, atol = -1 ) ", ("rk45", {"rtol": 1e-3, "atol": -1})),
        ("pseudo-huber(c=None, d=(1, 2))", ("pseudo_huber", {"c": None, "d": (1, 2)})),
        (r"a(b='\d')", ("a", {"b": "\\d"})),
    ],
)
def test_a_spec_is_a_name_and_its_arguments(spec: str, found: tuple[str, dict]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse(spec) == found


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "(",
        "ddim(eta=",
        "ddim(1)",
        "ddim(eta=open('x'))",
        "ddim(**{'eta': 1}, **2)",
        "ddim(eta={[]: 1})",
        "ddim(eta={1, []})",
        "ddim(eta={**1})",
        "ddim(eta=1, eta=2)",
        "ddim(eta=f'{1}')",
        "ddim(eta='\udcff')",
        "ddim\x00(eta=1)",
        "ddim(eta=" + "9" * 5000 + ")",
        "ddim(eta=" + "1+" * 5000 + "1)",
        "ddim(eta=" + "-" * 40000 + "1)",
        "ddim(eta=" + "not " * 3000 + "1)",
        "ddim(eta=" + "(" * 400 + ")" * 400 + ")",
        "ddim" * 1000,
    ],
)
def test_what_is_no_spec_is_refused(spec: str) -> None:
    with pytest.raises(FewstepError) as refused:
        SOLVERS.build(spec)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("ddim(eta=1e999)", "eta"),
        (f"ddim(eta={2**63})", "eta .* is too large"),
        ("rk45(rtol=-1)", "rtol"),
        ("euler(order=1)", "'order'"),
    ],
)
def test_a_number_of_no_use_is_named(spec: str, expected: str) -> None:
    with pytest.raises(FewstepError, match=expected):
        SOLVERS.build(spec)


@pytest.mark.parametrize("rho", ["1e-300", "0", "-7", "1e300", "nan"])
def test_a_grid_whose_powers_overflow_is_refused(rho: str) -> None:
    with pytest.raises(FewstepError, match=r"rho|cannot read"):
        TIME_GRIDS.build(f"karras(rho={rho})")


def test_what_does_not_fit_into_memory_is_named() -> None:
    for width in (2**40, 2**62):
        with pytest.raises(FewstepError, match=f"'mlp' cannot be built with .*width={width}.*: "):
            NETWORKS.call("mlp", {"shape": (1, 8, 8), "num_classes": 0, "width": width})


@pytest.mark.parametrize(("text", "number"), [("7", 7), ("-3", -3), ("1e5", 10**5), ("2.0", 2)])
def test_a_whole_number(text: str, number: int) -> None:
    assert whole(int, [Token(value=text)]) == number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1.5", "not a whole number"),
        ("", "not a whole number"),
        ("1e400", "not a whole number"),
        ("nan", "not a whole number"),
        ("x" * 1000, "'x{40}' is not a whole number"),
        ("1e19", "too large"),
        (str(2**63), "too large"),
        (str(-(2**63)), "too large"),
        ("9" * 6000, "not a whole number"),
    ],
)
def test_what_is_no_whole_number(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        whole(int, [Token(value=text)])


def test_a_home_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(FewstepError, match="no home folder for '~nobody-of-ours/x'"):
        expanded("~nobody-of-ours/x")
    monkeypatch.setenv("FEWSTEP_CACHE", "~nobody-of-ours/x")
    with pytest.raises(FewstepError, match=r"FEWSTEP_CACHE=~nobody-of-ours/x names no folder"):
        cache_folder()
    monkeypatch.delenv("FEWSTEP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "fewstep"
