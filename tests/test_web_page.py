"""The page of ``fewstep export --to web`` in a real browser, over a plain web server.

What its worker answers is compared with what the HTTP API of `fewstep serve` answers to the same
requests: the same pictures to one level, with the same settings.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep import EDM, MLP, FlowMap, open_model
from fewstep.errors import FewstepError
from fewstep.exchange.onnxruntime_web import Runtime, runtime
from fewstep.latents import Latents
from fewstep.networks import ADM, ConvAutoencoder, DiT, UNet
from fewstep.parameterization import VP, CosineVP, DiscreteVP, RectifiedFlow, TrigFlow
from fewstep.sampling import NoiseStreams
from fewstep.serving.folder import write_folder
from fewstep.serving.shelf import tasks_of
from fewstep.trained import CONSISTENCY, DIFFUSION, FLOW_MAP, GENERATOR, NESTED
from test_page import LAPTOP, PHONE, browser, drag, pixels, run, saved, settings, shown

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright for Python")
pytest.importorskip("onnxruntime", reason="needs the onnx extra")
testclient = pytest.importorskip("fastapi.testclient", reason="needs the serve extra")
Page, Browser = playwright.Page, playwright.Browser

__all__ = ["browser"]  # the fixture
SCRIPTS = Path(__file__).parents[1] / "src/fewstep/serving/browser"
CANVAS = (8, 12)
Answer = dict[str, Any]


@pytest.fixture(scope="module")
def engine() -> Runtime:
    try:
        return runtime()
    except FewstepError as error:
        pytest.skip(f"no onnxruntime-web: {error}")


def model(channels: int, classes: int, kind: str) -> FlowMap:
    torch.manual_seed(channels + classes)
    f = FlowMap(
        MLP((channels, *CANVAS), num_classes=classes, width=16, blocks=1),
        EDM(T=20.0, sigma_data=0.75),
        info={"kind": kind},
    )
    with torch.no_grad():
        for weight in f.parameters():
            weight.add_(0.2 * torch.randn_like(weight))  # the last layer begins at 0
    f.trained = replace(f.trained, null_class=kind == "diffusion")
    return f


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three models; their pages come below it as they are asked for."""
    made = {
        "grey": model(1, 3, "consistency"),
        "colour": model(3, 0, "consistency"),
        "diffusion": model(1, 3, "diffusion"),
    }
    place = tmp_path_factory.mktemp("site")
    for name, f in made.items():
        f.save(place / f"{name}.safetensors")
    return place


@pytest.fixture(scope="module")
def folder_of(site: Path, engine: Runtime) -> Callable[[str], Path]:
    """The page of a model, written once."""

    def folder_of(name: str) -> Path:
        folder = site / "below" / name
        if not folder.exists():
            write_folder(open_model(site / f"{name}.safetensors"), name, folder, lambda: engine)
        return folder

    return folder_of


class Quiet(SimpleHTTPRequestHandler):
    """A plain web server that writes no log."""

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the folders are handed out: below a path, as by a host with many pages."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/below/"
    server.shutdown()


@pytest.fixture
def open_page(
    browser: Browser, address: str, folder_of: Callable[[str], Path]
) -> Iterator[Callable[..., Page]]:
    """Opens the page of a model; nothing else than the folder was asked for, and nothing failed."""
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(20_000)
    requests: list[str] = []
    failed: list[str] = []
    context.on("request", lambda request: requests.append(request.url))
    context.on("response", lambda r: failed.append(r.url) if r.status >= 400 else None)
    context.on("weberror", lambda error: failed.append(str(error.error)))
    context.on("console", lambda m: failed.append(m.text) if m.type == "error" else None)
    opened: list[str] = []

    def open_page(name: str, link: str = "", *, size: dict[str, int] = LAPTOP) -> Page:
        page = context.new_page()
        page.set_viewport_size(size)
        opened.append(f"{address}{folder_of(name).name}/")
        page.goto(opened[-1] + link)
        page.wait_for_selector("#facts:not(:empty)")
        return page

    yield open_page
    context.close()
    own = [url for url in requests if url.startswith(tuple(opened))]
    assert [
        u for u in requests if u not in own and urlsplit(u).scheme not in ("data", "blob")
    ] == []
    assert failed == []


ASK = """async ({what, body, files}) => {
  const api = await import(new URL("api.js", location).href);
  const blob = (text) => text && new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))]);
  const ask = {
    generations: () => api.generate(body),
    interpolations: () => api.interpolate(body),
    edits: () => api.edit(body, {image: blob(files.image), mask: blob(files.mask)}),
  };
  try { return await ask[what]() } catch (error) { return {error: error.message} }
}"""


