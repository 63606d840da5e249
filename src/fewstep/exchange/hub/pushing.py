"""Files on their way to the hub, as one commit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fewstep.errors import FewstepError
from fewstep.exchange.hub.fetching import forget, in_words, library, short, unreached
from fewstep.hub_name import HubName, is_hub
from fewstep.progress import on_terminal, working

COMMIT = re.compile(r"[0-9a-f]{40}")
LOGIN = "set HF_TOKEN to one that may write, or run hf auth login"


@dataclass(frozen=True)
class Pushed:
    """What is on the hub now.

    Args:
        name: with the commit.
        url: of the page.
    """

    name: HubName
    url: str


def check_target(to: str) -> HubName:
    """The name to push to.

    Raises:
        FewstepError: one that is none, or that names a file or a commit.
    """
    if not is_hub(to):
        raise FewstepError(f"{to!r} names no model of the hub: push to hub:OWNER/NAME.")
    name = HubName.of(to)
    if name.inside:
        raise FewstepError(f"{name} names a file: a model is pushed to hub:OWNER/NAME.")
    if name.revision is not None and COMMIT.fullmatch(name.revision):
        raise FewstepError(f"{name} names a commit, which nothing changes: give a branch, or none.")
    return name


def with_owner(to: HubName) -> HubName:
    """The name with the owner of the token, where it has none.

    Raises:
        FewstepError: no token, or no connection.
    """
    if "/" in to.repo:
        return to
    with _in_words(to):
        return replace(to, repo=f"{library().HfApi().whoami()['name']}/{to.repo}")


def push(
    to: HubName, files: Mapping[str, Path], *, private: bool, anew: bool, message: str
) -> Pushed:
    """Make a repository where there is none, and commit files there.

    Args:
        to: the repository, and perhaps a branch, which is made where there is none.
        files: by the names that they get there.
        private: whether a new repository is.
        anew: whether a model that is there gets a new commit; earlier ones stay.
        message: of the commit.

    Raises:
        FewstepError: no token, no right, a repository with a model, no connection.
    """
    hub = library()
    with _in_words(to), _shown(f"pushing to {to}"):
        api = hub.HfApi()
        if not anew:
            _check_new(api, to)
        repo = api.create_repo(to.repo, private=private, exist_ok=True).repo_id
        if to.revision is not None:
            api.create_branch(repo, branch=to.revision, exist_ok=True)
        operations = [hub.CommitOperationAdd(name, str(path)) for name, path in files.items()]
        done = api.create_commit(repo, operations, commit_message=message, revision=to.revision)
    forget()
    return Pushed(HubName(repo, "", done.oid), f"{hub.constants.ENDPOINT}/{repo}")


def _check_new(api: Any, to: HubName) -> None:
    """Raise `FewstepError` where a repository has files already."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    with suppress(RepositoryNotFoundError, RevisionNotFoundError):
        info = api.model_info(to.repo, revision=to.revision)
        there = [f.rfilename for f in info.siblings or () if f.rfilename != ".gitattributes"]
        if there:
            raise FewstepError(
                f"{to} exists already ({len(there)} files): --replace puts a new commit there, "
                "which keeps the earlier ones; or give another name."
            )


@contextmanager
def _in_words(to: HubName) -> Iterator[None]:
    """Inside, what the library raises is a `FewstepError` of one line."""
    with in_words(to):
        try:
            yield
        except FewstepError:
            raise
        except Exception as error:
            raise _refusal(to, error) or error from error


def _refusal(to: HubName, error: Exception) -> FewstepError | None:
    """The error of what only happens to who writes."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.LocalTokenNotFoundError) or (status == 401 and not _token()):
        return FewstepError(f"pushing to {to} needs a token: {LOGIN}.")
    if status == 401:
        return FewstepError(f"the hub does not know the token that is set: {LOGIN}.")
    if status == 403:
        return FewstepError(
            f"the token may not write to {to}: give one of the repository's owner with the right "
            f"to write, or another --to. The hub says: {short(error)}."
        )
    if status is None and _is_unreached(error):
        return FewstepError(f"cannot push to {to}: {unreached()}.")
    if isinstance(error, errors.HFValidationError):
        return None  # a name that is none, whatever is done with it
    return FewstepError(f"cannot push to {to}: {short(error)}.")


def _is_unreached(error: BaseException) -> bool:
    """Whether there was no connection; the cause may be behind other errors of the library."""
    names = {type(error).__name__ for error in _chain(error)}
    offline = {"OfflineModeIsEnabled", "ConnectError", "ConnectTimeout", "ConnectionError"}
    return bool(names & offline)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _token() -> str | None:
    return library().get_token()


@contextmanager
def _shown(title: str) -> Iterator[None]:
    """Inside, the library shows its bars where they are seen; elsewhere there are lines."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if on_terminal() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        with working(title):
            yield
    finally:
        enable_progress_bars()
