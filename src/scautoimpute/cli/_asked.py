"""What was asked of a command, refused before any file is read where it cannot be had."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["check_layers", "check_method", "check_model_options", "check_options", "method_options", "where_counts_are"]


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


def check_model_options(
    source: Path, output: Path, *, model: Path | None, from_model: Path | None, others: dict[str, Any]
) -> None:
    """Refuse files that would be written over what is still needed, and what has no effect on a trained model."""
    for option, path in (("--model", model), ("--from-model", from_model)):
        for other, used in (("the input", source), ("--output", output)):
            if path is not None and path.expanduser().resolve() == used.expanduser().resolve():
                msg = f"{option} and {other} are the same file, {used}: give two names"
                raise ValueError(msg)
    given = [name for name, value in ({"model": model} | others).items() if value is not None and value is not False]
    unused = ", ".join(f"--{name.replace('_', '-')}" for name in given)
    if from_model is not None and unused:
        msg = f"--from-model applies a trained model as it is: leave out {unused}, or leave out --from-model"
        raise ValueError(msg)


def check_method(method: str | None, **others: Any) -> None:
    """Refuse what has no effect with another method than AutoImpute."""
    from ..methods import method_named

    if method is None:
        if others["option"]:
            name = others["option"][0].partition("=")[0]
            msg = f"--option {name!r} is for another method: name it with --method; AutoImpute's own are in --help"
            raise ValueError(msg)
        return
    method_named(method)
    unused = [name for name, value in others.items() if name != "option" and value is not None and value is not False]
    if unused:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in unused)
        msg = f"{given} has no effect with --method {method}: leave it out; what it takes itself is given by --option"
        raise ValueError(msg)


def method_options(given: list[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE; a value is a number or a list if it looks like one, else a word."""
    options: dict[str, Any] = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            msg = f"--option {text!r} is not NAME=VALUE: write it as in --option n_neighbors=15"
            raise ValueError(msg)
        if name.replace("-", "_") in options:
            msg = f"--option gives {name} twice: give it once; several values as a list, as in --option '{name}=[1, 2]'"
            raise ValueError(msg)
        try:
            options[name.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            options[name.replace("-", "_")] = value
    return options


def where_counts_are(adata: "AnnData", layer: str | None) -> tuple[str | None, str]:
    """Return the layer to take, and why; X where none can be taken, so that the imputation says what is wrong."""
    from ..io import find_counts

    if layer is not None:
        return layer, f"layer {layer}, as asked"
    found = find_counts(adata)
    if found.kind == "several":
        raise ValueError(found.reason)
    return (found.layer if found.is_usable else None), found.reason
