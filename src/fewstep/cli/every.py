"""The options of every command: they are read first, and decide what the others know."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter

from fewstep.plugins.installed import load_installed, load_named, named

if TYPE_CHECKING:
    from fewstep.cli.config import Config

OPTIONS = ("--plugin", "--config")
EVERY = Group.create_ordered("Every command", sort_key=1000)


def take_options(app: App) -> None:
    """Give all commands of a program the options of every command."""

    def launch(
        *words: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        plugin: Annotated[
            tuple[str, ...],
            Parameter(
                help="Python file or module of your own that adds recipes, objectives, networks, "
                "...; may be given several times.",
                group=EVERY,
                negative_iterable="",
                show_default=False,
            ),
        ] = (),
        config: Annotated[
            Path | None,
            Parameter(
                help="TOML or YAML file with flags of the command; those that are given here as "
                "well come before it.",
                group=EVERY,
            ),
        ] = None,
    ) -> Any:
        settings = () if config is None else (read_config(config),)
        load_plugins((*(which for file in settings for which in file.plugins()), *plugin))
        app.config = settings
        try:
            return _called(app, words, settings[0].settings if settings else {})
        finally:
            app.config = ()

    app.meta.suppress_keyboard_interrupt = False
    app.meta.help_flags = app.meta.version_flags = ()
    app.meta.default(launch)


def call(app: App, words: Sequence[str]) -> Any:
    """Run a program on the words of a command line; what its command returns."""
    if any(word.startswith(OPTIONS) for word in words):
        return _called(app.meta, words)
    load_plugins(())
    return _called(app, words)  # where none of the options is there, words are read once


def _called(app: App, words: Sequence[str], settings: Mapping[str, Any] | None = None) -> Any:
    if words[:1] and words[0] == "train":
        from fewstep.cli.train import in_new_words, offer_chosen

        words = in_new_words(words)
        offer_chosen(tuple(words), settings or {})
    return app(words, exit_on_error=False, print_error=False, result_action="return_value")


def read_config(path: Path) -> Config:
    """The settings of a file, for which no other command waits."""
    from fewstep.cli.config import Config

    return Config(path)


def load_plugins(given: tuple[str, ...]) -> None:
    """Load installed plugins, those of the environment and those that were given."""
    load_installed()
    if not (given or named()):
        return
    from fewstep.plugins.load import load_plugin  # which no command without plugins waits for

    load_named()
    for which in given:
        load_plugin(which)
    if "fewstep.cli.train" in sys.modules:
        sys.modules["fewstep.cli.train"].offer_recipes()
