"""Pack what benchmarks/gpu.py needs on a machine that reaches no registry.

    python benchmarks/gpu_pack.py FOLDER --cifar10 data/cifar10 --fashion data/fashion-mnist

Downloads the wheels of what fewstep needs and a bare machine with torch, pyarrow and scikit-learn
lacks, for its Python, at the versions of constraints.txt, and copies the images and the feature
network.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = [
    "attrs",
    "cyclopts",
    "docstring_parser",
    "docutils",
    "rich",
    "rich-rst",
    "tensorboardX",
]
DATA = ("train.parquet", "resnet56.safetensors")
FASHION = "fashion-mnist"  # the folder of its IDX files
LIMIT = 60 * 2**20  # bytes


def pinned(name: str) -> str:
    """The package at the version of constraints.txt, for the newest Python there."""
    text = (ROOT / "constraints.txt").read_text()
    found = re.search(
        rf"^{re.escape(name)}==[^ ;]+(?= *(; python_version >=|$))", text, re.M | re.I
    )
    return name if found is None else found.group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cifar10", type=Path, help="folder with train.parquet and the ResNet-56")
    parser.add_argument("--fashion", type=Path, help="folder with Fashion-MNIST's IDX files")
    parser.add_argument("--python", default="3.12", help="of the machine")
    options = parser.parse_args()
    wheels, data = options.folder / "wheels", options.folder / "data"
    for folder in (wheels, data):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    words = ["--no-deps", "--only-binary=:all:", "--implementation", "cp", "-q", "-d", str(wheels)]
    words += ["--python-version", options.python, "--platform", "manylinux2014_x86_64"]
    packages = [pinned(name) for name in PACKAGES]
    subprocess.run([sys.executable, "-m", "pip", "download", *words, *packages], check=True)
    for name in DATA if options.cifar10 else ():
        shutil.copyfile(options.cifar10 / name, data / name)
    for path in sorted(options.fashion.glob("*-ubyte*")) if options.fashion else ():
        (data / FASHION).mkdir(exist_ok=True)
        shutil.copyfile(path, data / FASHION / path.name)
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"{options.folder}: {len(packages)} wheels, {size / 2**20:.1f} MiB")
    if size > LIMIT:
        sys.exit(f"more than {LIMIT / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
