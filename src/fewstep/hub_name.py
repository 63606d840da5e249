"""How models of the Hugging Face hub are named: ``hub:OWNER/NAME[/FILE][@REVISION]``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import PurePath

from fewstep.errors import FewstepError

HUB = "hub:"
"""What names of the hub begin with, of models and of data sets."""
NAMED = "hub:OWNER/NAME, hub:OWNER/NAME@REVISION or hub:OWNER/NAME/FILE"
_PART = r"[\w][\w.-]*"
_NAME = re.compile(
    rf"(?P<repo>{_PART}(/{_PART})?)(/(?P<inside>[^@/][^@]*))?(@(?P<revision>[^@\s]+))?"
)
_PAGE = re.compile(r"https?:/+(?P<host>[\w.:-]+)/+(?P<rest>.+)")
_TREE = re.compile(
    r"(?P<repo>[^/]+/[^/]+)/(tree|blob|resolve)/(?P<revision>[^/]+)(/(?P<inside>.+))?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MEANT = re.compile(
    rf"(hub:|hf:/+|(https?:/+)?(www\.)?(huggingface|hf)\.co/)(?P<name>{_PART}/{_PART})/?",
    re.IGNORECASE,
)
HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")


@dataclass(frozen=True)
class HubName:
    """A name of the hub, taken apart.

    Args:
        repo: ``OWNER/NAME``, or ``NAME`` of a model that has no owner.
        inside: a file or folder of the repository; "" for all of it.
        revision: branch, tag or commit; None for the repository's newest.
    """

    repo: str
    inside: str = ""
    revision: str | None = None

    def __str__(self) -> str:
        return HUB + self.place + ("" if self.revision is None else f"@{self.revision}")

    @property
    def place(self) -> str:
        """The repository, and what is meant of it."""
        return "/".join(filter(None, (self.repo, self.inside)))

    @classmethod
    def of(cls, name: str | PurePath) -> HubName:
        """The parts of a name, or of the address of a model's page.

        Raises:
            FewstepError: a name that is none; the message says how they are written.
        """
        text = _text(name)
        page = _PAGE.fullmatch(text)
        return _of_page(text, page["rest"]) if page else _of_name(text)


def _text(name: str | PurePath) -> str:
    """The name as it was written: a path may have other separators."""
    return name.as_posix() if isinstance(name, PurePath) else name


def _of_name(text: str) -> HubName:
    match = _NAME.fullmatch(text.removeprefix(HUB).rstrip("/"))
    if match is None:
        raise FewstepError(f"{text!r} names no model of the hub: write {NAMED}.")
    return HubName(match["repo"], match["inside"] or "", match["revision"])


def _of_page(text: str, rest: str) -> HubName:
    rest = rest.partition("?")[0].removeprefix("models/").rstrip("/")
    if rest.startswith(("datasets/", "spaces/")):
        raise FewstepError(
            f"{text!r} is no model but one of the hub's {rest.partition('/')[0]}: write {NAMED}."
        )
    if match := _TREE.fullmatch(rest):
        return HubName(match["repo"], match["inside"] or "", match["revision"])
    return _of_name(HUB + rest)


def said_otherwise(path: PurePath) -> str:
    """How a name is written that is meant to be one of the hub, as a sentence; "" for others."""
    match = _MEANT.fullmatch(path.as_posix())
    if match is None:
        return ""
    return f" A model of the hub is written {HUB}{match['name']}."


def is_hub(name: object) -> bool:
    """Whether a name is of the hub: ``hub:...``, or the address of a page there."""
    if not isinstance(name, str | PurePath):
        return False
    text = _text(name)
    page = _PAGE.fullmatch(text)
    return text.startswith(HUB) or (page is not None and page["host"] in _hosts())


def _hosts() -> tuple[str, ...]:
    own = _PAGE.fullmatch(os.environ.get("HF_ENDPOINT", "") + "/-")
    return HOSTS if own is None else (*HOSTS, own["host"])
