"""The page of ``fewstep serve``, driven in a real browser as a user would, with mouse and keys."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

import foreign
from fewstep import EDM, MLP, FlowMap
from fewstep.cli import app
from fewstep.networks import DiT

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright for Python")
pytest.importorskip("fastapi", reason="needs the serve extra")
Page, Browser, Route = playwright.Page, playwright.Browser, playwright.Route

NAMES = ("chromium", "chromium-browser", "google-chrome")
SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LAPTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SECONDS = 60  # until a server answers, on a busy machine

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=path, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A consistency model and a diffusion model of digits' shape, untrained."""
    paths = []
    for kind in ("consistency", "diffusion"):
        torch.manual_seed(len(paths))
        network = MLP((1, 8, 8), num_classes=10, width=16, blocks=1)
        with torch.no_grad():
            for weight in network.parameters():
                weight.add_(0.1 * torch.randn_like(weight))  # the last layer begins at 0
        f = FlowMap(network, EDM(T=20.0, sigma_data=0.75), info={"kind": kind})
        f.trained = replace(f.trained, null_class=kind == "diffusion")
        paths.append(tmp_path_factory.mktemp("models") / f"{kind}.safetensors")
        f.save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def address(models: list[Path]) -> Iterator[str]:
    """Where a server of both models answers."""
    with served(models) as address:
        yield address


@contextmanager
def served(models: list[Path]) -> Iterator[str]:
    """A block in which a server of models answers at an address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "fewstep", "serve", *map(str, models), "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_for(f"http://127.0.0.1:{port}", server)
        yield f"http://127.0.0.1:{port}/"
    finally:
        ended = server.poll()
        server.terminate()
        said = server.communicate(timeout=SECONDS)[0]
    assert ended is None, f"the server ended with {ended}: {said}"


def wait_for(address: str, server: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            pytest.fail(f"the server ended: {server.communicate()[0]}")
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    pytest.fail(f"the server did not answer within {SECONDS} s")


@pytest.fixture
def open_page(browser: Browser, address: str) -> Iterator[Open]:
    """Opens the page; at the end nothing has left the host and no error was logged."""
    context = browser.new_context(accept_downloads=True, has_touch=True)
    context.set_default_timeout(20_000)
    requests: list[str] = []
    errors: list[str] = []
    refused: list[int] = []

    def watch(page: Page) -> None:
        page.on("request", lambda request: requests.append(request.url))
        page.on("response", lambda r: refused.append(r.status) if r.status >= 400 else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)

    def open_page(link: str = "", *, size: dict[str, int] = LAPTOP, refusals: int = 0) -> Page:
        page = context.new_page()
        watch(page)
        page.set_viewport_size(size)
        page.goto(link or address)
        page.wait_for_selector("#facts:not(:empty)")
        open_page.refusals = refusals  # type: ignore[attr-defined]
        return page

    yield open_page
    context.close()
    host = urlsplit(address).netloc
    local = [url for url in requests if urlsplit(url).netloc == host]
    assert local
    assert [
        url for url in requests if url not in local and not url.startswith(("data:", "blob:"))
    ] == []
    # A browser logs every refused request as an error of its own.
    assert len(refused) == open_page.refusals  # type: ignore[attr-defined]
    assert [text for text in errors if "Failed to load resource" not in text] == []


def run(page: Page, tab: str) -> None:
    """Press the tab's main button and wait until its work is done."""
    page.click(f"#{tab} .primary")
    done(page, tab)


def done(page: Page, tab: str) -> None:
    page.wait_for_selector(f"#{tab} form.controls:not(.busy) .status:not(:empty)")


def pixels(source: str | Path) -> np.ndarray:
    """Of a data: address or a file."""
    file = (
        BytesIO(base64.b64decode(source.partition(",")[2])) if isinstance(source, str) else source
    )
    with Image.open(file) as image:
        return np.asarray(image.convert("L")).astype(int)


def shown(page: Page, selector: str) -> np.ndarray:
    return pixels(page.get_attribute(f"{selector} img", "src"))


def saved(page: Page, button: str, folder: Path) -> Path:
    """The file that a button downloads."""
    with page.expect_download() as download:
        page.click(button)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def settings(path: Path) -> Any:
    with Image.open(path) as image:
        return json.loads(image.text["fewstep"])  # type: ignore[attr-defined]


