"""House rules: signatures, docstrings, public names, imports, licences, and documents that say what is true."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import scautoimpute
from scautoimpute import AutoImpute, apply, datasets, evaluation, io, lazy, methods, metrics, pl, pp, tl, trust

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "scautoimpute"
FOUND = [found.name for found in pkgutil.walk_packages([str(SOURCE)], "scautoimpute.")]
MODULES = ["scautoimpute", *(name for name in FOUND if name != "scautoimpute.__main__")]

# ---------------------------------------------------------------------------------------------- signatures

VERBS = {
    f"{home.__name__.split('.')[-1]}.{name}": getattr(home, name) for home in (pp, tl, pl) for name in home.__all__
}
HOMES = (apply, datasets, evaluation, io, lazy, methods, metrics, trust)
OTHERS = {f"{h.__name__.split('.')[-1]}.{n}": getattr(h, n) for h in HOMES for n in h.__all__}
FUNCTIONS = {name: value for name, value in (VERBS | OTHERS).items() if inspect.isfunction(value)}
METHODS = {
    f"AutoImpute.{name}": getattr(AutoImpute, name)
    for name, value in vars(AutoImpute).items()
    if not name.startswith("_") and not isinstance(value, property)
}
PUBLIC = FUNCTIONS | METHODS
# How many parameters may be given by position, where it is not one.
POSITIONAL = {
    "datasets.pbmc68k_reduced": (0, "takes nothing"),
    "datasets.simulate": (0, "makes its data: there is no subject"),
    "io.counts_matrix": (2, "an object and the layer to take from it, as in adata.layers[layer]"),
    "io.row_blocks": (2, "a matrix and the size of its blocks"),
    "io.write": (2, "what, and where to"),
    "lazy.imputed_lazy": (2, "an object, and the model to apply to it"),
    "metrics.bulk_similarity": (2, "the estimate, and what it is compared with"),
    "metrics.log_normalised_error": (2, "truth and estimate"),
    "metrics.multinomial_gain": (2, "truth and estimate"),
    "metrics.open_problems_mse": (2, "truth and estimate"),
    "metrics.open_problems_poisson": (2, "truth and estimate"),
    "metrics.poisson_deviance": (2, "truth and estimate, as in scikit-learn's metrics"),
    "metrics.poisson_log_likelihood": (2, "truth and estimate"),
    "metrics.recovery_scores": (2, "truth and prediction, as in scikit-learn's metrics"),
    "metrics.reference_correlation": (2, "truth and estimate"),
    "pp.processed_as": (2, "counts, and the recipe to follow"),
}


def parameters_of(function):
    parameters = list(inspect.signature(function).parameters.values())
    return parameters[1:] if parameters and parameters[0].name == "self" else parameters


@pytest.mark.parametrize("name", PUBLIC)
def test_the_subject_comes_first_and_the_rest_by_name(name):
    allowed, _ = POSITIONAL.get(name, (1, ""))
    parameters = parameters_of(PUBLIC[name])
    by_position = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert len(by_position) == allowed, f"{name} takes {by_position} by position; put a * before all but {allowed}"
    assert not [p.name for p in parameters if p.kind in {p.VAR_POSITIONAL, p.VAR_KEYWORD}]


@pytest.mark.parametrize("name", [name for name in VERBS if name in FUNCTIONS])
def test_verbs_take_adata_first(name):
    assert parameters_of(VERBS[name])[0].name == "adata"


def test_the_estimator_takes_its_objective_first_and_the_rest_by_name():
    first, *rest = parameters_of(AutoImpute)
    assert first.name == "objective"
    assert {p.kind for p in rest} == {inspect.Parameter.KEYWORD_ONLY}


def test_every_exception_is_still_one():
    assert set(POSITIONAL) <= set(PUBLIC)


@pytest.mark.parametrize("name", [*PUBLIC, "AutoImpute"])
def test_everything_is_typed(name):
    function = AutoImpute.__init__ if name == "AutoImpute" else PUBLIC[name]
    untyped = [p.name for p in parameters_of(function) if p.annotation is p.empty]
    assert not untyped, f"{name}: {untyped} have no type"
    assert inspect.signature(function).return_annotation is not inspect.Signature.empty, f"{name} returns what?"


# ---------------------------------------------------------------------------------------------- docstrings


def sections(text):
    """Title → lines, of a numpydoc docstring; what comes before any title is under "summary"."""
    found, title = {"summary": []}, "summary"
    lines = inspect.cleandoc(text).splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if below and set(below) == {"-"}:
            title = line
            found[title] = []
        elif set(line) != {"-"}:
            found[title].append(line)
    return found


def named(lines):
    """Parameters that head an entry of a section."""
    return {name for line in lines if line and not line.startswith(" ") for name in line.split(", ")}


# Functions whose docstring sends the reader to another for the parameters and errors that they share.
REFERS = {"pp.processed_as": "recipe_autoimpute", "pp.processed_matrix": "recipe_autoimpute"}


@pytest.mark.parametrize("name", [*PUBLIC, "AutoImpute"])
def test_docstrings_name_every_parameter(name):
    thing = AutoImpute if name == "AutoImpute" else PUBLIC[name]
    found = sections(thing.__doc__)
    assert found["summary"][0].endswith((".", ":")), f"{name}: the summary is a sentence of one line"
    parameters = {p.name for p in parameters_of(thing)}
    if "Parameters" in found:
        assert named(found["Parameters"]) == parameters
    elif name in REFERS:
        assert f"`{REFERS[name]}`" in thing.__doc__
    else:  # a sentence may do for a short function, and for methods of which `impute` says the rest
        assert len(parameters) <= (3 if name in METHODS else 2), f"{name} needs a section Parameters"
        silent = {p for p in parameters if not re.search(rf"\b{p}\b", thing.__doc__)}
        assert name in METHODS or len(parameters) == 1 or not silent, f"{name} says nothing of {silent}"


@pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - REFERS.keys()))
def test_docstrings_say_what_is_returned(name):
    found = sections(FUNCTIONS[name].__doc__)
    returned = inspect.signature(FUNCTIONS[name]).return_annotation
    said = {"Returns", "Yields"} & set(found) or re.match(r"Return|Yield|Say", found["summary"][0])
    assert bool(said) == (returned is not None), f"{name} -> {returned}"


def test_methods_say_what_they_return():
    silent = [
        name
        for name, method in METHODS.items()
        if inspect.signature(method).return_annotation not in {None, "Self"}
        and "Returns" not in sections(method.__doc__)
        and not re.match(r"Return|Read|Do |Learn", method.__doc__)
    ]
    assert silent == []


def test_there_are_doctests():
    assert sum(map(doctests_of, MODULES)) > 30


@pytest.mark.parametrize(
    "name", [name for name in MODULES if ">>>" in inspect.getsource(importlib.import_module(name))]
)
def test_doctests(name):
    outcome = doctest.testmod(importlib.import_module(name), report=False)
    assert outcome.attempted > 0
    assert outcome.failed == 0


def doctests_of(name):
    module = importlib.import_module(name)
    return sum(len(test.examples) for test in doctest.DocTestFinder().find(module, name))


# ---------------------------------------------------------------------------------------------- public names


def is_public(name):
    """Whether a module has anything to list: its name begins with no underscore, and it holds more than a docstring."""
    code = ast.parse(inspect.getsource(importlib.import_module(name)))
    return not name.split(".")[-1].startswith("_") and len(code.body) > 1


@pytest.mark.parametrize("name", filter(is_public, MODULES))
def test_all_lists_public_names_that_exist(name):
    module = importlib.import_module(name)
    assert isinstance(module.__all__, list)
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert not public.startswith("_")
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__module__.startswith("scautoimpute"), f"{name} lists {public} of {value.__module__}"


@pytest.mark.parametrize(
    "name", ["apply", "lazy", "pp", "tl", "pl", "io", "methods", "metrics", "trust", "datasets", "errors"]
)
def test_every_public_function_and_class_is_listed(name):
    module = importlib.import_module(f"scautoimpute.{name}")
    made_here = {
        public
        for public, value in vars(module).items()
        if (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == module.__name__
    }
    assert {public for public in made_here if not public.startswith("_")} <= set(module.__all__)


def test_the_package_shows_its_public_names_only():
    assert set(dir(scautoimpute)) == {*scautoimpute.__all__, "__version__"}
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = scautoimpute.nothing


@pytest.mark.parametrize("path", SOURCE.rglob("*.py"), ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_are_short_and_say_what_they_are_for(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    assert ast.get_docstring(ast.parse(text))


# ---------------------------------------------------------------------------------------------- imports


def imported_by(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.Call) and "import" in ast.unparse(node.func) and node.args:
            yield str(getattr(node.args[0], "value", ""))


@pytest.mark.parametrize("name", ["scautoimpute", "scautoimpute.cli"])
def test_importing_is_light(name):
    heavy = {"torch", "scanpy", "pandas", "anndata", "sklearn", "matplotlib", "scipy", "numpy"}
    program = f"import sys, {name}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


COPYLEFT = {"magic", "scprep", "graphtools", "leidenalg", "igraph", "rpy2"}


def test_no_copyleft_library_is_imported_but_where_one_is_asked_for_by_name():
    imported = [
        (str(path.relative_to(SOURCE)), m.split(".")[0]) for path in SOURCE.rglob("*.py") for m in imported_by(path)
    ]
    assert ("model/network.py", "torch") in imported  # the search finds what there is
    assert [pair for pair in imported if pair[1] in COPYLEFT] == [("methods/magic.py", "magic")]


def test_the_copyleft_library_is_imported_in_a_function_and_brought_by_an_extra_only():
    tree = ast.parse((SOURCE / "methods" / "magic.py").read_text(encoding="utf-8"))
    of = {f.name: ast.unparse(f) for f in tree.body if isinstance(f, ast.FunctionDef)}
    assert [name for name, text in of.items() if "import_module('magic')" in text] == ["load"]
    program = "import sys, scautoimpute.methods; print('magic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    needed = [Requirement(r) for r in metadata.requires("scautoimpute")]
    assert [str(r.marker) for r in needed if r.name == "magic-impute"] == ['extra == "compare"']


def test_metrics_know_no_model():
    paths = (SOURCE / "metrics").glob("*.py")
    assert not [
        path.name for path in paths if re.search(r"^\s*(from|import) .*\b(model|torch)\b", path.read_text(), re.M)
    ]


# ---------------------------------------------------------------------------------------------- licences

# Libraries under the LGPL that may be there, each with its reason.
LESSER = {}
OWN_TERMS = {"cuda-toolkit"}  # that PyTorch's CUDA build brings; NVIDIA's, which name no licence in their metadata


def core_dependencies():
    """Installed distributions that a plain `pip install scautoimpute` brings, the indirect ones too."""
    found, wanted = {}, ["scautoimpute"]
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        requirements = map(Requirement, found[name].requires or [])
        wanted += [r.name for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def licence_of(distribution):
    """What a distribution declares, the most exact statement first."""
    declared = distribution.metadata
    classifiers = [c for c in declared.get_all("Classifier", []) if c.startswith("License ::") and c.count("::") > 1]
    text = (declared.get("License") or "").strip().splitlines()
    return declared.get("License-Expression") or " AND ".join(classifiers) or (text[0] if text else "")


def is_copyleft(licence):
    """Whether every alternative is the GPL, AGPL or LGPL; MPL, which ends at the file, is not."""
    licence = re.sub(r"(?i)\w*GPL[-\w.]*[- ]with[- ]GCC[-\w.]*", "", licence)
    gnu = re.compile(r"GPL|GNU (Affero |Lesser )?General Public", re.IGNORECASE)
    return all(gnu.search(alternative) for alternative in re.split(r"\bOR\b", licence))


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("GPL-2.0-only", True),
        ("License :: OSI Approved :: GNU General Public License v3 (GPLv3)", True),
        ("MIT AND AGPL-3.0-or-later", True),
        ("MIT OR GPL-2.0-only", False),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", False),
        ("MPL-2.0 AND MIT", False),
    ],
)
def test_copyleft_is_recognised(licence, expected):
    assert is_copyleft(licence) is expected


def test_no_core_dependency_is_copyleft():
    licences = {name: licence_of(distribution) for name, distribution in core_dependencies().items()}
    assert {"torch", "scanpy", "numpy", "narwhals"} & set(licences) >= {"torch", "scanpy", "numpy"}
    assert [name for name, licence in licences.items() if not licence and name not in OWN_TERMS] == []
    assert [(name, licence) for name, licence in licences.items() if is_copyleft(licence) and name not in LESSER] == []


def test_the_package_is_bsd():
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("BSD 3-Clause License")
    assert "Neither the name of the copyright holder" in text
    assert metadata.metadata("scautoimpute")["License-Expression"] == "BSD-3-Clause"
    assert re.search(r'^license = "BSD-3-Clause"$', (ROOT / "pyproject.toml").read_text(), re.M)


# ---------------------------------------------------------------------------------------------- documents


def project_files():
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no git checkout")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def test_no_file_names_a_place_on_somebodys_machine():
    places = [b"/" + b"work/", b"file://" + b"/opt", b"pypi" + b"-more", b"/" + b"home/"]
    files = project_files()
    assert ROOT / "pyproject.toml" in files
    found = [(str(p.relative_to(ROOT)), place) for p in files for place in places if place in p.read_bytes()]
    assert found == []


def test_every_make_command_in_the_documents_exists():
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    assert {"demo", "test", "check"} <= targets
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text() if (ROOT / name).exists() else ""
        told = re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)
        assert set(told) <= targets, name
    assert "demo" in re.findall(r"^make ([a-z-]+)", (ROOT / "README.md").read_text(), re.M)


def test_every_command_line_in_the_readme_is_understood():
    from typer.main import get_command

    from scautoimpute.cli import app

    commands = get_command(app).commands
    lines = re.findall(r"^scautoimpute +(.+)$", (ROOT / "README.md").read_text(), re.M)
    assert lines
    for line in lines:
        words = line.split("#")[0].split()
        understood = {option for parameter in commands[words[0]].params for option in parameter.opts}
        assert {word for word in words[1:] if word.startswith("-")} <= understood, line


def test_the_change_log_begins_with_this_version():
    newest = re.search(r"^## \[?(\d+\.\d+\.\d+\S*?)\]?(?: |$)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest
    assert newest[1] == scautoimpute.__version__
