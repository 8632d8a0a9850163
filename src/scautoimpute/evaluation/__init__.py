"""Do the paper's claims hold, and which method suits these data: every method, run apart, resumable, in one table.

`reproduce` runs the paper's experiments over a folder of labelled data sets, `evaluate` what can be asked of one file.
Both return everything that the report shows as one plain dictionary, which is `results.json` too.
"""

from .run import evaluate, reproduce

__all__ = ["evaluate", "reproduce"]
