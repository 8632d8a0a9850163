"""Exceptions that callers can catch by the builtin type they would expect."""

__all__ = ["MissingDependencyError", "NotFittedError"]


class NotFittedError(ValueError):
    """An estimator was asked for a result before `fit` or `load`."""


class MissingDependencyError(ImportError):
    """An optional library that the request needs is not installed."""
