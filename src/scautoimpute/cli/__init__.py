"""The command line.

The summary goes to stdout, everything else to stderr. Heavy libraries are imported inside the commands, so that
`--help` answers at once.
"""

from . import demo, evaluate, impute, info, reproduce, tune
from ._app import app, main

__all__ = ["app", "demo", "evaluate", "impute", "info", "main", "reproduce", "tune"]
