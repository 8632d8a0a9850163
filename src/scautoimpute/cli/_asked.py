"""What was asked of a command, refused before any file is read where it cannot be had."""

import json
from pathlib import Path
from typing import Any, get_args

__all__ = ["check_layers", "check_method", "check_model_options", "check_options", "method_options"]


def check_options(n_top_genes: str | None, flavor: str | None, scale: str, seed: int) -> None:
    from .._genes import Flavor
    from ..scales import check_scale

    check_scale(scale)
    if n_top_genes not in {None, "all"} and not (str(n_top_genes).isdecimal() and int(str(n_top_genes)) > 0):
        msg = f"--n-top-genes {n_top_genes} is not a number of genes: give a positive integer or 'all'"
        raise ValueError(msg)
    if flavor is not None and flavor not in get_args(Flavor):
        msg = f"--flavor {flavor!r} is not known: choose {' or '.join(map(repr, get_args(Flavor)))}"
        raise ValueError(msg)
    if seed < 0:
        msg = f"--seed {seed} is negative: give an integer of at least 0"
        raise ValueError(msg)


def check_layers(layer: str | None, key_added: str) -> None:
    if not key_added or "/" in key_added:
        msg = f"--key-added {key_added!r} cannot be the name of a layer: give one that is not empty and has no '/'"
        raise ValueError(msg)
    if key_added == layer:
        msg = f"--key-added {key_added!r} is the layer that holds the counts, which would be lost: give another name"
        raise ValueError(msg)


def check_model_options(model: Path | None, from_model: Path | None, output: Path, **others: Any) -> None:
    if model is not None and model.resolve() == output.resolve():
        msg = f"--model and --output are the same file, {output}: give two names"
        raise ValueError(msg)
    others = {"model": model} | others
    unused = ", ".join(f"--{name.replace('_', '-')}" for name, value in others.items() if value is not None)
    if from_model is not None and unused:
        msg = f"--from-model applies a trained model as it is: leave out {unused}, or leave out --from-model"
        raise ValueError(msg)


def check_method(method: str | None, **others: Any) -> None:
    """Refuse what has no effect with another method than AutoImpute."""
    from ..methods import method_named

    if method is None:
        if others["option"]:
            msg = f"--option {others['option'][0]} is for other methods: name one with --method, or leave it out"
            raise ValueError(msg)
        return
    method_named(method)
    unused = [name for name, value in others.items() if name != "option" and value is not None and value is not False]
    if unused:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        msg = f"{given} has no effect with --method {method}, which keeps no model: leave it out"
        raise ValueError(msg)


def method_options(given: list[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE; a value is a number or a list if it looks like one, else a word."""
    options: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            msg = f"--option {text!r} is not NAME=VALUE: write it as in --option n_neighbors=15"
            raise ValueError(msg)
        try:
            options[name.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            options[name.replace("-", "_")] = value
    return options
