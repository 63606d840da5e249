"""Trainings and the gallery on the page, in a real browser."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep import EDM, MLP, FlowMap, save_images
from test_page import PHONE, browser, open_page, pixels, saved, settings
from test_watch import begin, held, lines, row

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright for Python")
uvicorn = pytest.importorskip("uvicorn", reason="needs the serve extra")
Page = playwright.Page
Open = Callable[..., Page]

__all__ = ["browser", "open_page"]  # fixtures
LOG = "metrics.jsonl"


def rows(last: int) -> list[dict[str, Any]]:
    made = []
    for k in range(50, last + 1, 50):
        made += [row(k, loss=100.0 / k) | {"lr": 1e-3, "gradient_norm": 0.5, "mu": 0.9}]
        if k % 100 == 0:
            made.append({"step": k, "energy_distance": 10.0 / k, "energy_distance_error": 0.01})
    return made


def sampled(path: Path, *steps: int) -> None:
    (path / "samples").mkdir(exist_ok=True)
    for step in steps:
        images = torch.full((64, 1, 8, 8), step % 256, dtype=torch.uint8)
        save_images(images, path / "samples" / f"step-{step:08d}.png")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """Where a server answers that has two models and watches a folder of runs, and one run."""
    from fewstep.serving import Engine, Shelf
    from fewstep.serving.app import create_app
    from fewstep.serving.neighbours import TrainingImages
    from fewstep.serving.watched import Runs

    save_images(torch.arange(40 * 64).reshape(40, 1, 8, 8).to(torch.uint8), home / "data.npz")
    begin(home / "fit" / "teacher", *rows(200))
    sampled(home / "fit" / "teacher", 100, 200)
    mine = begin(home / "mine", *rows(100), data=str(home / "data.npz"))
    held(mine)
    torch.manual_seed(0)
    models = {}
    for name, kind in (("mine", "consistency"), ("other", "diffusion")):
        network = MLP((1, 8, 8), num_classes=3, width=8, blocks=1)
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.3)
        models[name] = FlowMap(network, EDM(T=20.0), info={"kind": kind}).eval()
    shelf = Shelf(models, places={"mine": mine})
    runs = Runs({"fit": home / "fit", "mine": mine})
    training = TrainingImages(shelf.places)
    app = create_app(Engine(models), shelf, runs=runs, training=training)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(20)


def far(page: Page, name: str) -> str:
    return page.inner_text(f".run:has(input[value='{name}']) .far")


def drawn(page: Page, chart: int = 0) -> int:
    """Curves of a chart that have points."""
    return page.locator(".charts.main .chart").nth(chart).locator("path.curve[d^=M]").count()


def test_a_training_is_watched_and_seeds_make_a_wall(
    open_page: Open, address: str, home: Path
) -> None:
    page = open_page(f"{address}#tab=watch")
    page.wait_for_selector(".charts.main path.curve[d^=M]")
    assert drawn(page) == 2
    titles = page.locator(".charts.main h2").all_inner_texts()
    assert titles[0].startswith("Loss")
    assert len(titles) == 5
    assert far(page, "mine") == "100 of 400 steps, 30 s left"
    assert "stopped at 200" in far(page, "fit/teacher")
    page.evaluate("document.querySelector('.run input[value=mine]').mine = true")
    with (home / "mine" / LOG).open("a") as file:
        file.write(lines(*rows(200)[3:]) + '{"step": 2')
    page.wait_for_function(
        "() => document.querySelector('#watch').innerText.includes('200 of 400 steps, 20 s left')"
    )
    assert page.evaluate("document.querySelector('.run input[value=mine]').mine"), "in its place"
    page.wait_for_selector(".sheets-of-runs img")
    assert page.inner_text(".sharpen output") == "step 200"

    page.click("#tab-gallery")
    page.wait_for_selector("#gallery .tile:nth-child(1) img")
    page.wait_for_function("() => document.querySelectorAll('#gallery .tile img').length > 12")
    page.locator("#gallery .tile").nth(3).click()
    assert "seed 3" in page.inner_text("#gallery .caption")
    page.click("#gallery [data-act=neighbours]")
    page.wait_for_selector("#gallery .neighbours li img")
    assert page.locator("#gallery .neighbours li").count() == 8


@pytest.mark.slow
def test_curves_follow_a_run_that_goes_back_and_one_that_is_removed(
    open_page: Open, address: str, home: Path
) -> None:
    path = begin(home / "fit" / "student", *rows(400))
    held(path)
    page = open_page(f"{address}#tab=watch&only=fit/student&smoothing=0.5&scale=log")
    page.wait_for_function(
        "() => document.querySelectorAll('.charts.main path.curve[d^=M]').length == 5"
    )
    assert page.locator(".charts.main .chart").first.locator("path.raw").count() == 1
    assert " · log" in page.locator(".charts.main h2").first.inner_text()
    assert page.is_checked("input[value='fit/student']")
    assert not page.is_checked("input[value=mine]")
    page.locator(".charts.main .plot").first.hover()
    assert "student" in page.locator(".charts.main .values").first.inner_text()
    (path / LOG).write_text(lines(*rows(150)))
    page.wait_for_function(
        "() => document.querySelector('#watch').innerText.includes('150 of 400')"
    )
    begin(home / "fit" / "later", *rows(50))  # a stage that begins now
    page.wait_for_selector("input[value='fit/later']")
    shutil.rmtree(path)
    page.wait_for_function(
        "() => document.querySelector('#watch').innerText.includes('its folder is gone')"
    )
    assert drawn(page) >= 1
    page.click("#watch [data-act=none]")
    page.wait_for_selector("#watch .stage > .empty:not([hidden])")
    assert "No run is chosen" in page.inner_text("#watch .stage > .empty")
    page.click("#watch [data-act=all]")
    page.wait_for_selector(".charts.main path.curve[d^=M]")
    shutil.rmtree(home / "fit" / "later")


@pytest.mark.slow
def test_samples_play_from_the_first_step_to_the_last(
    open_page: Open, address: str, home: Path
) -> None:
    page = open_page(f"{address}#tab=watch&only=fit/teacher")
    page.wait_for_selector(".sheets-of-runs img")
    page.fill("[name=sample]", "0")
    page.wait_for_function("() => document.querySelector('.sharpen output').value === 'step 100'")
    page.click("#watch [data-act=play]")
    page.wait_for_function("() => document.querySelector('.sharpen output').value === 'step 200'")
    sampled(home / "fit" / "teacher", 300)  # of a run that goes on, and the newest is followed
    with (home / "fit" / "teacher" / LOG).open("a") as file:
        file.write(lines(row(300)))
    page.wait_for_function(
        "() => document.querySelector('.sharpen output').value === 'step 300'", timeout=30_000
    )


@pytest.mark.slow
def test_the_same_noise_goes_through_all_models(
    open_page: Open, address: str, tmp_path: Path
) -> None:
    page = open_page(f"{address}#tab=gallery&of=all&seed=40&class=2")
    page.wait_for_function("() => document.querySelectorAll('#gallery .tile img').length >= 8")
    assert page.locator("#gallery .beside h3").all_inner_texts() == [
        "mine\n1 step",
        "other\n18 steps",
    ]
    page.locator("#gallery .tile").nth(3).click()
    assert page.inner_text("#gallery .caption") == "other · seed 41 · class 2 · 18 steps"
    assert "served as a model alone" in page.inner_text("#gallery .neighbours .why")
    file = saved(page, "#gallery [data-act=download]", tmp_path)
    assert (settings(file)["seed"], settings(file)["model"]) == (41, "other")
    page.locator("#gallery .tile").nth(2).click()
    wall = pixels(page.locator("#gallery .tile img").nth(2).get_attribute("src"))
    page.click("#gallery [data-act=seed]")
    page.wait_for_selector("#generate form.controls:not(.busy) .status:not(:empty)")
    assert page.input_value("#generate-seed") == "41"
    page.wait_for_selector("#generate .grid img")
    page.fill("#generate-steps", "1")
    page.click("#generate .primary")
    page.wait_for_selector("#generate form.controls:not(.busy) .status:not(:empty)")
    assert (pixels(page.locator("#generate .grid img").first.get_attribute("src")) == wall).all()


@pytest.mark.slow
def test_the_page_opens_with_pictures_unless_somebody_was_faster(open_page: Open) -> None:
    page = open_page()
    page.wait_for_selector("#generate .grid img")
    made = page.locator("#generate .grid .tile").count()
    assert made == int(page.input_value("#generate-n")) <= 20
    assert "#" not in page.url
    page = open_page()
    page.fill("#generate-seed", "9")
    page.click("#generate .primary")
    page.wait_for_selector("#generate form.controls:not(.busy) .status:not(:empty)")
    page.wait_for_timeout(2500)
    assert "seed 9" in page.inner_text("#generate .caption")
    assert page.locator("#generate .grid img").count() == 20


@pytest.mark.slow
@pytest.mark.parametrize("tab", ["watch", "gallery"])
def test_a_phone_scrolls_down_only(tab: str, open_page: Open, address: str) -> None:
    page = open_page(f"{address}#tab={tab}", size=PHONE)
    page.click(f"#tab-{tab}")
    page.wait_for_selector(f"#{tab} img")
    if tab == "gallery":
        page.locator("#gallery .tile").first.click()
        assert page.is_visible("#gallery .detail")
        page.click("#gallery [data-act=close]")
        assert not page.is_visible("#gallery .detail")
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
