"""The folder of a run: its manifest, and a file for every cell that has ended."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .inputs import facts_that_count
from .task import DataSet, Outcome, Task

__all__ = ["Folder"]

_MANIFEST, _CELLS = "manifest.json", "cells"
_CHANGES_RESULTS = ("scautoimpute", "numpy", "scipy", "torch", "scikit-learn", "scanpy")
_OF_RIVALS = ("magic-impute", "scvi-tools")  # extras, which may be installed to go on
EVALUATION = "evaluation"  # of one file; other runs may be given more data sets


class Folder:
    """Where a run keeps what it has, so that the same command goes on where it stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Hold the folder, which is made if need be; a second run into it is refused while this one lives."""
        from .._lock import sole_owner

        if self.path.exists() and not self.path.is_dir():
            msg = f"{self.path} is a file: give a new or empty folder with --output"
            raise NotADirectoryError(msg)
        is_new = not self.path.exists() or not any(self.path.iterdir())
        if not is_new and not (self.path / _MANIFEST).exists() and not (self.path / "lock").exists():
            msg = f"{self.path} holds files and no {_MANIFEST}, so it is of no such run: give a new or empty folder"
            raise FileExistsError(msg)
        self.path.mkdir(parents=True, exist_ok=True)
        with sole_owner(self.path):
            yield

    def begin(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """Go on with what is there, or refuse to mix; write and return the manifest, with the data sets of before."""
        before = self._manifest()
        if before is not None:
            self._refuse_others(before, manifest)
            manifest = manifest | {"datasets": before["datasets"] | manifest["datasets"]}
            manifest["created"] = before["created"]
        (self.path / _CELLS).mkdir(exist_ok=True)
        _write_json(self.path / _MANIFEST, manifest)
        return manifest

    def _manifest(self) -> dict[str, Any] | None:
        path = self.path / _MANIFEST
        if not path.exists():
            return None
        try:
            return dict(json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            msg = f"{path} is damaged: give a new folder, or remove this one"
            raise ValueError(msg) from error

    def _refuse_others(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        differing = ["kind"] if before["kind"] != now["kind"] else []
        if now["kind"] == EVALUATION and before["datasets"].keys() != now["datasets"].keys():
            differing.append(f"file {', '.join(before['datasets'])}, now {', '.join(now['datasets'])}")
        for name in before["datasets"].keys() & now["datasets"].keys():
            had, has = facts_that_count(before["datasets"][name]), facts_that_count(now["datasets"][name])
            differing += [f"{fact} of {name}" for fact in had if had[fact] != has[fact]]
        had, has = before["versions"], now["versions"]
        differing += [
            f"{library} {had.get(library)}, now {has.get(library)}"
            for library in _CHANGES_RESULTS
            if had.get(library) != has.get(library)
        ]
        differing += [
            f"{library} {had[library]}, now {has[library]}"
            for library in _OF_RIVALS
            if library in had and library in has and had[library] != has[library]
        ]
        if differing:
            msg = (
                f"{self.path} holds results of other data, settings or versions ({'; '.join(sorted(differing))}), and "
                "the two are not mixed: give a new folder, or remove this one"
            )
            raise ValueError(msg)

    def cells(self, tasks: Sequence[Task]) -> dict[str, dict[str, Any]]:
        """Return the cells that have ended of those that are asked for, by name; a damaged file is as none."""
        found = {}
        for task in tasks:
            try:
                cell = json.loads(self._file(task).read_bytes())
            except (OSError, ValueError):
                continue
            if cell.get("asked") == task.asked:
                found[task.name] = cell
        return found

    def keep(self, task: Task, outcome: Outcome) -> None:
        """Write a cell, whole or not at all."""
        _write_json(self._file(task), outcome.as_cell(task))

    def _file(self, task: Task) -> Path:
        return self.path / _CELLS / f"{task.name}.json"


def described(datasets: Sequence[DataSet]) -> dict[str, Any]:
    """What the manifest says of the data sets, by name."""
    return {data.name: data.facts for data in datasets}


def _write_json(path: Path, content: Any) -> None:
    from ..io.complete import complete_or_absent

    with complete_or_absent(path) as beside:
        beside.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
