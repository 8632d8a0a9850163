"""What a command keeps beside its output so that it can be stopped at any moment and gone on with."""

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from ._app import GO_ON
from ._processes import command_words

__all__ = ["Progress"]

_LOCK, _OPTIONS, _MODEL_BEGUN, _TRAINING = "lock", "options.json", "model-begun", "training"


@dataclass
class Progress:
    """A hidden folder beside the output: the options of the run, and the checkpoint of its training.

    Attributes
    ----------
    folder
        Where it is or will be.
    options
        By name, those that the result depends on.
    resuming
        Whether what is in the folder is to be gone on with.
    of_another
        Whether another process works on this too, and it is that one's.
    """

    folder: Path
    options: dict[str, Any]
    resuming: bool
    of_another: bool = False

    @classmethod
    def find(
        cls, output: Path, options: dict[str, Any], *, model: Path | None, resume: bool, of_another: bool = False
    ) -> "Progress":
        """Look for what an interrupted run left, say what becomes of it, and refuse to go on with other options."""
        output = output.expanduser().resolve()
        folder = output.with_name(f".{output.name}.progress")
        if of_another:
            return cls(folder, options, resuming=resume, of_another=True)
        found = folder.is_dir()
        # Relative, so that it is the same after all was moved
        beside = None if model is None else os.path.relpath(model.expanduser().resolve(), folder.parent)
        progress = cls(folder, options | {"model": beside}, resuming=resume and found)
        if found:
            progress._refuse_others()
        if found and not resume:
            _say(f"progress of an interrupted run was found in {folder.name}; without --resume this run starts anew")
        if resume and not found:
            _say("there is no interrupted run to go on with: this run starts from the beginning")
        return progress

    def _refuse_others(self) -> None:
        """Refuse a folder that another process is at work in, and on `--resume` other options than it was made with."""
        from .._lock import sole_owner
        from ..errors import CheckpointError

        with sole_owner(self.folder):
            path = self.folder / _OPTIONS
            if not self.resuming or not path.exists():  # killed before it had done anything
                return
            try:
                before = dict(json.loads(path.read_bytes()))
            except (ValueError, TypeError) as error:
                msg = f"{path} is damaged: leave out --resume to start anew"
                raise CheckpointError(msg) from error
        differing = [name for name in before | self.options if before.get(name) != self.options.get(name)]
        if differing:
            had, has = (", ".join(_typed(name, of.get(name)) for name in differing) for of in (before, self.options))
            msg = (
                f"the interrupted run had {had}, this one has {has}: give the same, or leave out --resume to start anew"
            )
            raise CheckpointError(msg)

    @property
    def model_is_ours(self) -> bool:
        """Whether a file under the name of the trained model is of the run that is gone on with."""
        return self.of_another or (self.resuming and (self.folder / _MODEL_BEGUN).exists())

    def begin_model(self) -> None:
        """Note that the trained model is about to be written."""
        (self.folder / _MODEL_BEGUN).touch()

    @contextmanager
    def kept(self) -> Iterator[Path]:
        """Give the folder for the checkpoint, which success removes; an accident's error says how to go on."""
        from .._lock import sole_owner

        if self.of_another:
            try:
                yield self.folder / _TRAINING
            except BaseException as error:
                self._say_how_to_go_on(error)
                raise
            return
        self.folder.mkdir(exist_ok=True)
        with sole_owner(self.folder):
            is_written = False
            try:
                self._begin()
                yield self.folder / _TRAINING
                is_written = True
                shutil.rmtree(self.folder)
            except BaseException as error:
                self._after(error, is_written=is_written)
                raise

    def _begin(self) -> None:
        from ..model.checkpoint import write_progress

        if not self.resuming:
            _clear(self.folder)
        write_progress(self.folder / _OPTIONS, json.dumps(self.options).encode())

    def _after(self, error: BaseException, *, is_written: bool) -> None:
        """Keep the folder if there is something to go on with, and say so."""
        from ..errors import CheckpointError
        from ..io.checks import UnreadableFileError

        if isinstance(error, CheckpointError):  # which says what to do with the folder
            return
        would_come_again = isinstance(error, (ValueError, TypeError)) and not isinstance(error, UnreadableFileError)
        if is_written:
            error.add_note(f"the result is complete; {GO_ON}{shlex.join(['rm', '-r', str(self.folder)])}")
        elif would_come_again or not self._is_begun:
            shutil.rmtree(self.folder)
        else:
            self._say_how_to_go_on(error)

    @property
    def _is_begun(self) -> bool:
        from ..model.checkpoint import MANIFEST

        return (self.folder / _TRAINING / MANIFEST).exists()

    def _say_how_to_go_on(self, error: BaseException) -> None:
        if not self._is_begun:
            return
        called, typed = command_words(), [word for word in sys.argv[1:] if word != "--resume"]
        where = f"; the checkpoint is in {self.folder.name}" if len(called) > 1 else ""
        error.add_note(f"no result was written{where}; {GO_ON}{shlex.join([*called, *typed, '--resume'])}")


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()


def _typed(name: str, value: Any) -> str:
    option = f"--{name.replace('_', '-')}"
    if value is None or isinstance(value, bool):
        return option if value else f"no {option}"
    return f"{option} {shlex.quote(str(value))}"


def _say(text: str) -> None:
    typer.echo(text, err=True)
