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
from fewstep.parameterization import PREDICTIONS
from fewstep.recipes import RECIPES
from fewstep.registry import Registry, spec_of
from fewstep.schedules import TIME_GRIDS
from fewstep.solvers import SOLVERS
from fewstep.spec import parse, written
from fewstep.weightings import WEIGHTINGS


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("heun", ("heun", {})),
        (" rk45 ( rtol=1e-3, atol = -1 ) ", ("rk45", {"rtol": 1e-3, "atol": -1})),
        ("pseudo-huber(c=None, d=(1, 2))", ("pseudo_huber", {"c": None, "d": (1, 2)})),
        (r"a(b='\d')", ("a", {"b": "\\d"})),
        ("walk(solver=heun)", ("walk", {"solver": "heun"})),
        ("a(b=c-d( e = 1 ), f='g-h')", ("a", {"b": "c_d(e=1)", "f": "g-h"})),
        ("a(b=c(d=e(f=1)), g=2)", ("a", {"b": "c(d=e(f=1))", "g": 2})),
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
        "ddim(eta=1, eta=0)",
        "ddim(eta=f'{1}')",
        "ddim(eta='\udcff')",
        "ddim\x00(eta=1)",
        "ddim(eta=" + "9" * 5000 + ")",
        "ddim(eta=" + "1+" * 5000 + "1)",
        "ddim(eta=" + "-" * 40000 + "1)",
        "ddim(eta=" + "not " * 3000 + "1)",
        "ddim(eta=" + "(" * 400 + ")" * 400 + ")",
        "ddim" * 1000,
        "ddim(eta=x.y)",
        "ddim(eta=x[0])",
        "ddim(eta=lambda: 0)",
        "ddim(eta=a(b)(c=1))",
        "ddim(eta=a(1))",
        "ddim(eta=a(b=c(d=e(f=1))))",
        "ddim(eta=(heun,))",
        "ddim(eta=" + "a(a=" * 150 + "1" + ")" * 151,
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
        ("euler(order=1)", "'order'. Known: none"),
        ("ddim(eta=half)", "eta of the solver 'ddim' must be a number, got 'half'"),
        ("ddim(eta='0')", "must be a number, got '0'"),
        ("ddim(eta=True)", "must be a number, got True"),
        ("ddim(eta=(0,))", "must be a number"),
        ("deis(order=2.5)", "must be a whole number"),
        ("deis(staged=1)", "must be True or False"),
    ],
)
def test_a_number_of_no_use_is_named(spec: str, expected: str) -> None:
    with pytest.raises(FewstepError, match=expected):
        SOLVERS.build(spec)


def test_specs_stand_inside_each_other_a_few_deep() -> None:
    with pytest.raises(FewstepError, match="at most 4 specs"):
        parse("a(b=a(b=a(b=a(b=a))))")
    quoted = parse("""a(b="a(b='a(b=a(b=1))')")""")
    assert parse(written(*quoted)) == quoted


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("a", {}),
        ("a", {"b": 1e-4, "c": (0.8,), "d": None, "e": True}),
        ("a", {"b": "c(d=e(f=-1))", "g": "h"}),
        ("a", {"b": "it's (", "c": "None", "d": "", "e": "x-y"}),
        ("a", {"b": "c(d=c(d=c(d=c)))"}),
    ],
)
def test_what_is_written_is_read_again(name: str, arguments: dict) -> None:
    assert parse(written(name, arguments)) == (name, arguments)


@pytest.mark.parametrize(
    ("registry", "spec"),
    [(SOLVERS, "ddim(eta=0.5)"), (SOLVERS, "churn"), (TIME_GRIDS, "karras(rho=5.0)")],
)
def test_a_component_knows_its_spec(registry: Registry, spec: str) -> None:
    assert spec_of(registry.build(spec)) == spec


@pytest.mark.parametrize("registry", [SOLVERS, TIME_GRIDS, WEIGHTINGS, PREDICTIONS])
def test_every_default_component_is_named_alone(registry: Registry) -> None:
    for name in registry:
        assert spec_of(registry.build(name)) == name


def test_a_name_is_given_once() -> None:
    """Another class is refused; the same one, defined anew as in a notebook, takes its place."""
    things: Registry[object] = Registry("thing")

    def define() -> type[object]:
        @things.register("a")
        class A: ...

        return A

    define()
    again = define()
    assert things["a"] is again
    with pytest.raises(FewstepError, match=r"thing 'a' is registered twice, by .*A and .*B:"):

        @things.register("a")
        class B: ...

    assert things["a"] is again
    with pytest.raises(FewstepError, match="recipe 'digits/edm' is registered twice"):
        RECIPES.add("digits/edm")(lambda: RECIPES["digits/ct"]())


def test_what_is_not_registered_has_no_spec() -> None:
    with pytest.raises(FewstepError, match="Path is not registered"):
        spec_of(Path())


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
