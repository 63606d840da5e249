"""Scripts of parts, each a process with its own time limit, whose results are on disk at once."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_parts.stage import Stage

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent
THREADS = 5  # that compile in each part
ROWS = 8  # of a profile in the Markdown; the JSON has more
END = 12  # seconds that the summary takes at most
TEACHER = "teacher.safetensors"  # beside the results, for methods that are raced later


@dataclass
class Part:
    """A process that works on a part."""

    name: str
    process: subprocess.Popen[bytes]
    started: float
    deadline: float
    log: Path

    def stop(self) -> None:
        """End it and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Runner:
    """The parts of a script, their deadlines, and the files of results.

    Args:
        script: what is called once for each part, and whose name the results have.
        options: of its command line.
    """

    def __init__(self, script: Path, options: argparse.Namespace) -> None:
        self.script, self.out, self.options = script.resolve(), options.out, options
        self.started, out = time.time(), self.out
        self.work = Path(tempfile.mkdtemp(prefix="fewstep-gpu-"))
        self.ended: dict[str, dict[str, Any]] = {}
        out.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(self.work / "inductor"))
        os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(THREADS))
        os.environ.setdefault("FEWSTEP_CACHE", str(self.work / "cache"))
        os.environ.setdefault("OMP_NUM_THREADS", "1" if options.rehearse else "4")
        before = os.environ.get("PYTHONPATH", "")
        path = [str(ROOT / "src"), str(HERE), str(self.work / "site"), before]
        os.environ["PYTHONPATH"] = os.pathsep.join(path)

    @property
    def elapsed(self) -> float:
        return time.time() - self.started

    def install(self) -> None:
        """Unpack the wheels that came along; nothing is looked up anywhere."""
        carried = self.options.carried
        wheels = sorted((carried / "wheels").glob("*.whl")) if carried else []
        if not wheels:
            return
        words = ["-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade"]
        pip = [sys.executable, "-m", "pip", "install", *words]
        subprocess.run([*pip, "--target", str(self.work / "site"), *map(str, wheels)], check=False)

    def start(self, name: str, seconds: float, *more: str) -> Part:
        """Begin a part, with some seconds and more words for the command line."""
        deadline = min(time.time() + seconds, self.started + self.options.seconds - END)
        log = self.work / f"{name}.log"
        words = ["--part", name, "--out", str(self.work), "--deadline", str(deadline)]
        words += [*more, *["--rehearse"] * self.options.rehearse]
        if self.options.carried is not None:
            words += ["--carried", str(self.options.carried.resolve())]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, str(self.script), *words],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=ROOT,
            )
        print(f"{self.elapsed:5.0f} s  {name} begins", flush=True)
        return Part(name, process, time.time(), deadline, log)

    def finished(self, part: Part) -> bool:
        """Whether a part has ended, by itself or at its deadline; then its results are written."""
        late = time.time() > part.deadline
        if part.process.poll() is None and not late:
            return False
        part.stop()
        seconds = time.time() - part.started
        how = "stopped at its limit" if late else f"exit code {part.process.returncode}"
        self.ended[part.name] = {"seconds": round(seconds, 1), "ended": how}
        print(f"{self.elapsed:5.0f} s  {part.name}: {how} after {seconds:.0f} s", flush=True)
        self.write()
        return True

    def beside(self, names: list[str], seconds: float, *more: str) -> None:
        """Some parts at once, and nothing else."""
        working = [self.start(name, seconds, *more) for name in names]
        while working:
            working = [part for part in working if not self.finished(part)]
            time.sleep(0.1)

    def write(self) -> None:
        """All results so far."""
        parts = {path.stem: json.loads(path.read_text()) for path in self.work.glob("*.json")}
        whole = {"machine": machine(), "ended": self.ended, "parts": parts}
        (self.out / f"{self.script.stem}.json").write_text(json.dumps(whole, indent=1) + "\n")
        (self.out / f"{self.script.stem}.md").write_text(self.said(whole))
        for page in self.work.glob("*.html"):
            shutil.copyfile(page, self.out / page.name)
        with (self.out / "log.txt").open("w") as file:
            for path in sorted(self.work.glob("*.log")):
                text = path.read_text(errors="replace")
                file.write(f"===== {path.stem}\n{text[-200_000:]}\n")

    def said(self, whole: dict[str, Any]) -> str:
        """The results as Markdown."""
        return summary(whole)

    def end(self) -> int:
        """Show the results; the exit code."""
        self.write()
        print((self.out / f"{self.script.stem}.md").read_text()[-11_000:])
        return 0


def parser(what: str, seconds: float) -> argparse.ArgumentParser:
    """The command line that the scripts share."""
    found = argparse.ArgumentParser(description=what)
    found.add_argument("--out", type=Path, required=True, help="folder of the results")
    found.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU")
    found.add_argument("--carried", type=Path, help="folder that benchmarks/gpu_pack.py made")
    found.add_argument("--seconds", type=float, default=seconds, help="for everything")
    found.add_argument("--parts", nargs="*", help="only these; default all")
    found.add_argument("--part", help=argparse.SUPPRESS)
    found.add_argument("--deadline", type=float, default=0.0, help=argparse.SUPPRESS)
    return found


def stage_of(options: argparse.Namespace, quiet: tuple[int, ...] = ()) -> Stage:
    """Where a part that was started works."""
    out, name = options.out, options.part
    return Stage(
        out / f"{name}.json",
        out / "device.lock",
        options.deadline,
        options.rehearse,
        options.carried,
        quiet,
    )


def machine() -> dict[str, Any]:
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "card": torch.cuda.get_device_name() if on_gpu else f"CPU {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
    }


def summary(whole: dict[str, Any]) -> str:
    """The results as Markdown."""
    m = whole["machine"]
    system = f"torch {m['torch']}, Python {m['python']}, {m['cores']} cores"
    lines = [f"# {m['card']}", "", system, ""]
    lines += ["| part | seconds | |", "|---|---:|---|"]
    lines += [f"| {n} | {e['seconds']} | {e['ended']} |" for n, e in whole["ended"].items()]
    for name, records in sorted(whole["parts"].items()):
        lines += ["", f"## {name}", ""]
        for record in records:
            shown = {k: v for k, v in record.items() if k not in ("what", "top", "settings")}
            said = shown.pop("end", [])[-30:]
            lines.append(f"- **{record['what']}**: " + ", ".join(map(_shown, shown.items())))
            lines += [f"    {line}" for line in said]
            top = record.get("top", ())[:ROWS]
            lines += [f"    - {ms} ms, {n} x `{kernel}`" for kernel, ms, n in top]
    return "\n".join(lines) + "\n"


def _shown(item: tuple[str, Any]) -> str:
    key, value = item
    if isinstance(value, dict):
        inside = ", ".join(map(_shown, value.items()))
        return f"{key} ({inside})"
    return f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
