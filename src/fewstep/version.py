"""The version of this package; nothing else, so that every part may ask for it."""

__version__ = "0.1.0"
