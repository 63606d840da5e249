"""What ``fewstep export --to web`` writes and refuses, without a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewstep import EDM, MLP, FlowMap, RectifiedFlow
from fewstep.errors import FewstepError
from fewstep.exchange import onnxruntime_web
from fewstep.exchange.graphs.sums import program_of, run
from fewstep.exchange.onnxruntime_web import FILES, Runtime, runtime
from fewstep.parameterization import PFGM
from fewstep.sampling import NoiseStreams, sampler_for
from fewstep.serving import folder
from fewstep.serving.folder import ABOUT, check_place, write_folder
from fewstep.solvers import SOLVERS
from fewstep.trained import CONSISTENCY, DIFFUSION, FLOW_MAP, NESTED, Trained

RUNTIME = Runtime("1.0.0", {name: name.encode() for name in FILES})


def model(trained: Trained = CONSISTENCY, two_time: bool = False) -> FlowMap:
    p = RectifiedFlow(eps=0.0) if two_time else EDM(T=20.0)
    f = FlowMap(MLP((1, 4, 4), num_classes=2, width=8, blocks=1, two_time=two_time), p)
    with torch.no_grad():
        for weight in f.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    f.trained = replace(trained, classes=f.trained.classes)
    return f


SOLVED = [f"walk(solver={name}, steps=4)" for name in SOLVERS if name not in ("rk45", "pc")]
SAMPLED = [
    *((DIFFUSION, False, spec) for spec in SOLVED),
    (DIFFUSION, False, "walk(steps=3, clip=True)"),
    (CONSISTENCY, False, "jumps(times=(5.0, 0.5))"),
    (FLOW_MAP, True, "jumps(gamma=0.5, steps=3)"),
    (FLOW_MAP, True, "jumps(gamma=0, steps=3)"),
    (replace(NESTED, steps=4), False, "nested_ddim"),
]


@pytest.mark.parametrize(("trained", "two_time", "spec"), SAMPLED, ids=lambda x: str(x))
def test_a_program_does_what_its_sampler_does(trained: Trained, two_time: bool, spec: str) -> None:
    f = model(trained, two_time)
    sampler = sampler_for(f, sampler=spec)
    program = program_of(f, sampler)
    assert len(program.stages) == sampler.count
    assert sum(len(stage.evaluations) for stage in program.stages) == sampler.nfe
    with torch.no_grad():
        expected = sampler(f, NoiseStreams(0, range(3), f.shape))
        noise = NoiseStreams(0, range(3), f.shape)

        def evaluated(x: torch.Tensor, t: float, s: float | None) -> torch.Tensor:
            return f.D(x, t) if s is None else f(x, t, s)

        made = run(program, evaluated, noise.normal)
    assert abs(made - expected).max() <= 2e-4 * max(1.0, float(expected.abs().max()))
    terms = [len(stage.state) for stage in program.stages]
    assert max(terms) <= 8  # no step adds up all that came before
    json.dumps(program.json)


@pytest.mark.parametrize(
    ("spec", "says"),
    [("walk(solver=rk45)", "chooses its own steps"), ("walk(solver=pc, steps=3)", "to add up")],
)
def test_samplers_that_are_no_sums_are_refused(spec: str, says: str) -> None:
    f = model(DIFFUSION)
    with pytest.raises(FewstepError, match=says):
        program_of(f, sampler_for(f, sampler=spec))


def refused(f: FlowMap, out: Path, says: str, **how: object) -> None:
    """Nothing is fetched for what does not fit, and nothing is left behind."""

    def never() -> Runtime:
        raise AssertionError("onnxruntime-web was asked for")

    before = sorted(out.parent.iterdir())
    with pytest.raises(FewstepError, match=says):
        write_folder(f, "model", out, never, **how)  # type: ignore[arg-type]
    assert sorted(out.parent.iterdir()) == before


def test_what_the_page_cannot_carry_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "site"
    refused(model(DIFFUSION), out, "chooses its own steps", sampler="walk(solver=rk45)")
    refused(model(), out, "at most 32 steps", steps=40)
    refused(model(Trained()), out, "a page")
    vector = FlowMap(MLP((2,), width=8, blocks=1), EDM(), info={"kind": "consistency"})
    refused(vector, out, "not images")
    heavy = FlowMap(MLP((1, 4, 4), width=8, blocks=1), PFGM(), info={"kind": "diffusion"})
    refused(heavy, out, "noise of pfgm is not normal")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    refused(model(), taken, "something else than an earlier export")
    assert (taken / "thesis.txt").read_text() == "mine"
    refused(model(), taken / "thesis.txt", "is a file")
    monkeypatch.setattr(folder, "LARGEST", 100)
    refused(model(), out, "an ONNX file holds 2: serve it")


def test_the_folder_has_the_pages_own_files_and_relative_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "LARGE", 0)  # bytes that a visitor would not like to wait for
    pytest.importorskip("onnxruntime", reason="needs the onnx extra")
    out = tmp_path / "site"
    f = model(replace(CONSISTENCY, taus={"2": (0.8,)}))
    f.info = {**f.info, "origin": {"source": "elsewhere.pt", "licence": "CC-BY-NC-4.0"}}
    written = write_folder(f, "mine", out, lambda: RUNTIME, steps=2, card="# mine\n")
    assert "every visitor loads" in written.notes[0]
    page = Path(onnxruntime_web.__file__).parents[1] / "serving/page"
    for path in page.iterdir():
        if path.name != "api.js":
            assert (out / path.name).read_bytes() == path.read_bytes()
    assert (out / "README.md").read_text() == "# mine\n"
    assert sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) == written.size
    (about,) = json.loads((out / ABOUT).read_text())["models"]
    assert about["default_steps"] == 2
    assert about["programs"]["2"]["spec"] == "jumps(times=(0.8,))"
    assert about["licence"] == "CC-BY-NC-4.0"
    assert about["sources"] == ["elsewhere.pt"]
    first = json.loads((out / "models/first.json").read_text())
    assert len(first["answer"]["data"]) == 20
    for path in (*out.glob("*.js"), *out.glob("browser/*.js"), out / "index.html"):
        text = path.read_text()
        assert 'src="/' not in text
        assert 'from "/' not in text
        assert 'from "http' not in text
    check_place(out)  # which a further export replaces


def archive(**content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as packed:
        for name, data in {"package.json": b'{"version": "9.9.9"}', **content}.items():
            about = tarfile.TarInfo(f"package/{name}")
            about.size = len(data)
            packed.addfile(about, io.BytesIO(data))
    return file.getvalue()


WHOLE = {f"dist/{there}": here.encode() for here, there in FILES.items()}


def test_a_runtime_of_ones_own(tmp_path: Path) -> None:
    given = tmp_path / "ort.tgz"
    given.write_bytes(archive(**WHOLE))
    expected = Runtime("9.9.9", {here: here.encode() for here in FILES})
    assert runtime(given) == expected
    with tarfile.open(given) as packed:
        packed.extractall(tmp_path, filter="data")
    assert runtime(tmp_path / "package") == expected
    assert runtime(tmp_path / "package/dist") == expected
    bare = tmp_path / "bare"
    (tmp_path / "package/dist").rename(bare)
    assert runtime(bare) == replace(expected, version=None)

    given.write_bytes(archive())
    with pytest.raises(FewstepError, match=r"has no package/dist/ort\.wasm\.min\.mjs"):
        runtime(given)
    given.write_bytes(b"no archive")
    with pytest.raises(FewstepError, match="is no archive of onnxruntime-web"):
        runtime(given)
    with pytest.raises(FewstepError, match=r"has no ort\.wasm\.min\.mjs"):
        runtime(tmp_path)
    with pytest.raises(FewstepError, match=r"cannot read --ort .*nowhere"):
        runtime(tmp_path / "nowhere.tgz")


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without npm or its settings, and with an empty cache."""
    monkeypatch.setenv("FEWSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    for name in ("npm_config_registry", "NPM_CONFIG_REGISTRY", "npm_config_userconfig"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_registry_is_that_of_npm(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FewstepError, match=r"no registry of npm is known.*--ort"):
        runtime()
    (alone / ".npmrc").write_text("; mine\nregistry = https://mirror.example/npm/\n")
    assert onnxruntime_web.registry() == "https://mirror.example/npm/"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "file:///etc/passwd")
    with pytest.raises(FewstepError, match=r"no web address.*--ort"):
        runtime()
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9/")
    with pytest.raises(FewstepError, match=r"cannot fetch onnxruntime-web .*127\.0\.0\.1:9.*--ort"):
        runtime()


