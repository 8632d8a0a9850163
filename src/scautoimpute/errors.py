"""Exceptions that callers can catch by the builtin type they would expect."""

__all__ = ["CheckpointError", "LostProcessError", "MissingDependencyError", "NotFittedError"]


class CheckpointError(ValueError):
    """Kept progress is damaged, or is that of another training."""


class LostProcessError(ConnectionError):
    """Another process that takes part in the same training is gone."""


class NotFittedError(ValueError):
    """An estimator was asked for a result before `fit` or `load`."""


class MissingDependencyError(ImportError):
    """An optional library that the request needs is not installed."""
