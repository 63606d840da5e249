"""Everything that only a GPU can tell, in one command within eight minutes: see benchmarks/gpu.md.

    python benchmarks/gpu.py --out results            # on a machine with a CUDA GPU
    python benchmarks/gpu.py --rehearse --out /tmp/x  # the same in seconds, tiny, on the CPU

Every part is a process of its own with its own time limit, and its results are on disk at once.
First come the tests, those that compile and the others side by side, and nothing beside them. Then
two lanes run side by side: in one the parts that only compute, one after another, in the other two
at a time of those that first compile for minutes. A lock lets one of them time the device at a
time, on cores that nobody else uses. The speedrun comes last, alone, and takes what time is left.
Writes gpu.json, gpu.md and log.txt.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TESTS = {"tests": "not compiled", "tests-compiled": "compiled"}  # and their keywords
FOR_TESTS = 150  # seconds
LIMITS = {  # seconds of each part, the lane that they share in order
    "kernels": 60,
    "choices": 50,
    "recorded": 45,
    "eager": 60,
    "adm": 60,
    "sampling": 60,
}
COMPILED = {  # batches of compiled steps
    "edm": 512,
    "ct": 512,
    "ect": 256,
    "cd": 128,
    "edm-any": 512,
    "ct-any": 512,
    "ct-whole": 512,
}
COMPILING = ["compiled-ct", "graphs", "compiled-edm", "compiled-ect"]
# those that there is no time for in a whole run
BY_NAME = ["compiled-ct-any", "compiled-ct-whole", "compiled-edm-any", "compiled-cd"]
SLOTS = 2  # parts that compile side by side
THREADS = 5  # that compile in each of them
SPEEDRUN = 145  # seconds that are kept for it
ROWS = 8  # of a profile in gpu.md; gpu.json has more
END = 12  # seconds that the summary takes at most


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


class Run:
    """The parts, their deadlines, and the files of results.

    Args:
        out: where gpu.json, gpu.md and log.txt go.
        options: of the command line.
    """

    def __init__(self, out: Path, options: argparse.Namespace) -> None:
        self.out, self.options, self.started = out, options, time.time()
        self.work = Path(tempfile.mkdtemp(prefix="fewstep-gpu-"))
        self.ended: dict[str, dict[str, Any]] = {}
        last = SPEEDRUN if "speedrun" in (options.parts or ["speedrun"]) else END
        self.lane = options.seconds - last  # seconds after which both lanes must have ended
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

    def install(self, wheels: list[Path]) -> None:
        """Unpack the wheels that came along; nothing is looked up anywhere."""
        if not wheels:
            return
        words = ["-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade"]
        pip = [sys.executable, "-m", "pip", "install", *words]
        subprocess.run([*pip, "--target", str(self.work / "site"), *map(str, wheels)], check=False)

    def start(self, name: str, seconds: float) -> Part:
        deadline = min(time.time() + seconds, self.started + self.options.seconds - END)
        log = self.work / f"{name}.log"
        words = ["--part", name, "--out", str(self.work), "--deadline", str(deadline)]
        words += ["--rehearse"] * self.options.rehearse
        if self.options.carried is not None:
            words += ["--carried", str(self.options.carried.resolve())]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).resolve()), *words],
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

    def lanes(self, lane: list[str], beside: list[str]) -> None:
        """One part of the lane at a time, and beside it two of those that compile."""
        waiting, compiling, working = list(lane), list(beside), list[Part]()
        current: Part | None = None
        while waiting or compiling or working or current:
            if current is None and waiting:
                name = waiting.pop(0)
                current = self.start(name, LIMITS[name])
            while compiling and len(working) < SLOTS:
                working.append(self.start(compiling.pop(0), self.lane - self.elapsed))
            if current is not None and self.finished(current):
                current = None
            working = [part for part in working if not self.finished(part)]
            if self.elapsed > self.lane:
                waiting, compiling = [], []
            time.sleep(0.1)

    def beside(self, names: list[str], seconds: float) -> None:
        """Some parts at once, and nothing else."""
        working = [self.start(name, seconds) for name in names]
        while working:
            working = [part for part in working if not self.finished(part)]
            time.sleep(0.1)

    def write(self) -> None:
        """All results so far."""
        parts = {path.stem: json.loads(path.read_text()) for path in self.work.glob("*.json")}
        whole = {"machine": machine(), "ended": self.ended, "parts": parts}
        (self.out / "gpu.json").write_text(json.dumps(whole, indent=1) + "\n")
        (self.out / "gpu.md").write_text(summary(whole))
        with (self.out / "log.txt").open("w") as file:
            for path in sorted(self.work.glob("*.log")):
                text = path.read_text(errors="replace")
                file.write(f"===== {path.stem}\n{text[-200_000:]}\n")


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


def run_part(name: str, options: argparse.Namespace) -> int:
    """Work on a part in this process."""
    quiet = () if name == "speedrun" else set_cores_aside()
    if name in TESTS:
        # twice, since the project's settings have a -q
        words = ["-vv", "--no-header", "--tb=short", "--show-capture=no", "-k", TESTS[name]]
        words += ["-m", "gpu", "--durations=12", "-p", "no:cacheprovider"]
        words += ["-o", "faulthandler_timeout=60"]
        tests = [ROOT / "tests/test_gpu.py", ROOT / "tests/test_objectives.py"]
        return _pytest([*words, *map(str, tests)], options.out / f"{name}.json")
    from gpu_parts import kernels, sampling, speedrun, training
    from gpu_parts.stage import Stage

    carried = options.carried
    lock = options.out / "device.lock"
    deadline = options.deadline
    result = options.out / f"{name}.json"
    stage = Stage(result, lock, deadline, options.rehearse, carried, quiet)
    parts: dict[str, Callable[[Stage], None]] = {
        "eager": training.eager,
        "choices": training.choices,
        "adm": training.adm,
        "graphs": training.graphs,
        "kernels": kernels.kernels,
        "recorded": training.recorded,
        "sampling": sampling.sampling,
        "speedrun": speedrun.speedrun,
    }
    if name in parts:
        parts[name](stage)
    elif name == "small":
        for part in ("kernels", "recorded", "eager", "choices", "adm", "graphs", "sampling"):
            parts[part](stage)
        training.compiled(stage, "edm", 4)
    else:
        method = name.removeprefix("compiled-")
        training.compiled(stage, method, COMPILED[method])
    return 0


def set_cores_aside() -> tuple[int, ...]:
    """Keep this process and those that it starts off a quarter of the cores; which they are."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 8:
        return ()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[len(cores) // 4 :])
    return tuple(cores[: len(cores) // 4])


def _pytest(words: list[str], result: Path) -> int:
    """Run tests; what they have said so far is kept, the name of the one that runs included."""
    started, text = time.time(), ""
    command = [sys.executable, "-u", "-m", "pytest", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        for chunk in iter(partial(process.stdout.read1, 65_536), b""):
            print(chunk.decode(errors="replace"), end="", flush=True)
            text += chunk.decode(errors="replace")
            said = [line.rstrip()[:300] for line in text.splitlines() if " PASSED " not in line]
            record = {"what": "pytest -m gpu", "seconds": time.time() - started, "end": said[-60:]}
            result.write_text(json.dumps([record]))
    return process.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--carried", type=Path, help="folder that benchmarks/gpu_pack.py made")
    parser.add_argument("--seconds", type=float, default=470, help="for everything")
    parser.add_argument("--parts", nargs="*", help="only these; default all")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        return run_part(options.part, options)
    run = Run(options.out, options)
    run.install(sorted((options.carried / "wheels").glob("*.whl")) if options.carried else [])
    beside = [*COMPILING, *BY_NAME, "small"]
    chosen = options.parts or [*TESTS, *LIMITS, *COMPILING, "speedrun"]
    if options.rehearse and not options.parts:  # the same parts in fewer processes
        beside, chosen = ["small"], [*TESTS, "small", "speedrun"]
    run.beside([n for n in TESTS if n in chosen], FOR_TESTS)
    run.lanes([n for n in LIMITS if n in chosen], [n for n in beside if n in chosen])
    if "speedrun" in chosen:
        run.beside(["speedrun"], options.seconds)
    run.write()
    print((options.out / "gpu.md").read_text()[-11_000:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
