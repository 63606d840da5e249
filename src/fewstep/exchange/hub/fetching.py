"""Models of the Hugging Face hub: ``hub:OWNER/NAME[/FILE][@REVISION]`` as a folder on this machine.

The hub's own library fetches, keeps and authorises: ``HF_ENDPOINT``, ``HF_HOME``, ``HF_TOKEN`` and
``HF_HUB_OFFLINE`` mean what they mean to it. A branch or a tag is resolved to a commit once in a
process, so that all parts of a program see the same files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path, PurePath
from typing import Any

from fewstep.cache import cache_folder
from fewstep.errors import FewstepError, listed, refusal
from fewstep.exchange.hub.files import DESCRIPTIONS, chosen, is_like
from fewstep.files import read_json
from fewstep.hub_name import HUB, NAMED, HubName
from fewstep.hub_name import is_hub as is_hub
from fewstep.progress import on_terminal, working

NEEDS = "models of the hub need: pip install 'fewstep[hub]'"


@dataclass(frozen=True)
class Fetched:
    """Files of a repository of the hub on this machine.

    Args:
        folder: with the files, as they are in the repository.
        repo: its name.
        revision: the full hash of the commit.
        inside: what of it is meant: a file or a folder; "" for all of it.
    """

    folder: Path
    repo: str
    revision: str
    inside: str = ""

    @property
    def path(self) -> Path:
        """The file or folder that was asked for."""
        return self.folder / self.inside

    @property
    def name(self) -> str:
        """The name by which the very same files are found again."""
        return str(HubName(self.repo, self.inside, self.revision))

    @cached_property
    def card(self) -> dict[str, Any]:
        """What the model's card says in its front matter; nothing where there is none."""
        return front_matter(self.folder)

    @property
    def licence(self) -> str | None:
        """The licence that the card names."""
        return licence_in(self.card)


def fetched(name: str | PurePath, patterns: Sequence[str] | None = None) -> Fetched:
    """The files of ``hub:NAME[@REVISION]``, from the hub or from its library's cache.

    Args:
        name: which; also the address of a model's page.
        patterns: which files, such as ``("*.json", "unet/*")``; default those of a model, its
            weights once and in the safest format.

    Raises:
        FewstepError: no such model, file or revision; no right to it; no connection, and nothing in
            the cache; files of no model that is known.
    """
    return _fetched(HubName.of(name), None if patterns is None else tuple(patterns))


def forget() -> None:
    """Ask the hub again what its branches and tags mean, as after something was pushed."""
    _fetched.cache_clear()


def local(name: str | PurePath) -> Path:
    """The place on this machine that a name stands for; a path is itself."""
    return fetched(name).path if is_hub(name) else Path(name)


def kept(name: str | PurePath) -> Path:
    """The folder for what this machine finds out about a model of the hub, such as time points."""
    found = fetched(name)
    stem = "--".join([*found.repo.split("/"), *filter(None, found.inside.split("/"))])
    return cache_folder() / "hub" / stem


@lru_cache(maxsize=64)
def _fetched(name: HubName, patterns: tuple[str, ...] | None) -> Fetched:
    with in_words(name), nullcontext() if on_terminal() else working(f"fetching {name}"):
        repository = _Repository.of(name)
        files = repository.files
        if patterns is not None:
            return repository.download([file for file in files if is_like(file, patterns)])
        config = repository.table(f"{name.inside}/config.json".lstrip("/"))
        pick = chosen(files, name.inside, config, str(name))
        small = [file for file in files if is_like(file, DESCRIPTIONS)]
        if small:
            _check_pipeline(repository.download(small), name)
        return replace(repository.download([*small, *pick.files]), inside=pick.inside)


@dataclass(frozen=True)
class _Repository:
    """The names of a commit's files, and whether only the library's cache can give them."""

    name: HubName
    commit: str
    files: tuple[str, ...]
    cached: bool = False

    @classmethod
    def of(cls, name: HubName) -> _Repository:
        """What the hub says; without a connection, what is in the cache."""
        hub, busy = library(), None
        try:
            info = hub.HfApi().model_info(name.repo, revision=name.revision)
            return cls(name, info.sha, tuple(file.rfilename for file in info.siblings or ()))
        except Exception as error:
            if _is_answer(error):
                raise
            busy = error if _status(error) in BUSY else None
        try:
            folder = Path(_snapshot(name, name.revision, (), cached=True))
        except Exception as error:
            raise busy or error from None
        return cls(name, folder.name, tuple(_cached_names(name, folder)), cached=True)

    def download(self, files: Sequence[str]) -> Fetched:
        """Files of the commit. The branch or tag that was asked for is remembered for the cache."""
        folder = Path(_snapshot(self.name, self.name.revision, files, self.cached))
        if folder.name != self.commit:  # somebody pushed in between
            folder = Path(_snapshot(self.name, self.commit, files, self.cached))
        return Fetched(folder, self.name.repo, self.commit, self.name.inside)

    def table(self, file: str) -> dict[str, Any]:
        """The values of a JSON file; none where there is no such file."""
        if file not in self.files:
            return {}
        return read_json(self.download([file]).folder / file, _table, "a table of values")


