"""The application: what every command shares, and one line for whatever goes wrong in one."""

import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn

import typer

__all__ = ["GO_ON", "Debug", "app", "main", "one_line_errors"]

GO_ON = "go on with: "  # in the note of an error: how a stopped run is finished

app = typer.Typer(
    help="Recover expression lost to dropouts in single-cell RNA-seq.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_SECONDS_UNTIL_SENT_ANEW = 0.2  # what drops it must be over
_debug = False


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM: to be cleaned up after like Ctrl-C."""


def main() -> None:
    """Run the command line; errors are one line on stderr, with `--debug` a traceback."""
    signal.signal(signal.SIGTERM, _on_sigterm)
    sys.unraisablehook = _on_unraisable
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "2")  # a log file needs no ten refreshes a second
    app()


def _on_sigterm(*_: Any) -> NoReturn:
    raise _TerminatedError


def _on_unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Send a stop anew that came where Python can raise nothing, as where h5py forgets what it has closed."""
    if isinstance(lost.exc_value, KeyboardInterrupt):
        number = signal.SIGTERM if isinstance(lost.exc_value, _TerminatedError) else signal.SIGINT
        timer = threading.Timer(_SECONDS_UNTIL_SENT_ANEW, os.kill, (os.getpid(), number))
        timer.daemon = True  # or the end of the process would wait, and be stopped
        timer.start()
    else:
        sys.__unraisablehook__(lost)


def _show_version(value: bool) -> None:
    if value:
        from .. import __version__

        typer.echo(f"scautoimpute {__version__}")
        raise typer.Exit


def _set_debug(value: bool) -> None:
    global _debug  # noqa: PLW0603
    _debug = _debug or value


Debug = Annotated[bool, typer.Option("--debug", callback=_set_debug, help="Show the traceback of an error.")]


@app.callback()
def _options(
    *,
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Warnings and errors as one line each on stderr; exit code 1 for errors, 130 for Ctrl-C, 143 for SIGTERM."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.showwarning = _show_warning
        try:
            yield
        except KeyboardInterrupt as stop:
            typer.echo(f"interrupted: {_way_on(stop) or 'no result was written'}", err=True)
            raise typer.Exit(143 if isinstance(stop, _TerminatedError) else 130) from stop
        except typer.Exit:
            raise
        except Exception as error:
            if _debug:
                raise
            way_on = _way_on(error)
            typer.echo(f"error: {_in_words(error)}{'; ' + way_on.partition('; ')[2] if way_on else ''}", err=True)
            raise typer.Exit(1) from error


def _way_on(error: BaseException) -> str:
    """The note that a command has left on how to go on, if it has."""
    return next((note for note in getattr(error, "__notes__", []) if GO_ON in note), "")


# What it raises where memory ends, also that of oneDNN or of a thread, is a RuntimeError without a class of its own
_OF_TORCH = re.compile(
    r"allocate memory(?:: you tried to allocate (\d+) bytes)?|out of memory|could not create a primitive$|"
    r"can't start new thread",
    re.IGNORECASE,
)


def _in_words(error: Exception) -> str:
    text = _as_options(str(error.args[0] if isinstance(error, KeyError) and error.args else error))
    lacking = _OF_TORCH.search(text) if isinstance(error, RuntimeError) else None
    if lacking is not None or (isinstance(error, MemoryError) and ": " not in text):  # of a library: says no remedy
        text = f"{int(lacking[1]) / 1e6:,.0f} MB more were asked for" if lacking and lacking[1] else text
        return f"the memory does not suffice ({text or 'no size given'}): model fewer genes with --n-top-genes"
    if isinstance(error, (ValueError, TypeError, OSError, ImportError, MemoryError)):
        return text or type(error).__name__
    return f"unexpected {type(error).__name__} ({text}): run again with --debug, and report what it shows"


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        print(f"warning: {_as_options(str(message))}", file=sys.stderr)  # noqa: T201


# The library's messages name its parameters; whoever typed a command knows its options.
_OPTION_OF = {
    "random_state": "--seed",
    "min_resources": "--min-epochs",
    "options": "--option",
    "posterior_sd": "--sd",
    "sparse_below": "--sparse",
} | {
    name: f"--{name.replace('_', '-')}"
    for name in (
        "layer", "objective", "preset", "n_top_genes", "flavor", "scale", "key_added", "hidden", "max_epochs", "device",
        "held_out_share", "l2", "learning_rate", "threshold", "factor", "share", "method", "genes", "batch_key",
        "as_batch", "depth", "estimand", "labels", "n_networks", "max_memory", "output_genes", "dtype", "compression",
    )
}  # fmt: skip
_SPELLINGS = (
    (re.compile(r"overwrite=True \((--overwrite) on the command line\)"), r"\1"),
    (re.compile(r"matrix=False"), "--no-matrix"),
    (re.compile(r"keep_observed=False"), "--smooth"),
    (re.compile(r"keep_observed=True"), "--keep-observed"),
    (re.compile(r"transpose=True \((--transpose) on the command line\)"), r"\1"),
    (re.compile(r"AutoImpute\.save, or (--model) on the command line, wrote"), r"\1 wrote"),
    (re.compile(r"pass adata\.T, or (--transpose) on the command line"), r"give \1"),
    (re.compile(rf"(?<![^\s(])({'|'.join(_OPTION_OF)})="), lambda found: f"{_OPTION_OF[found[1]]} "),
    (
        re.compile(r"(?<![^\s(])(n_top_genes|key_added|max_epochs|batch_key|as_batch)\b"),
        lambda found: _OPTION_OF[found[1]],
    ),
)


def _as_options(text: str) -> str:
    """Return a message as one line that names options as they are typed."""
    for pattern, spelling in _SPELLINGS:
        text = pattern.sub(spelling, text)
    return " ".join(text.split())
