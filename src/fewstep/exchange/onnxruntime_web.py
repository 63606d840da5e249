"""onnxruntime-web, which runs ONNX graphs in a browser: two files of the package of this name.

They come from npm's registry, in the version and with the content that stand here, and are kept in
the cache; or from a folder or an archive that the user has.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from fewstep.cache import cache_folder
from fewstep.errors import FewstepError
from fewstep.files import replacing

NAME, VERSION = "onnxruntime-web", "1.22.0"
INTEGRITY = (
    "sha512-Ud/+EBo6mhuaQWt/OjaOk0iNWjXqJoeeMFr6xQEERZdIZH2O"
    "WpGzuujz7lfuOBjUa6TEE/sc4nb7Da5dNL34fg=="
)
"""Of the archive, as npm writes it in a lock file."""
FILES = {
    "ort.js": "ort.wasm.min.mjs",
    "engine.js": "ort-wasm-simd-threaded.mjs",
    "engine.wasm": "ort-wasm-simd-threaded.wasm",
}
"""What is kept, by the name that it has here, whose endings every web server knows: the interface,
the engine in WebAssembly with SIMD, and what loads it."""
SHA256 = {
    "ort.js": "6ef726f355b791129f7ddf3f62e7877a16b9b777abe87004b8ab306e6b9cf265",
    "engine.js": "30dd851d9c00622940500f71ddd2ff8820c5cb65270816080175b958705385a8",
    "engine.wasm": "71aef04959c5c1b6de461b6538e2058e306610034a85aad2742d0c7fd4533fe4",
}
"""Of these files, by which those in the cache are known to be whole."""
SECONDS = 60  # without a byte
HINT = "give --ort, a folder or a .tgz of onnxruntime-web"


@dataclass(frozen=True)
class Runtime:
    """The files of a version, by the names that they have here.

    Args:
        version: of onnxruntime-web; None where a folder does not say it.
        files: contents.
    """

    version: str | None
    files: dict[str, bytes]


def runtime(given: Path | None = None) -> Runtime:
    """The files given, those of the cache, or those of npm's registry.

    Raises:
        FewstepError: a folder or archive without them; no registry, or another content than it
            should have.
    """
    if given is not None:
        return _of_folder(given) if given.is_dir() else _of_archive(_read(given), str(given))
    folder = cache_folder() / f"{NAME}-{VERSION}"
    kept = {name: _kept(folder / name) for name in FILES}
    if {name: hashlib.sha256(content).hexdigest() for name, content in kept.items()} == SHA256:
        return Runtime(VERSION, kept)
    fetched = _of_archive(download(registry()), f"{NAME} {VERSION}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in fetched.files.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)
    return fetched


def _kept(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def integrity(content: bytes) -> str:
    """The hash of an archive, as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def download(registry: str) -> bytes:
    """The archive of `VERSION` from a registry.

    Raises:
        FewstepError: it cannot be had, or has another hash than `INTEGRITY`.
    """
    url = f"{registry.rstrip('/')}/{NAME}/-/{NAME}-{VERSION}.tgz"
    if urlsplit(url).scheme not in ("http", "https"):
        raise FewstepError(f"npm's registry is {registry!r}, which is no web address: {HINT}.")
    try:
        with urlopen(url, timeout=SECONDS) as answer:
            content = answer.read()
    except (URLError, OSError, ValueError) as error:
        why = getattr(error, "reason", None) or error
        raise FewstepError(f"cannot fetch {NAME} {VERSION} from {url}: {why}; {HINT}.") from error
    if integrity(content) != INTEGRITY:
        raise FewstepError(
            f"{url} has another content than {NAME} {VERSION}: its hash is {integrity(content)}, "
            f"and should be {INTEGRITY}; {HINT}."
        )
    return content


def registry() -> str:
    """The registry that npm is set to: its variable, its files of settings, or what it says.

    Raises:
        FewstepError: none is known.
    """
    found = _of_environment() or _of_settings() or _of_npm()
    if not found:
        raise FewstepError(
            f"no registry of npm is known from which {NAME} {VERSION} could come: install npm, set "
            f"npm_config_registry to the registry's address, or {HINT}."
        )
    return found


def _of_environment(name: str = "registry") -> str | None:
    """A setting of npm in the environment, whose names it takes in either case."""
    given = {key.lower(): value for key, value in os.environ.items()}
    return given.get(f"npm_config_{name}") or None


def _of_settings() -> str | None:
    """The registry in .npmrc, of this folder or of the user."""
    own = _of_environment("userconfig")
    with suppress(OSError, RuntimeError, UnicodeDecodeError):
        for path in (Path(".npmrc"), Path(own) if own else Path.home() / ".npmrc"):
            for line in path.read_text().splitlines() if path.is_file() else ():
                name, _, value = line.partition("=")
                if name.strip() == "registry" and value.strip():
                    return value.strip().strip("\"'")
    return None


def _of_npm() -> str | None:
    npm = shutil.which("npm")
    if npm is None:
        return None
    asked = [npm, "config", "get", "registry"]
    with suppress(OSError, subprocess.TimeoutExpired):
        said = subprocess.run(asked, capture_output=True, text=True, timeout=SECONDS)
        if said.returncode == 0 and said.stdout.strip().startswith("http"):
            return said.stdout.strip()
    return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FewstepError(f"cannot read --ort {path}: {error.strerror or error}.") from error


def _of_folder(folder: Path) -> Runtime:
    """From the package's folder, or its `dist`."""
    package = folder if (folder / "dist").is_dir() else folder.parent
    places = {here: package / "dist" / there for here, there in FILES.items()}
    if not (folder / "dist").is_dir():
        places = {here: folder / there for here, there in FILES.items()}
    for path in places.values():
        if not path.is_file():
            raise FewstepError(f"--ort {folder} has no {path.name}: it is no {NAME}.")
    about = package / "package.json"
    version = _version(about.read_bytes()) if about.is_file() else None
    return Runtime(version, {here: path.read_bytes() for here, path in places.items()})


def _of_archive(content: bytes, name: str) -> Runtime:
    try:
        with tarfile.open(fileobj=BytesIO(content), mode="r:*") as archive:
            files = {
                here: _member(archive, f"package/dist/{there}") for here, there in FILES.items()
            }
            return Runtime(_version(_member(archive, "package/package.json")), files)
    except KeyError as error:
        raise FewstepError(f"{name} has no {error.args[0]}: it is no archive of {NAME}.") from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise FewstepError(f"{name} is no archive of {NAME}: {error}.") from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    """One file of an archive; nothing is unpacked.

    Raises:
        KeyError: there is none; its argument is the name.
    """
    try:
        file = archive.extractfile(name)
    except KeyError:
        file = None
    if file is None:
        raise KeyError(name)
    return file.read()


def _version(about: bytes) -> str | None:
    with suppress(ValueError, AttributeError):
        return str(json.loads(about).get("version")) or None
    return None