def _check_pipeline(found: Fetched, name: HubName) -> None:
    """Raise `FewstepError` for a pipeline that is not known, before its weights are fetched."""
    from fewstep.exchange.diffusers.folder import is_folder, read_folder
    from fewstep.exchange.diffusers.reading import MODULES
    from fewstep.exchange.diffusers.writing import own_weights

    if not is_folder(found.path) or own_weights(found.path) is not None:
        return
    try:
        read_folder(found.path, MODULES)
    except FewstepError as error:
        raise FewstepError(str(error).replace(str(found.path), str(name))) from error


def _cached_names(name: HubName, folder: Path) -> list[str]:
    """All files of a commit, where the cache knows them; else those that it has."""
    hub = library()
    with suppress(Exception):  # an older library, or a commit whose files it has not listed
        tree = hub.get_cached_repo_tree(name.repo, revision=folder.name)
        return [file.path for file in tree]
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.relative_to(folder).as_posix() for path in files]


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _snapshot(name: HubName, revision: str | None, files: Sequence[str], cached: bool) -> str:
    return library().snapshot_download(
        name.repo,
        revision=revision,
        allow_patterns=list(files),
        local_files_only=cached,
        tqdm_class=_bar(),
    )


def _bar() -> Any:
    """The library's bars, where somebody sees them move."""
    from huggingface_hub.utils.tqdm import tqdm

    class Silent(tqdm):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "disable": True})

    return tqdm if on_terminal() else Silent


def _status(error: Exception) -> int | None:
    """The status of the hub's answer; None where it gave none."""
    found: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return found


def _is_answer(error: Exception) -> bool:
    """Whether an error is what the hub answered, rather than that it could not be reached."""
    status = _status(error)
    refused = status is not None and status < 500 and status not in BUSY
    return isinstance(error, ValueError) or refused


BUSY = (408, 429)
"""Answers of a hub that has no time: a timeout, and too many requests of one machine."""


def front_matter(folder: Path) -> dict[str, Any]:
    """The YAML at the beginning of a folder's README.md; nothing where there is none."""
    card = folder / "README.md"
    if not card.is_file():
        return {}
    try:
        return library().metadata_load(card) or {}
    except Exception:  # somebody else's card is no reason not to read a model
        return {}


def licence_in(card: Mapping[str, Any]) -> str | None:
    """The licence that a card's front matter names; None where it says of none which it is."""
    named = card.get("license_name") or card.get("license")
    return named if isinstance(named, str) and names_licence(named) else None


def names_licence(name: str) -> bool:
    """Whether a name is that of a licence: the hub's ``unknown`` and ``other`` are of none."""
    return name.strip().lower() not in ("", "unknown", "other")


def library() -> Any:
    """The hub's own library.

    Raises:
        FewstepError: it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.constants
    except ImportError as error:
        raise FewstepError(NEEDS) from error
    return huggingface_hub


@contextmanager
def in_words(name: HubName) -> Iterator[None]:
    """Inside, what the library raises is a `FewstepError` of one line."""
    try:
        yield
    except FewstepError:
        raise
    except Exception as error:  # the library raises a dozen kinds for one missing connection
        raise _refusal(name, error) from error


def _refusal(name: HubName, error: Exception) -> FewstepError:
    from huggingface_hub import errors

    shown = str(replace(name, inside=""))
    where = f"{library().constants.ENDPOINT}/{name.repo}"
    if isinstance(error, errors.GatedRepoError):
        return FewstepError(
            f"{shown} is only for those who have accepted its conditions: accept them at {where}, "
            f"and {_with_token()}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return FewstepError(f"{replace(name, revision=None)} has no revision {name.revision!r}.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return FewstepError(
            f"there is no model {name.repo!r} at {where}, or it is private: check the name, or "
            f"{_with_token()}.{_other_kind(name)}"
        )
    if isinstance(error, errors.HFValidationError):
        return FewstepError(f"{shown} names no model of the hub ({short(error)}): write {NAMED}.")
    if isinstance(error, errors.LocalEntryNotFoundError):
        return FewstepError(f"{shown} is not in the cache, and {unreached()}.")
    if isinstance(error, OSError) and error.errno is not None:
        return refusal(error)
    return FewstepError(f"cannot fetch {shown} from {where}: {short(error)}.")


def _with_token() -> str:
    """What to do about a right that is missing."""
    if library().get_token():
        return "use a token that may read it: HF_TOKEN, or hf auth login"
    return "give a token that may read it: set HF_TOKEN, or run hf auth login"


def unreached() -> str:
    """Why the hub cannot be reached, and what to do."""
    constants = library().constants
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set: unset it"
    return f"{constants.ENDPOINT} cannot be reached: check the connection"


def _other_kind(name: HubName) -> str:
    """Whether a data set has the name that a model was looked for under."""
    try:
        known = library().HfApi().repo_exists(name.repo, repo_type="dataset")
    except Exception:  # one line about the model is enough
        known = False
    return f" There is a data set of that name: --data {HUB}{name.repo}." if known else ""


def short(error: Exception) -> str:
    """What an error says, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (listed(lines[:2]) or type(error).__name__).rstrip(".")[:200]
