"""`fewstep reproduce fashion`, whole: the time that it takes, its scores and its report."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np

from fewstep.report.fashion import reproduce_fashion
from fewstep.stages.how import How
from gpu_pack import FASHION
from gpu_parts.stage import Stage

REHEARSED = 5.0  # seconds


def fashion(stage: Stage) -> None:
    """From the images that came along to the report, which is kept beside the results."""
    out, how = stage.result.with_name(FASHION), How(device=str(stage.device))
    began = time.time()
    if stage.rehearse:
        report = reproduce_fashion(out / "run", str(noise(out / "images")), REHEARSED, how=how)
    elif stage.carried is None:
        raise SystemExit("fashion needs --carried, packed with --fashion")
    else:
        report = reproduce_fashion(out / "run", str(stage.carried / "data" / FASHION), how=how)
    for result in report.results:
        scores = result.scores
        asked = scores.class_accuracy
        stage.report(
            f"{result.group}: {result.method}",
            nfe=result.nfe or 0,
            fd=scores.fd,
            fd_in_R=scores.fd / report.R,
            precision=scores.precision,
            recall=scores.recall,
            **({} if asked is None else {"asked_class": asked}),
        )
    stage.report("reproduce fashion", seconds=time.time() - began)
    shutil.copyfile(report.page, out.with_suffix(".html"))


def noise(folder: Path) -> Path:
    """IDX files of a few images of two classes, for a rehearsal."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, n in (("train", 80), ("t10k", 40)):
        images = rng.integers(0, 256, (n, 28, 28), np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", np.arange(n) % 2)):
            sizes = np.array(array.shape, ">i4").tobytes()
            head = bytes([0, 0, 8, array.ndim]) + sizes
            (folder / f"{split}-{name}-ubyte").write_bytes(head + array.astype(np.uint8).tobytes())
    return folder