def in_browser(page: Page, what: str, body: Answer, files: dict[str, str] | None = None) -> Answer:
    """What the page's worker answers; a form holds texts alone."""
    sent = {k: str(v) for k, v in body.items()} if what == "edits" else body
    return page.evaluate(ASK, {"what": what, "body": sent, "files": files or {}})


def opened(b64: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(b64)))


def check_same(page: Page, client: Any, what: str, body: Answer, files: Any = None) -> None:
    """The browser and the HTTP API answer a request alike."""
    ours = client.post(f"/v1/images/{what}", json={**body, **(files or {})}).json()
    theirs = in_browser(page, what, body, files)
    assert "error" not in theirs, (body, theirs)
    kept = ("model", "seed", "steps", "notes")
    assert [ours[k] for k in kept] == [theirs[k] for k in kept], body
    for one, other in zip(ours["data"], theirs["data"], strict=True):
        assert [one.get(k) for k in ("seed", "index", "class")] == [
            other.get(k) for k in ("seed", "index", "class")
        ]
        pairs = [(one["b64_json"], other["b64_json"])]
        pairs += zip(one.get("strip", []), other.get("strip", []), strict=True)
        for mine, its in pairs:
            a, b = np.asarray(opened(mine)).astype(int), np.asarray(opened(its)).astype(int)
            assert a.shape == b.shape, body
            assert abs(a - b).max() <= 1, body
        said, heard = (json.loads(opened(p).text["fewstep"]) for p in pairs[0])  # type: ignore[attr-defined]
        assert heard.pop("engine").startswith("onnxruntime-web")
        assert said.pop("engine") == "torch"
        assert said == heard


@pytest.fixture(scope="module")
def client(site: Path) -> Iterator[Any]:
    from fewstep.serving import Engine, Shelf
    from fewstep.serving.app import create_app

    shelf = Shelf.open(sorted(site.glob("*.safetensors")))
    app = create_app(Engine(shelf.models), shelf)
    with testclient.TestClient(app, base_url="http://localhost") as client:
        yield client


GENERATED: dict[str, list[Answer]] = {
    "grey": [
        {"n": 3, "seed": 1, "steps": 1},
        {"n": 5, "seed": 2**40, "steps": 3, "strip": True},
        {"n": 2, "seed": 3, "class": "2", "sampler": "jumps(times=(2.0, 0.5))"},
    ],
    "colour": [{"n": 9, "seed": 4, "steps": 4}],
    "diffusion": [
        {"n": 2, "seed": 5, "steps": 6},
        {"n": 2, "seed": 6, "steps": 4, "guidance": 2.5},
        {"n": 2, "seed": 7, "steps": 4, "guidance": 2.5, "guidance_interval": [0.3, 5]},
    ],
}


@pytest.mark.parametrize(
    "name",
    [
        "grey",
        pytest.param("colour", marks=pytest.mark.slow),
        pytest.param("diffusion", marks=pytest.mark.slow),
    ],
)
def test_a_seed_gives_the_pictures_that_it_gives_in_python(
    name: str, open_page: Callable[..., Page], client: Any
) -> None:
    page = open_page(name)
    for body in GENERATED[name]:
        check_same(page, client, "generations", {"model": name, **body})
    if name != "diffusion":
        ends = {"from": {"seed": 0, "index": 1}, "to": {"seed": 3, "index": 2}, "frames": 4}
        check_same(page, client, "interpolations", {"model": name, "steps": 3, **ends})
    said = in_browser(page, "generations", {"n": 1, "sampler": "jumps(gamma=0.5)"})
    assert "fewstep serve knows all" in said["error"]
    assert "1 to 32 steps" in in_browser(page, "generations", {"n": 1, "steps": 40})["error"]


