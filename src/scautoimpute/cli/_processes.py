"""A command that torchrun has started several times: which of the processes speaks, and what is said of lost ones."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ..model.processes import Processes
    from ..model.roster import Roster

__all__ = ["command_words", "end_of_others", "only_if_alone", "several_processes"]

SECONDS_TO_SAY_THE_SAME = 3.0


@contextmanager
def several_processes() -> "Iterator[Processes]":
    """Join the processes that were started together with this one; all but the first are silent.

    What goes wrong in all of them is said by the first; what goes wrong in one, by that one; and that one was lost, by
    the first of those that are left.
    """
    from ..model.processes import joined

    with joined() as processes:
        if processes.roster is None:
            yield processes
            return
        try:
            with _silence(unless=processes.is_first):
                yield processes
        except typer.Exit:
            raise
        except BaseException as error:
            if processes.is_apart:
                raise
            said = _to_be_said(error, processes.roster)
            raise said from (None if said is error else error)


@contextmanager
def _silence(*, unless: bool) -> Iterator[None]:
    import warnings

    from ..progress import no_progress

    if unless:
        yield
        return
    with warnings.catch_warnings(), no_progress():
        warnings.simplefilter("ignore")
        yield


def _to_be_said(error: BaseException, roster: "Roster") -> BaseException:
    """Return what this process is to say of an error that ends it: another one, or nothing."""
    from ..errors import LostProcessError

    is_own = isinstance(error, Exception) and not isinstance(error, LostProcessError)
    roster.say_farewell(str(error) if is_own else "")
    if is_own:
        return error if roster.rank == 0 else _own_error(error, roster)
    trouble = str(error) if isinstance(error, LostProcessError) else roster.trouble()
    if roster.rank == 0 and trouble is None:  # Ctrl-C
        return error
    if trouble is not None and _speaks(roster):
        return _with_notes_of(error, LostProcessError(trouble))
    return typer.Exit(1)


def _own_error(error: BaseException, roster: "Roster") -> BaseException:
    """An error that the first process has too is said by it."""
    if roster.farewell_of(0, seconds=SECONDS_TO_SAY_THE_SAME) == str(error):
        return typer.Exit(1)
    error.args = (f"process {roster.rank} of {roster.size}: {error}",)
    return error


def _speaks(roster: "Roster") -> bool:
    """Whether this is the first of the processes that are left."""
    lost = roster.lost()
    return all(rank in lost for rank in range(roster.rank))


def _with_notes_of(error: BaseException, other: BaseException) -> BaseException:
    for note in getattr(error, "__notes__", []):
        other.add_note(note)
    return other


def end_of_others(processes: "Processes") -> None:
    """Part: the first process goes on alone, all others have done their work."""
    processes.leave()
    if not processes.is_first:
        raise typer.Exit


def only_if_alone(processes: "Processes", **asked: Any) -> None:
    """Refuse what several processes do not do together, options by name that call for it.

    Raises
    ------
    ValueError
        If there are several, and one of the options was given.
    """
    given = next((name for name, value in asked.items() if value not in {None, "counts"}), None)
    if processes.size > 1 and given is not None:
        option = f"--{given.replace('_', '-')} {asked[given]}"
        msg = f"{processes.size} processes train together with --objective counts alone, not with {option}: start one"
        raise ValueError(msg)


def command_words() -> list[str]:
    """Return how the command is called: by torchrun, if it has started several processes on this machine."""
    n_here = os.environ.get("LOCAL_WORLD_SIZE", "1")
    if n_here == os.environ.get("WORLD_SIZE", "1") != "1":
        return ["torchrun", "--nproc-per-node", n_here, "-m", "scautoimpute"]
    return ["scautoimpute"]
