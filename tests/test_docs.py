"""Pages that are made from the code say what the code says; `--write-docs` writes them."""

from pathlib import Path

from scautoimpute.evaluation.experiments import EXPERIMENTS
from scautoimpute.evaluation.settings import PAPER_EXPERIMENTS
from scautoimpute.methods import METHODS
from scautoimpute.metrics.zeros import ZERO_RULE

PAPER = Path(__file__).parents[1] / "docs" / "benchmarks" / "paper.md"
PAGE = Path(__file__).parents[1] / "docs" / "methods.md"

HEAD = """# Methods

`scautoimpute.methods.impute(adata, method=…, options={…})`, or `scautoimpute impute IN -o OUT --method … --option
NAME=VALUE`. All take counts in `X`, in a layer or in `raw` and bring them to the scale that the method works on; the
result comes back on the scale that was asked for, as a layer beside `X`, with a record in `uns`. Sizes that a method
could not hold are refused beforehand, with the estimate and what would fit. Typed, `--method autoimpute` is the default
run, whose objective the data choose, and `--method autoimpute-paper` is `--preset paper`: both are set by the options
in `--help`, not by `--option`, and below they are as `methods.impute` has them. How they compare on the same data:
[benchmarks/results/methods.md](../benchmarks/results/methods.md).
"""


def page() -> str:
    return "\n".join([HEAD, *(entry(name) for name in METHODS)])


def entry(name: str) -> str:
    record = METHODS[name]
    given = {
        None: "as they are",
        "median": "scaled to the median total of a cell",
        "genes": "divided by the mean of the cell",
    }
    total = record.takes.total
    scale = given.get(total) or f"per {total:,.0f}"
    curve = {"linear": "", "log1p": ", ln(x + 1)", "log2p1": ", log2(x + 1)", "sqrt": ", square root"}
    options = ", ".join(f"`{option}` ({default!r})" for option, default in record.options.items()) or "none"
    extra = f'`pip install "scautoimpute[{record.extra}]"`' if record.extra else "nothing"
    lines = {
        "works on": f"counts {scale}{curve[record.takes.curve]}",
        "observed values": "stay" if record.keeps_observed else "are replaced, unless `keep_observed=True`",
        "options (defaults)": options,
        "needs": f"{extra}; at least {record.min_cells} cell{'s' * (record.min_cells > 1)}",
        "limits": record.limits,
        "source": record.reference,
    }
    rows = [f"| {title} | {text} |" for title, text in lines.items()]
    return "\n".join([f"## `{name}`: {record.title}\n", "| | |", "| --- | --- |", *rows, ""])


def test_the_page_of_methods_says_what_their_records_say(request):
    if request.config.getoption("--write-docs"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "run pytest tests/test_docs.py --write-docs"


def test_the_page_of_the_papers_experiments_says_how_each_was_done():
    paragraphs = PAPER.read_text(encoding="utf-8").split("\n\n")
    assert [name for name in PAPER_EXPERIMENTS if EXPERIMENTS[name].what not in paragraphs] == []
    assert ZERO_RULE in paragraphs


def test_the_readme_names_every_method():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert [name for name in METHODS if f"`{name}`" not in text] == []