def drag(page: Page, canvas: str, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw with the mouse between two points, in shares of the canvas."""
    page.locator(canvas).scroll_into_view_if_needed()
    box = page.locator(canvas).bounding_box()
    assert box

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return box["x"] + point[0] * box["width"], box["y"] + point[1] * box["height"]

    page.mouse.move(*at(start))
    page.mouse.down()
    page.mouse.move(*at(end), steps=8)
    page.mouse.up()


def stroke(page: Page, canvas: str, *points: tuple[float, float]) -> None:
    """Draw with a finger through points, in shares of the canvas."""
    page.locator(canvas).evaluate("c => c.scrollIntoView({ block: 'center' })")
    box = page.locator(canvas).bounding_box()
    assert box
    fingers = page.context.new_cdp_session(page)
    kinds = ["touchStart", *["touchMove"] * (len(points) - 1)]
    for kind, (x, y) in zip(kinds, points, strict=True):
        at = {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]}
        fingers.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [at]})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def take_one(page: Page) -> None:
    page.click("#tab-edit")
    page.click("[data-source=generate]")
    page.wait_for_selector("#edit .layers:not([hidden])")


def picture_before(page: Page) -> np.ndarray:
    return pixels(page.evaluate("document.querySelector('canvas.picture').toDataURL()"))


def painted(page: Page) -> np.ndarray:
    """Which pixels of a picture of 8 x 8 the mask covers."""
    return np.array(
        page.evaluate(
            "() => { const c = document.querySelector('canvas.mask');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "return Array.from({length: 64}, (_, i) => d[4 * i + 3] > 0) }"
        )
    ).reshape(8, 8)


def test_generate_shows_every_step_and_downloads_with_settings(
    open_page: Open, address: str, tmp_path: Path
) -> None:
    page = open_page(f"{address}#tab=generate")  # with a link nothing is made unasked
    assert page.is_visible("text=Nothing here yet")
    page.locator("#generate-steps").fill("3")
    page.locator("#generate-n").fill("12")
    page.locator("#generate-seed").fill("5")
    run(page, "generate")
    assert page.locator("#generate .sheets > .grid .tile img").count() == 12
    page.click("#generate .sheets > .grid .tile:nth-child(4)")
    strip = page.locator("#generate .strip li img")
    assert strip.count() == 3
    steps = [pixels(strip.nth(k).get_attribute("src")) for k in range(3)]
    assert not np.array_equal(steps[0], steps[1])
    assert np.array_equal(steps[2], shown(page, "#generate .large"))
    assert (
        page.locator("#generate .large img").evaluate("i => getComputedStyle(i).imageRendering")
        == "pixelated"
    )

    path = saved(page, "#generate [data-act=download]", tmp_path)
    assert np.array_equal(pixels(path), steps[2])
    assert settings(path)["seed"] == 5
    whole = saved(page, "#generate [data-act=sheet]", tmp_path)
    assert settings(whole) | {"seconds": 0} == {
        "model": page.input_value("#model"),
        "n": 12,
        "seed": 5,
        "steps": 3,
        "sampler": None,
        "class": None,
        "seconds": 0,
    }
    assert pixels(whole).shape == (3 * 9 - 1, 4 * 9 - 1)

    again = open_page(page.url)
    done(again, "generate")
    assert np.array_equal(shown(again, "#generate .large"), steps[2])


def test_a_sampler_by_its_spec(open_page: Open, tmp_path: Path) -> None:
    """It says its steps itself, and a mistake in it is told."""
    page = open_page(refusals=1)
    page.locator("#generate-n").fill("2")
    page.locator("#generate-sampler").fill("jumps(times=(2.0, 0.5))")
    run(page, "generate")
    page.click("#generate .sheets > .grid .tile:nth-child(1)")
    assert page.locator("#generate .strip li img").count() == 3
    path = saved(page, "#generate [data-act=download]", tmp_path)
    assert settings(path)["sampler"] == "jumps(times=(2.0, 0.5))"
    assert settings(path)["steps"] == 3
    page.click("#generate .terminal summary")
    line = page.inner_text("#generate .terminal pre >> nth=0")
    assert "--sampler 'jumps(times=(2.0, 0.5))' --seed" in line
    page.locator("#generate-sampler").fill("jump")
    page.click("#generate form.controls .primary")
    page.wait_for_selector("text=unknown sampler 'jump'")


def test_a_model_with_a_null_class_is_guided(open_page: Open, tmp_path: Path) -> None:
    page = open_page(refusals=1)
    assert not page.is_visible("#generate-guidance")
    page.select_option("#model", "diffusion")
    page.locator("#generate-n").fill("2")
    page.locator("#generate-guidance").fill("2.5")
    run(page, "generate")
    page.click("#generate .sheets > .grid .tile:nth-child(1)")
    path = saved(page, "#generate [data-act=download]", tmp_path)
    assert settings(path)["sampler"].endswith("guidance=guided(w=2.5))")
    page.locator("#generate [name=guidance_low]").fill("0.3")
    page.click("#generate form.controls .primary")
    page.wait_for_selector("text=both noise levels")
    page.locator("#generate [name=guidance_high]").fill("5")
    run(page, "generate")
    page.click("#generate .terminal summary")
    line = page.inner_text("#generate .terminal pre >> nth=0")
    assert "--guidance 2.5" in line
    assert "--guidance-interval 0.3 5" in line
    page.locator("#generate [name=guidance_high]").fill("0.1")
    page.click("#generate form.controls .primary")
    page.wait_for_selector("text=low < high")


def test_an_image_is_varied_edited_and_interpolated_from(open_page: Open) -> None:
    page = open_page()
    page.check("#generate .classes input[value='7']")
    run(page, "generate")
    page.click("#generate .vary button")
    page.wait_for_selector("#generate .variations:not([hidden])")
    original = shown(page, "#generate .large")
    page.click("#generate .variations .tile:nth-child(2)")
    assert not np.array_equal(shown(page, "#generate .large"), original)
    assert page.is_disabled("#generate [data-act=from]")
    assert "no end of an interpolation" in page.inner_text("#generate .why")

    page.click("#generate .sheets > .grid .tile:nth-child(3)")
    third = shown(page, "#generate .large")
    page.click("#generate [data-act=edit]")
    page.wait_for_selector("#edit .layers:not([hidden])")
    assert np.array_equal(picture_before(page), third)
    assert page.is_checked("#edit .classes input[value='7']")

    page.click("#tab-generate")
    page.click("#generate [data-act=to]")
    done(page, "interpolate")
    assert page.input_value("#to-index") == "2"
    assert page.is_checked("#interpolate .classes input[value='7']")


def test_what_follows_from_an_image_is_made_as_it_was(open_page: Open) -> None:
    page = open_page()
    spec = "jumps(times=(2.0, 0.5))"
    page.locator("#generate-n").fill("2")
    page.fill("#generate-sampler", spec)
    run(page, "generate")
    page.fill("#generate-seed", "9")
    page.click("#generate .sheets > .grid .tile:nth-child(1)")
    link = dict(parse_qsl(urlsplit(page.url).fragment))
    assert (link["seed"], link["image"]) == ("0", "0"), "of what is seen, not of the form"
    first = shown(page, "#generate .large")

    page.click("#generate [data-act=from]")
    done(page, "interpolate")
    assert page.input_value("#interpolate-sampler") == spec
    apart = shown(page, "#interpolate .large").astype(int) - first
    assert np.abs(apart).max() <= 1

    page.click("#tab-generate")
    page.click("#generate [data-act=edit]")
    page.wait_for_selector("#edit .layers:not([hidden])")
    assert json.loads(page.input_value("#edit [name=source]"))["sampler"] == spec

    page.route("**/v1/images/edits", lambda route: None)  # which is never answered
    page.check("#edit [name=task][value=vary]")
    page.click("#edit .primary")
    page.wait_for_selector("#edit form.busy")
    page.click("#edit [data-source=blank]")
    assert page.locator("#edit form.busy").count() == 0, "it was of another picture"


def test_the_page_keeps_to_what_the_server_allows(open_page: Open, address: str) -> None:
    page = open_page(refusals=1)
    run(page, "generate")

    def few(route: Route) -> None:
        answer = route.fetch()
        body = answer.json()
        for model in body["data"]:
            model["max_n"] = 3
        route.fulfill(response=answer, json=body)

    no = {"error": {"message": "not today.", "param": None}}
    page.route("**/v1/models", few)
    page.route("**/v1/images/generations", lambda r: r.fulfill(status=400, json=no))
    page.goto("about:blank")  # and not only to another fragment
    page.goto(address)
    assert "not today" in page.wait_for_selector("#generate .message").inner_text()
    for slider in ("#generate-n", "#edit-n", "#interpolate-frames", "#compare-n"):
        assert page.get_attribute(slider, "max") == "3"
    assert page.text_content("#generate .vary button") == "Make 3 variations"


def test_inpaint_keeps_what_the_mouse_did_not_paint(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    take_one(page)
    before = picture_before(page)
    page.click("#edit .primary")
    assert "Paint over" in page.inner_text("#edit .message")
    drag(page, "canvas.mask", (0.3, 0.5), (0.7, 0.5))
    hole = painted(page)
    assert hole[3:5, 2:6].all()
    assert hole.sum() in range(8, 17)  # a brush of 2 pixels over half of the width
    run(page, "edit")
    after = pixels(saved(page, "#edit [data-act=download]", tmp_path))
    assert np.array_equal(after[~hole], before[~hole])
    assert (after[hole] != before[hole]).any()

    again = open_page(page.url)
    done(again, "edit")
    assert np.array_equal(shown(again, "#edit .after .large"), after)


def test_strokes_by_keyboard_on_a_blank_canvas_and_undo(open_page: Open) -> None:
    page = open_page()
    page.click("#tab-edit")
    page.check("#edit input[value=strokes]")
    page.click("[data-source=blank]")
    page.locator("#edit [data-tool=size]").fill("1")
    page.focus("canvas.strokes")
    for key in ("Space", "ArrowDown", "Space"):
        page.keyboard.press(key)
    seen = "() => document.querySelector('canvas.strokes').toDataURL()"
    drawn = pixels(page.evaluate(seen))
    assert np.argwhere(drawn).tolist() == [[4, 4], [5, 4]]
    page.click("#edit [data-tool=undo]")
    assert np.argwhere(pixels(page.evaluate(seen))).tolist() == [[4, 4]]
    run(page, "edit")
    assert shown(page, "#edit .after .large").shape == (8, 8)


def test_a_refusal_stands_beside_its_control_and_loses_nothing(
    open_page: Open, tmp_path: Path
) -> None:
    page = open_page(refusals=1)
    picture = tmp_path / "mine.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(picture)
    page.click("#tab-edit")
    page.set_input_files("[data-source=upload]", picture)
    page.wait_for_selector("#edit .layers:not([hidden])")
    page.check("#edit input[value=superresolve]")
    page.fill("#edit-factor", "3")
    page.click("#edit .primary")
    message = page.wait_for_selector("#edit .message")
    assert "factor" in message.inner_text()
    assert page.input_value("#edit-factor") == "3"
    assert "mine.png" in page.inner_text("#edit .before figcaption")
    page.fill("#edit-factor", "2")
    run(page, "edit")
    assert page.locator("#edit .message").count() == 0
    assert shown(page, "#edit .after .large").shape == (16, 16)

    page.set_input_files(
        "[data-source=upload]", {"name": "a.png", "mimeType": "image/png", "buffer": b"no"}
    )
    assert "a.png is not a picture" in page.wait_for_selector("#edit .message").inner_text()
    assert "mine.png" in page.inner_text("#edit .before figcaption")


def test_interpolate_fetches_once_and_slides(open_page: Open) -> None:
    page = open_page()
    page.click("#tab-interpolate")
    page.locator("#interpolate-frames").fill("5")
    sent: list[str] = []
    page.on("request", lambda r: sent.append(r.url) if r.method == "POST" else None)
    run(page, "interpolate")
    frames = []
    for number in range(5):
        page.locator("#frame").fill(str(number))
        frames.append(shown(page, ".film .large"))
    assert len(sent) == 1
    assert not np.array_equal(frames[0], frames[4])
    page.focus("#frame")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text(".transport output") == "4 / 5"
    page.click("[data-act=play]")
    playwright.expect(page.locator("#frame")).not_to_have_value("3")
    page.click("[data-act=play]")
    assert page.inner_text("[data-act=play]") == "Play"


def test_compare_from_one_seed_with_times(open_page: Open, tmp_path: Path) -> None:
    page = open_page()
    page.click("#tab-compare")
    page.locator("#compare-steps").fill("6")
    page.fill("#compare-n", "4")
    run(page, "compare")
    rows = page.locator(".comparison")
    assert [rows.nth(i).locator("h2").inner_text().split("\n")[0][:8] for i in range(3)] == [
        "One step",
        "Two step",
        "6 steps ",
    ]
    assert all(re.match(r"[\d.]+ m?s", t) for t in page.locator(".time").all_inner_texts())
    path = saved(page, "#compare [data-act=sheet]", tmp_path)
    assert pixels(path).shape == (3 * 9 - 1, 4 * 9 - 1)
    assert [row["steps"] for row in settings(path)] == [1, 2, 6]
    assert all(row["seconds"] > 0 for row in settings(path))


def test_without_a_teacher_the_page_says_how_to_serve_one(open_page: Open, address: str) -> None:
    with urllib.request.urlopen(f"{address}v1/models") as answer:
        served = json.load(answer)
    served["data"] = [m for m in served["data"] if m["kind"] == "consistency"]
    page = open_page()
    page.route("**/v1/models", lambda route: route.fulfill(json=served))
    page.reload()
    page.click("#tab-compare")
    assert "fewstep serve" in page.inner_text("#compare .why")
    run(page, "compare")
    assert page.locator(".comparison").count() == 2


def test_a_request_can_be_cancelled(open_page: Open, address: str) -> None:
    page = open_page(f"{address}#tab=generate")
    page.fill("#generate-seed", "7")
    page.route("**/v1/images/generations", lambda route: None)  # no answer ever
    page.click("#generate .primary")
    assert page.inner_text("#generate .primary") == "Cancel"
    page.click("#generate .primary")
    page.wait_for_selector("#generate .status:has-text('Cancelled')")
    assert page.is_visible("text=Nothing here yet")
    assert page.inner_text("#generate .primary") == "Generate"
    assert page.input_value("#generate-seed") == "7"

    page.unroute("**/v1/images/generations")
    run(page, "generate")
    before = shown(page, "#generate .large")
    page.fill("#generate-seed", "8")
    page.route("**/v1/images/generations", lambda route: None)
    page.click("#generate .primary")
    page.click("#generate .primary")
    page.wait_for_selector("#generate .status:has-text('Cancelled')")
    assert np.array_equal(shown(page, "#generate .large"), before)


def test_the_tabs_by_keyboard_and_the_terminal(open_page: Open) -> None:
    page = open_page()
    page.focus("#tab-generate")
    page.keyboard.press("ArrowRight")
    assert page.get_attribute("#tab-gallery", "aria-selected") == "true"
    assert page.is_visible("#gallery form")
    page.keyboard.press("ArrowLeft")
    page.click("#generate .terminal summary")
    line = page.inner_text("#generate .terminal pre >> nth=0")
    assert line.startswith("fewstep sample path/to/consistency.safetensors ")
    assert "--steps 2 --seed 0" in line
    unlabelled = page.evaluate(
        "[...document.querySelectorAll('input:not([type=hidden]), select')]"
        ".filter(e => !e.labels?.length && !e.ariaLabel).map(e => e.outerHTML)"
    )
    assert unlabelled == []
    page.click("text=The API")
    page.wait_for_url(re.compile("/docs/?$"))


def test_every_command_that_is_shown_parses(open_page: Open) -> None:
    page = open_page()
    page.click("#tab-edit")
    for task in page.locator("#edit [name=task]:enabled").all():
        task.check(force=True)
        check_commands(page, "edit")
    page.click("#tab-interpolate")
    page.fill("#to-seed", "0")  # the command line interpolates within one seed
    for tab in ("generate", "interpolate", "compare"):
        check_commands(page, tab)


def check_commands(page: Page, tab: str) -> None:
    lines = page.locator(f"#{tab} .terminal pre").first.text_content()
    assert lines
    for line in lines.split("\n"):
        program, *words = shlex.split(line)
        assert program == "fewstep"
        app.parse_args(words, exit_on_error=False, print_error=False)


def test_the_token_of_the_address_is_sent_but_not_shown(open_page: Open, address: str) -> None:
    page = open_page(f"{address}?token=correct-horse")
    with page.expect_request("**/v1/images/generations") as sent:
        run(page, "generate")
    assert sent.value.headers["authorization"] == "Bearer correct-horse"
    commands = page.locator("#generate .terminal pre").all_text_contents()
    assert "correct-horse" not in "".join(commands)
    assert "Bearer $FEWSTEP_TOKEN" in commands[1]


def test_a_phone_scrolls_down_only(open_page: Open) -> None:
    page = open_page(size=PHONE)
    for tab in ("generate", "interpolate", "compare", "edit"):
        page.click(f"#tab-{tab}")
        if tab == "edit":
            take_one(page)
            page.check("#edit input[value=vary]", force=True)
        run(page, tab)
        page.click(f"#{tab} .terminal summary")
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], tab


def test_a_finger_draws_and_does_not_scroll(open_page: Open) -> None:
    page = open_page(size=PHONE)
    take_one(page)
    page.locator("#edit [data-tool=size]").fill("1")
    page.locator("canvas.mask").evaluate("c => c.scrollIntoView({ block: 'center' })")
    before = page.evaluate("scrollY")
    stroke(page, "canvas.mask", (0.4, 0.2), (0.4, 0.4), (0.4, 0.7))
    assert page.evaluate("scrollY") == before
    assert np.argwhere(painted(page)).tolist() == [[y, 3] for y in range(1, 6)]
    page.click("#edit [data-tool=invert]")
    assert painted(page).sum() == 64 - 5


def test_the_link_of_another_model_says_so(open_page: Open, address: str) -> None:
    page = open_page(f"{address}#tab=generate&model=gone&seed=1&n=2&steps=1")
    assert '"gone", which is not served' in page.inner_text("#trouble")
    done(page, "generate")
    assert parse_qs(urlsplit(page.url).fragment)["seed"] == ["1"]


def test_models_of_other_projects_are_played_with(browser: Browser, tmp_path: Path) -> None:
    """Their files as the authors write them, served as they are."""
    errors: list[str] = []
    with served(foreign.served(tmp_path)) as address:
        page = browser.new_page(viewport=LAPTOP)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#facts:not(:empty)")
        page.locator("#generate-n").fill("4")
        run(page, "generate")
        assert page.locator("#generate .sheets > .grid .tile img").count() == 4
        take_one(page)
        drag(page, "canvas.mask", (0.3, 0.5), (0.7, 0.5))
        run(page, "edit")
        assert shown(page, "#edit .after .large").shape == (16, 16)
        page.select_option("#model", "many.pkl")
        page.click("#tab-generate")
        run(page, "generate")
        assert page.locator("#generate .sheets > .grid .tile img").count() == 4
        page.close()
    assert errors == []


def test_prompts_are_sent_and_shown(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text(
        "import torch\n\n\ndef encode(texts):\n"
        "    return torch.tensor([[float('red' in text), 1.0, 0.0] for text in texts])\n"
    )
    network = DiT((1, 8, 8), embeds=3, patch=4, width=32, blocks=1, heads=2)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    info = {"kind": "consistency", "encoder": f"{tmp_path / 'words.py'}:encode"}
    FlowMap(network, EDM(T=20.0), info=info).save(tmp_path / "words.safetensors")
    with served([tmp_path / "words.safetensors"]) as address:
        page = browser.new_page(viewport=LAPTOP)
        page.goto(address)
        page.wait_for_selector("#facts:not(:empty)")
        page.locator("#generate-n").fill("1")
        a_prompt_shows(page, "generate")
        page.click("#generate .settings summary")
        assert '"prompt": "a red cat"' in page.inner_text("#generate .settings pre")
        page.click("#tab-edit")
        page.click("#edit [data-source=blank]")
        page.check("#edit [name=task][value=vary]")
        a_prompt_shows(page, "edit")
        page.close()


def a_prompt_shows(page: Page, tab: str) -> None:
    """In the picture, and in the command that makes it."""
    run(page, tab)
    before = shown(page, f"#{tab} .large")
    page.fill(f"#{tab}-prompt", "a red cat")
    run(page, tab)
    assert np.abs(shown(page, f"#{tab} .large") - before).max() > 5
    page.click(f"#{tab} .terminal summary")
    assert "--prompt 'a red cat'" in page.inner_text(f"#{tab} .terminal pre >> nth=0")
