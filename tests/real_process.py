"""The command line in processes of their own, which can be killed and limited.

They are children of a server that has the libraries loaded: real processes and signals without two seconds of imports
each.
"""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import torch
from tqdm import tqdm

from scautoimpute._staging import _FIRST_STEP
from scautoimpute.cli import main
from scautoimpute.model import checkpoint

# One for all tests: who finds it started cannot have it load anything else
SERVER = multiprocessing.get_context("forkserver")
_LIBRARIES = ["anndata", "hypothesis", "psutil", "pytest", "safetensors.torch", "torch.distributed", "zarr"]
_OURS = [
    "apply",
    "autoimpute",
    "cli.impute",
    "datasets",
    "evaluation.worker",
    "io.write",
    "model.disk",
    "model.fit",
    "tl",
]
SERVER.set_forkserver_preload([*_LIBRARIES, *(f"scautoimpute.{name}" for name in _OURS), "real_process"])


def _become(folder, arguments, *streams):
    """Be the command line in `folder`, on one thread, whose streams 1 and 2 are files."""
    os.chdir(folder)
    for number, path in enumerate(streams, start=1):
        with path.open("a") as stream:
            os.dup2(stream.fileno(), number)
    torch.set_num_threads(1)
    sys.argv = ["scautoimpute", *map(str, arguments)]


def _pause_within(work):
    """Stop this process, as SIGSTOP does, once the progress bar of that work has moved."""
    update = tqdm.update

    def paused(bar, n=1):
        is_first, shown = bar.n == 0, update(bar, n)
        if bar.desc == work and is_first:
            os.kill(os.getpid(), signal.SIGSTOP)
        return shown

    tqdm.update = paused


def command(folder, arguments, limits, environment, pause):
    """Run the command line in this process, which is a child; from when `said` is there it may be stopped."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _become(folder, arguments, folder / "said", folder / "said")
    os.environ.update(environment)
    tempfile.tempdir = None  # as in a new process, which asks the environment
    checkpoint.SECONDS_BETWEEN, checkpoint.LARGEST_SHARE = 0.02, 0.5
    if "--max-memory" in arguments:  # of little data: counted from nothing, for what libraries take varies by more
        nothing = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=-_FIRST_STEP))
        psutil.Process = lambda: nothing
    if pause:
        _pause_within(pause)
    for name, limit in limits.items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have it ignored
        main()
    except KeyboardInterrupt:  # before there was anything to clean up
        sys.exit(130)


def start(folder, arguments, *, limits=None, environment=None, pause=None):
    """Start the command line in `folder`, under limits of the module `resource` by their names.

    After the first step of the work whose progress bar has the name `pause`, the process waits to be killed or woken.
    """
    (folder / "said").unlink(missing_ok=True)
    process = SERVER.Process(target=command, args=(Path(folder), arguments, limits or {}, environment or {}, pause))
    process.start()
    return process


class Shell(subprocess.Popen):
    """The command line as a shell starts it, with what processes of `multiprocessing` are asked."""

    def __init__(self, folder, arguments):
        words = [sys.executable, "-m", "scautoimpute", *map(str, arguments)]
        with (folder / "said").open("w") as said:
            super().__init__(words, cwd=folder, stdout=said, stderr=said, env=os.environ | {"OMP_NUM_THREADS": "1"})

    @property
    def exitcode(self):
        return self.poll()

    def is_alive(self):
        return self.poll() is None

    def join(self, seconds):
        with suppress(subprocess.TimeoutExpired):
            self.wait(seconds)


def _command_to_its_end(folder, arguments, *streams):
    _become(folder, arguments, *streams)
    main()


def run(arguments, cwd):
    """Run the command line in `cwd` to its end; return what `subprocess.run` would."""
    with tempfile.TemporaryDirectory() as kept:
        streams = [Path(kept) / name for name in ("stdout", "stderr")]
        process = SERVER.Process(target=_command_to_its_end, args=(cwd, arguments, *streams))
        process.start()
        process.join(120)
        return subprocess.CompletedProcess(arguments, process.exitcode, *(stream.read_text() for stream in streams))


def finish(process, folder):
    """Wait, and return the exit code and the lines that were said."""
    process.join(100)
    lines = (folder / "said").read_text().replace("\r", "\n").splitlines()
    return process.exitcode, [line for line in lines if line.strip() and "%|" not in line]


def wait_for(folder, pattern, process):
    """Wait until there is such a file in `folder`."""
    while not list(folder.glob(pattern)):
        assert process.is_alive(), (folder / "said").read_text()
        time.sleep(0.0005)


def wait_until_paused(process, folder):
    """Wait until the process has stopped itself."""
    while not _is_paused(process):
        assert process.is_alive(), (folder / "said").read_text()
        time.sleep(0.0005)


def _is_paused(process):
    try:
        return psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def assert_same_files(one, other):
    """Compare two files, or all files of two folders, byte by byte."""
    assert files_in(one) == files_in(other)
    for path in files_in(one):
        assert (one / path).read_bytes() == (other / path).read_bytes(), path


def files_in(path):
    return sorted(found.relative_to(path) for found in path.rglob("*") if found.is_file()) if path.is_dir() else [""]