def drawn(size: tuple[int, int], mode: str, format_: str = "PNG") -> str:
    random = np.random.default_rng(0).integers(0, 256, (*size, 4), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(random).convert(mode).save(file, format=format_)
    return base64.b64encode(file.getvalue()).decode()


def mask(size: tuple[int, int]) -> str:
    hole = np.zeros(size, np.uint8)
    hole[: size[0] // 2, : size[1] // 3] = 255
    file = BytesIO()
    Image.fromarray(hole).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


EDITS: list[Answer] = [
    {"task": "inpaint", "steps": 3},
    {"task": "inpaint", "steps": 2, "fit": "tile"},
    {"task": "outpaint", "steps": 2, "right": 4, "top": 1},
    {"task": "superresolve", "steps": 3, "factor": 2},
    {"task": "superresolve", "steps": 2, "factor": 4, "fit": "resize"},
    {"task": "colourise", "steps": 3},
    {"task": "deblur", "steps": 3, "blur": 1.5},
    {"task": "strokes", "steps": 3, "strength": 0.6},
    {"task": "vary", "steps": 2, "strength": 1, "fit": "tile"},
    {"task": "denoise", "sigma": 30, "n": 1},
    {"task": "denoise", "n": 1},
]
PICTURES = [((8, 12), "L"), ((8, 12), "RGB"), ((13, 24), "RGBA"), ((20, 11), "LA")]


@pytest.mark.parametrize("name", ["grey", pytest.param("colour", marks=pytest.mark.slow)])
def test_edits_are_those_of_the_server(
    name: str, open_page: Callable[..., Page], client: Any
) -> None:
    page = open_page(name)
    common: Answer = {"model": name, "seed": 3, "n": 2}
    common |= {"class": "1"} if name == "grey" else {}
    few = [EDITS[::2], EDITS[1::2]]  # half of them with each picture
    for number, (size, mode) in enumerate(PICTURES):
        for edit in few[number % 2] if name == "grey" else EDITS:
            if edit["task"] == "colourise" and name == "grey":
                continue
            files = {"image": drawn(size, mode)}
            files |= {"mask": mask(size)} if edit["task"] == "inpaint" else {}
            check_same(page, client, "edits", {**common, **edit}, files)
    said = in_browser(page, "edits", {"task": "superresolve", "factor": 5, **common}, files)
    assert "does not divide" in said["error"]


def test_the_page_opens_with_pictures_and_works_without_a_server(
    open_page: Callable[..., Page], site: Path, tmp_path: Path
) -> None:
    page = open_page("grey")
    first = page.locator("#generate .sheets > .grid .tile img")
    assert first.count() == 20
    assert "#" not in page.url
    assert "Computed in this browser" in page.inner_text("footer")
    page.locator("#generate-n").fill("4")
    page.locator("#generate-seed").fill("7")
    run(page, "generate")
    path = saved(page, "#generate [data-act=download]", tmp_path)
    f = open_model(site / "grey.safetensors")
    from fewstep import sample, to_uint8

    expected = to_uint8(sample(f, 4, steps=2, seed=7))[0, 0].int().numpy()
    assert abs(pixels(path) - expected).max() <= 1
    assert settings(path)["seed"] == 7
    page.click("#generate .terminal summary")
    said = page.inner_text("#generate .terminal")
    assert "fewstep sample runs/grey" in said
    assert "curl" not in said

    page.click("#generate [data-act=edit]")
    page.wait_for_selector("#edit .layers:not([hidden])")
    drag(page, "canvas.mask", (0.1, 0.2), (0.6, 0.2))
    run(page, "edit")
    assert shown(page, "#edit .after .large").shape == CANVAS
    page.click("#tab-interpolate")
    page.locator("#interpolate-frames").fill("3")
    run(page, "interpolate")
    assert page.locator("#interpolate .reel img").count() == 3
    page.click("#tab-compare")
    assert "This page has no diffusion model" in page.inner_text("#compare .why")
    run(page, "compare")
    assert page.locator("#compare .comparison").count() == 2

    again = open_page("grey", page.url.partition("/grey/")[2], size=PHONE)
    assert again.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_work_is_cancelled_and_goes_on(open_page: Callable[..., Page]) -> None:
    page = open_page("grey")
    page.locator("#generate-n").fill("64")
    page.locator("#generate-steps").fill("16")
    page.click("#generate .primary")
    page.wait_for_selector("#generate form.busy")
    page.click("#generate .primary")
    page.wait_for_selector("#generate .status:text('Cancelled')")
    assert (
        page.locator("#generate .sheets > .grid .tile img").count() == 20
    )  # what was there before
    page.locator("#generate-n").fill("2")
    page.locator("#generate-steps").fill("2")
    run(page, "generate")
    assert page.locator("#generate .sheets > .grid .tile img").count() == 2


def kinds() -> dict[str, FlowMap]:
    """Models that are computed differently: processes, networks, ends, a latent space, a weight."""
    torch.manual_seed(0)

    def mlp(**how: Any) -> MLP:
        return MLP((1, 8, 8), num_classes=3, width=16, blocks=1, **how)

    unet: dict[str, Any] = {"channels": 16, "multipliers": (1, 2), "blocks": 1}
    latents = Latents(ConvAutoencoder((3, 16, 16)))
    made = {
        "circle": FlowMap(mlp(), TrigFlow(), trained=CONSISTENCY),
        "variance": FlowMap(mlp(), VP(), trained=CONSISTENCY),
        "chain": FlowMap(mlp(), DiscreteVP(), trained=DIFFUSION),
        "lines": FlowMap(mlp(two_time=True), RectifiedFlow(eps=0.0), trained=FLOW_MAP),
        "generator": FlowMap(mlp(), EDM(), trained=GENERATOR),
        "nested": FlowMap(mlp(), CosineVP(), trained=replace(NESTED, steps=2)),
        "weight": FlowMap(
            mlp(guidance_embedding=True),
            EDM(),
            trained=replace(CONSISTENCY, weights=(1.0, 4.0), guidance=2.0),
        ),
        "within": FlowMap(
            mlp(guidance_embedding=True, interval_embedding=True, scaled_by_weight=True),
            EDM(),
            trained=replace(CONSISTENCY, weights=(1.0, 4.0), guidance=2.0, around=1.0),
        ),
        "unet": FlowMap(UNet((3, 16, 16), attention=(8,), **unet), EDM(), trained=CONSISTENCY),
        "adm": FlowMap(
            ADM((3, 16, 16), num_classes=3, **{**unet, "channels": 32}, attention=(8,)),
            EDM(),
            trained=CONSISTENCY,
        ),
        "transformer": FlowMap(
            DiT((3, 8, 8), num_classes=3, width=32, blocks=1, heads=2, patch=2),
            RectifiedFlow(),
            trained=DIFFUSION,
        ),
        "latent": FlowMap(
            UNet(tuple(latents.shape), attention=(), **unet),
            EDM(sigma_data=1.0),
            trained=CONSISTENCY,
            latents=latents,
        ),
    }
    for f in made.values():
        with torch.no_grad():
            for weight in f.parameters():
                weight.add_(0.05 * torch.randn_like(weight))
    return made


@pytest.mark.slow
def test_every_kind_of_model(browser: Browser, address: str, site: Path, engine: Runtime) -> None:
    from fewstep.serving import Engine, Shelf
    from fewstep.serving.app import create_app

    made = kinds()
    app = create_app(Engine(made), Shelf(made))
    with testclient.TestClient(app, base_url="http://localhost") as client:
        for name, f in made.items():
            write_folder(f, name, site / "below" / name, lambda: engine)
            page = browser.new_page()
            page.goto(f"{address}{name}/")
            for steps in [f.trained.steps] if f.trained.steps else [1, 3]:
                body = {"model": name, "n": 3, "seed": 1, "steps": steps}
                check_same(page, client, "generations", body)
            if f.trained.around is not None:
                within = {"guidance": 3.0, "guidance_interval": [0.5, 2.0]}
                check_same(
                    page, client, "generations", {"model": name, "n": 2, "seed": 3, **within}
                )
            common = {"model": name, "seed": 2, **({"class": "1"} if f.num_classes else {})}
            files = {"image": drawn(f.image_shape[1:], "RGB" if f.shape[0] == 3 else "L")}
            for task in set(tasks_of(f)) & {"strokes", "superresolve", "colourise", "denoise"}:
                more = {"sigma": 20} if task == "denoise" else {"steps": 2}
                check_same(page, client, "edits", {**common, "task": task, **more}, files)
            page.close()


def test_opened_as_a_file_it_says_what_it_needs(
    browser: Browser, folder_of: Callable[[str], Path]
) -> None:
    page = browser.new_page()
    page.goto((folder_of("grey") / "index.html").as_uri())
    assert "python -m http.server" in page.inner_text("#trouble")
    page.close()


def test_noise_is_that_of_python(tmp_path: Path) -> None:
    """Streams of few and many numbers, of sizes that 16 divides and does not."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    cases = [(0, 0, 64), (0, 7, 105), (2**40 + 3, 12, 768), (5, 2**31 - 1, 3), (2**53 - 1, 1, 15)]
    script = tmp_path / "noise.mjs"
    script.write_text(
        f"import {{ Stream }} from {json.dumps((SCRIPTS / 'noise.js').as_uri())};\n"
        f"const made = {json.dumps(cases)}.map(([seed, index, size]) => {{\n"
        "  const stream = new Stream(seed, index, size);\n"
        "  return [stream.normal(), stream.normal()].map((z) => Array.from(z));\n"
        "});\nconsole.log(JSON.stringify(made));\n"
    )
    said = subprocess.run([node, script], capture_output=True, text=True, check=True).stdout
    for (seed, index, size), draws in zip(cases, json.loads(said), strict=True):
        noise = NoiseStreams(seed, [index], (size,))
        for drawn in draws:
            assert abs(noise.normal()[0].numpy() - np.array(drawn)).max() <= 1e-6
