"""Code of a user's own, by which names are added: objectives, networks, recipes and the rest.

A plugin is imported because the user names it or has installed it; never because a run or a model
file does. These keep its name and its hash, and ask for it. Code in a run's folder is not imported.
The same holds for encoders of texts, which a user may name once and for all: see `trusted`.
"""