def test_the_archive_is_known_by_its_hash(
    alone: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[[bytes], str]
) -> None:
    content = archive(**WHOLE)
    monkeypatch.setenv("npm_config_registry", serve(content))
    with pytest.raises(FewstepError, match="another content than onnxruntime-web"):
        runtime()
    assert not (alone / "cache").exists()
    hashed = base64.b64encode(hashlib.sha512(content).digest()).decode()
    monkeypatch.setattr(onnxruntime_web, "INTEGRITY", f"sha512-{hashed}")
    own = {here: hashlib.sha256(here.encode()).hexdigest() for here in FILES}
    monkeypatch.setattr(onnxruntime_web, "SHA256", own)
    fetched = runtime()
    monkeypatch.delenv("npm_config_registry")
    assert runtime().files == fetched.files  # from the cache
    next((alone / "cache").rglob("engine.wasm")).write_bytes(b"damaged")
    with pytest.raises(FewstepError, match="no registry of npm is known"):
        runtime()


@pytest.fixture
def serve() -> object:
    """A registry that has one archive."""
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    running: list[HTTPServer] = []

    def serve(content: bytes) -> str:
        class Registry(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path == "/npm/onnxruntime-web/-/onnxruntime-web-1.22.0.tgz"
                self.send_response(200 if found else 404)
                self.end_headers()
                self.wfile.write(content if found else b"")

            def log_message(self, *_: object) -> None:
                pass

        running.append(HTTPServer(("127.0.0.1", 0), Registry))
        threading.Thread(target=running[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{running[-1].server_port}/npm"

    yield serve
    for server in running:
        server.shutdown()


def test_the_command_says_what_is_in_the_way(
    call: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    model().save(tmp_path / "model.safetensors")
    code, _, said = call(
        "export", tmp_path / "model.safetensors", "--to", "edm", "-o", tmp_path / "x", "--ort", "y"
    )
    assert code == 2
    assert "--ort is for --to web" in said
    code, _, said = call(
        "export", tmp_path / "model.safetensors", "--to", "web", "-o", tmp_path / "site",
        "--ort", tmp_path / "nowhere",
    )  # fmt: skip
    assert code == 2
    assert "cannot read --ort" in said
    assert not (tmp_path / "site").exists()
