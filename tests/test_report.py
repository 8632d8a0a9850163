"""Reports are one file that needs nothing else, say what the results say, and can be read on a phone and at night."""

import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from report_results import EXPERIMENTS, METHODS, SIZES, TYPES, results
from scautoimpute.report import Figure, Listing, Prose, Section, Table, Verdict, render, write_page
from scautoimpute.report._results import MEASURES, Score, marks_of, rows_of
from scautoimpute.report.figures import COLORS, Axis, Quartiles, bars, boxes, lines, scatter_grid
from scautoimpute.report.own import write_evaluation_report
from scautoimpute.report.paper import paper_markdown, write_paper_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
PAPER, DARK = "#ffffff", "#14181c"  # what the two themes are drawn on
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """What a page is made of: every element with its attributes and text, and whether all that opened was closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        element = {"tag": tag, "text": "", **dict(attrs)}
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append({"tag": tag, "text": "", **dict(attrs)})

    def handle_endtag(self, tag):
        assert self.open.pop()["tag"] == tag

    def handle_data(self, data):
        for element in self.open:
            element["text"] += data

    def all(self, tag):
        return [element for element in self.elements if element["tag"] == tag]


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "paper.html"
    write_paper_report(results(n_seeds=2, n_points=200), path)
    return path


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "own.html"
    write_evaluation_report(results("evaluation", n_seeds=2, n_points=60), path)
    return path


@pytest.fixture(params=["paper", "own"])
def report(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def small():
    points = np.random.default_rng(0).normal(size=(50, 2))
    drawn = {
        "lines": lines({"a & b": {"x": [(1, 2, 0.1), (2, 3, 0)]}}, x=Axis("share"), y=Axis("RMSE")),
        "boxes": boxes({"set": {"x": Quartiles(0, 1, 2, 3, 4)}}, x=Axis("ln CV")),
        "bars": bars({"set": {"x": (0.5, 0.1), "y": (-0.25, 0)}}, x=Axis("ARI")),
        "points": scatter_grid({"set": (points, ["p", "q"] * 25)}),
    }
    return {name: (svg, Figure(svg, f"alt of {name}", f"caption of {name}")) for name, svg in drawn.items()}


# ---------------------------------------------------------------------------------------------- the page


def test_the_page_needs_nothing_else(report):
    html = report.read_text()
    page = Page(html)
    assert page.open == []
    assert not [e for e in page.elements if e["tag"] in {"script", "iframe", "object", "embed", "img", "base"}]
    assert not [name for e in page.elements for name in e if name.startswith("on")]
    targets = [e[name] for e in page.elements for name in ("src", "href", "data", "action") if name in e]
    assert targets
    assert all(target.startswith(("#", "data:")) for target in targets)
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html
    assert "http" not in html
    assert len(html.encode()) < 3_000_000


def test_every_drawing_and_table_has_words(report):
    page = Page(report.read_text())
    drawings, figures = page.all("svg"), page.all("figure")
    assert len(figures) >= 3
    assert len(drawings) > len(figures)
    assert all(drawing["role"] == "img" and len(drawing["aria-label"]) > 5 for drawing in drawings)
    groups = [e for e in page.elements if e.get("role") == "group"]
    assert len(groups) == len(figures)
    assert all(len(group["aria-label"]) > 30 for group in groups)
    scrolled = [e for e in page.elements if e.get("role") == "region"]
    assert len(scrolled) == len(page.all("table"))
    assert all(e["aria-label"] and e["tabindex"] == "0" for e in scrolled)


def test_ids_are_unique_and_what_is_referred_to_exists(report):
    html = report.read_text()
    ids = [e["id"] for e in Page(html).elements if "id" in e]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html)) != set()
    assert {a or b for a, b in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', html)} <= set(ids)


def test_the_same_drawing_twice_keeps_its_own_parts(small):
    html = render("Twice", [Section("Both", [small["lines"][1], small["lines"][1]])])
    ids = [e["id"] for e in Page(html).elements if "id" in e]
    assert len(ids) > 2
    assert len(ids) == len(set(ids))


def test_what_is_given_is_shown_as_text_not_as_markup():
    blocks = [
        Prose("first <b>\n\nsecond"),
        Verdict("Do <i>not</i>.", kind="bad"),
        Listing(["<u>"]),
        Table('cap"tion', ["a<", "b"], [["r>", "<script>alert()</script>"], ["s", ""]], {(0, 1): "best"}),
    ]
    page = Page(render("T <x>", [Section("S & t", blocks), Section("empty", [])], subtitle="<s>", footer="<f>"))
    assert not [e for e in page.elements if e["tag"] in {"bu", "i", "script", "s", "f", "x"}]
    assert [e["text"] for e in page.all("p") if "class" not in e] == ["first <b>", "second", "Do <i>not</i>."]
    assert page.all("h1")[0]["text"] == "T <x>"
    assert [e["text"] for e in page.all("h2")] == ["S & t"]
    assert [e["text"] for e in page.all("td")] == ["★ <script>alert()</script>", "–"]
    assert [e["text"] for e in page.all("th")] == ["a<", "b", "r>", "s"]


def test_the_same_results_give_the_same_bytes(tmp_path):
    program = (
        "import sys, matplotlib; settings = {'font.size': float(sys.argv[1]), 'savefig.bbox': 'tight'};"
        "matplotlib.rcParams.update(settings);"
        "from scautoimpute.report.figures import *; import hashlib;"
        "svg = lines({'t': {'x': [(1, 2, .1), (3, 4, .1)]}}, x=Axis('a', logarithmic=True), y=Axis('b'));"
        "svg += scatter_grid({'t': ([[1, 2], [3, 4]], ['a', 'b'])});"
        "print(hashlib.sha256(svg.encode()).hexdigest())"
    )
    digests = set()
    for size in ("8", "20"):
        environment = os.environ | {"PYTHONHASHSEED": size, "MPLCONFIGDIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", program, size], capture_output=True, text=True, check=True, env=environment
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_a_report_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "r.html"
    write_page(path, "<p>old</p>")
    with pytest.raises(UnicodeEncodeError):
        write_page(path, "new \ud800")
    assert path.read_text() == "<p>old</p>"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


# ---------------------------------------------------------------------------------------------- drawings


@pytest.mark.parametrize("name", ["lines", "boxes", "bars", "points"])
def test_drawings_follow_the_theme(small, name):
    svg = small[name][0]
    fonts = set(re.findall(r"font-family: ([^;\"]+)", svg))
    assert fonts == {"system-ui, sans-serif"}
    assert "currentColor" in svg
    used = {c.lower() for c in re.findall(r"(?:fill|stroke): (#\w+)", svg)}
    assert used <= set(COLORS)
    assert "<text" in svg  # not outlines
    assert "xmlns" not in svg
    assert "<metadata" not in svg


def luminance(color):
    channels = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("ground", [PAPER, DARK])
@pytest.mark.parametrize("color", COLORS)
def test_colors_stand_out_on_both_themes(color, ground):
    low, high = sorted([luminance(color), luminance(ground)])
    assert (high + 0.05) / (low + 0.05) >= 3  # WCAG 2, graphical objects


def test_numbers_on_an_axis_keep_their_digits():
    svg = lines({"t": {"a": [(1, 6.9051, 0), (2, 6.9149, 0)]}}, x=Axis("x"), y=Axis("y"))
    ticks = re.findall(r">(6\.\d+)<", svg)
    assert len(ticks) >= 3
    assert len(set(ticks)) == len(ticks)


def test_dots_are_where_the_points_are():
    xy = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 5.0], [5.0, 2.5]])
    svg = scatter_grid({"t": (xy, ["a"] * 4)})
    path = max(re.findall(r'd="((?:M[\d.]+ [\d.]+h0)+)', svg), key=len)
    drawn = np.array([[float(a), float(b)] for a, b in re.findall(r"M([\d.]+) ([\d.]+)h0", path)])
    scale = np.ptp(drawn, axis=0) / np.ptp(xy, axis=0)
    expected = drawn[0] + (xy - xy[0]) * scale * [1, -1]  # SVG counts downwards
    np.testing.assert_allclose(drawn, expected, atol=0.03)


def test_of_many_points_some_are_drawn():
    xy = np.random.default_rng(0).normal(size=(7000, 2))
    svg = scatter_grid({"t": (xy, ["a"] * 7000)})
    assert svg.count("h0") == 2000
    assert "7000 points" in svg
    assert scatter_grid({"t": (xy, ["a"] * 7000)}, most=300).count("h0") == 300


def test_a_line_is_broken_where_a_value_is_missing():
    def whole(y):
        return lines({"t": {"a": [(1, 1, 0), (2, y, 0), (3, 3, 0)]}}, x=Axis("x"), y=Axis("y"))

    def longest(svg):
        svg = svg.split("<svg")[-1]
        return max(len(re.findall("L ", d)) for d in re.findall(r'd="([^"]*)"[^>]*stroke: #0072b2', svg))

    assert longest(whole(2)) == 2
    assert longest(whole(math.nan)) == 0


# ---------------------------------------------------------------------------------------------- numbers


def test_means_and_spreads_are_those_of_the_cells():
    found = results(n_seeds=4, n_points=5)
    values = [
        score["value"]
        for cell in found["cells"]
        if (cell["experiment"], cell["dataset"], cell["method"]) == ("recovery", "zeisel", "als")
        for score in cell["scores"]
        if (score["setting"], score["measure"]) == ("30%", "mae")
    ]
    row = next(r for r in rows_of(found, "recovery", "mae") if (r.dataset, r.setting) == ("zeisel", "30%"))
    assert len(values) == 4
    assert row.scores["als"].mean == pytest.approx(np.mean(values))
    assert row.scores["als"].sd == pytest.approx(np.std(values, ddof=1))
    assert row.reasons == {"magic": "not run"}
    assert "magic" not in row.scores


def test_the_spread_of_restarts_adds_to_that_of_seeds():
    found = results(n_seeds=2, n_points=5)
    mine = [c for c in found["cells"] if (c["experiment"], c["dataset"], c["method"]) == ("structure", "zeisel", "als")]
    for cell, value in zip(mine, (0.5, 0.7), strict=True):
        cell["scores"] = [
            {"setting": "all types", "measure": "ari", "value": value},
            {"setting": "all types", "measure": "ari_sd", "value": 0.1},
        ]
    score = next(r for r in rows_of(found, "structure", "ari") if r.dataset == "zeisel").scores["als"]
    assert score.mean == pytest.approx(0.6)
    assert score.sd == pytest.approx(math.sqrt(statistics.variance([0.5, 0.7]) + 0.1**2))


def of(*values):
    return Score(dict(enumerate(values)))


@pytest.mark.parametrize(
    ("scores", "measure", "expected"),
    [
        ({"a": of(1, 1.1), "b": of(2, 2.1)}, "rmse", {"a": "best"}),
        ({"a": of(1, 1.1), "b": of(2, 2.1)}, "ari", {"b": "best"}),
        # b - a: 0, 0.2, 0.4; mean 0.2, standard error 0.2 / √3 = 0.115
        ({"a": of(1, 1, 1), "b": of(1, 1.2, 1.4)}, "rmse", {"a": "best"}),
        # b - a: -0.2, 0.2, 0.2; mean 0.067, standard error 0.133
        ({"a": of(1, 1, 1), "b": of(0.8, 1.2, 1.2)}, "rmse", {"a": "best", "b": "tied"}),
        ({"a": of(1, 5, 9), "b": of(1.1, 5.1, 9.1)}, "rmse", {"a": "best"}),  # seeds differ more than methods do
        ({"a": of(1, 1, 1), "b": Score({7: 1.0})}, "rmse", {"a": "best"}),  # no seed in common
        ({"a": of(1), "b": of(1)}, "rmse", {"a": "best", "b": "tied"}),
        ({"a": of(1), "b": of(1.0001)}, "rmse", {"a": "best"}),
        ({"a": of(1, 2)}, "rmse", {}),
        ({"a": of(1, 1), "b": of(2, 2)}, "log_cv_median", {}),
        ({"none": of(0.1), "a": of(2), "b": of(3)}, "seconds", {"a": "best"}),
    ],
)
def test_the_best_is_marked_and_ties_within_noise(scores, measure, expected):
    assert marks_of(scores, MEASURES[measure]) == expected


@pytest.mark.parametrize(
    ("value", "text"), [(0.01234, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234"), (0.0, "0.000")]
)
def test_seconds_are_printed_with_three_digits(value, text):
    assert MEASURES["seconds"].text(of(value)) == text


# ---------------------------------------------------------------------------------------------- the two reports


def test_the_paper_report_says_what_was_found(paper):
    page = Page(paper.read_text())
    titles = " | ".join(e["text"] for e in page.all("h2"))
    for part in ("claims", "True zeros", "Recovery", "Clusters", "Variance", "Separability", "Scale", "no result"):
        assert part in titles
    cells = [e["text"] for e in page.all("td")]
    assert {"✓ reproduced", "✗ not reproduced", "· not tested here"} <= set(cells)
    assert "30 cells are too few" in cells
    assert 'install it with: pip install "scautoimpute[compare]"' in cells
    assert "timed out" in cells
    assert "Of 3 claims, 1 reproduced, 1 not reproduced, 1 not tested here." in paper.read_text()
    heads = [e["text"] for e in page.all("th")]
    assert {"RMSE", *METHODS.values()} - set(heads) == {"RMSE"}
    assert {f"zeisel, {n:,} cells, resampled" for n in SIZES} <= set(heads)
    assert "zeisel, 68,000 cells, resampled" in cells  # where the methods that ended without a result are named
    assert heads.count("zeisel, all types") == 1  # the variance has a row for each type; clusters have but one
    assert "Someone & Other, Journal 1:1 (2018)" in cells
    assert any("scautoimpute paper data -o report" in cell for cell in cells)


def test_every_method_that_ran_has_a_panel_of_points(paper):
    labels = [e["aria-label"] for e in Page(paper.read_text()).all("svg")]
    panels = [label.partition(":")[0] for label in labels if "coloured by class" in label]
    assert len(panels) == 3 * len(METHODS) - 2  # on three data sets; two cells have no result
    keys = [label for label in labels if label.startswith("Key: ") and TYPES[0] in label]
    assert keys == [f"Key: {', '.join(TYPES)}."] * 3


def test_the_report_on_ones_own_data_begins_with_the_recommendation(own):
    page = Page(own.read_text())
    first = next(e for e in page.elements if "verdict" in e.get("class", ""))
    assert "it predicts held-out molecules best" in first["text"]
    assert "good" in first["class"]
    assert page.all("h2")[0]["text"] == "In words"
    assert "Scale" not in [e["text"] for e in page.all("h2")]


def test_the_report_on_ones_own_data_counts_the_zeros_left_without_bulk(tmp_path):
    found = results("evaluation", n_seeds=2, n_points=60)
    write_evaluation_report(found, tmp_path / "r.html")
    section = (tmp_path / "r.html").read_text().split("<h2>Zeros left</h2>")[1].split("<h2>")[0]
    page = Page(section.partition("</section>")[0])
    assert page.all("p")[0]["text"] == "Below half a read is zero."
    assert page.all("p")[1]["text"].startswith("Zeros left, as a fraction of all values")
    heads = [e["text"] for e in page.all("th")]
    assert heads == ["data set", *METHODS.values(), "blakeley"]
    left = {title: f"{0.9 / (1 + number / 10):.3f}± 0.000" for number, title in enumerate(METHODS.values())}
    shown = dict(zip(METHODS.values(), (e["text"] for e in page.all("td")), strict=True))
    assert shown == left | {"scVI": "failed"}


def test_how_own_data_were_imputed_is_said_without_labels_too(tmp_path):
    found = results("evaluation", n_seeds=1, n_points=60)
    write_evaluation_report(found, tmp_path / "labels.html")
    for cell in found["cells"]:
        cell["scores"] = [s for s in cell["scores"] if s["measure"] not in {"ari", "ari_sd"}]
    write_evaluation_report(found, tmp_path / "none.html")
    for name in ("labels", "none"):
        assert (tmp_path / f"{name}.html").read_text().count("<p>How structure was done.</p>") == 1


@pytest.mark.parametrize(
    ("outcomes", "kind"),
    [
        ([True, True], "good"),
        ([True, False], "caution"),
        ([True, None], "good"),
        ([False, None], "bad"),
        ([None], "neutral"),
    ],
)
def test_the_claims_are_summed_up(tmp_path, outcomes, kind):
    found = results(n_seeds=1, n_points=5) | {"cells": []}
    found["claims"] = [{"paper": "p", "ours": "o", "reproduced": outcome} for outcome in outcomes]
    write_paper_report(found, tmp_path / "r.html")
    verdict = next(e for e in Page((tmp_path / "r.html").read_text()).elements if "verdict" in e.get("class", ""))
    assert verdict["class"] == f"verdict {kind}"
    assert f"Of {len(outcomes)} claims" in verdict["text"]


@pytest.mark.parametrize(
    ("text", "kind", "shown"),
    [("Do not impute: nothing helps.", "caution", "Do not impute: nothing helps."), (None, "neutral", "too little")],
)
def test_not_to_impute_is_an_answer_too(tmp_path, text, kind, shown):
    found = results("evaluation", n_seeds=1, n_points=20)
    found["recommendation"], found["cells"] = text, []
    write_evaluation_report(found, tmp_path / "r.html")
    verdict = next(e for e in Page((tmp_path / "r.html").read_text()).elements if "verdict" in e.get("class", ""))
    assert kind in verdict["class"]
    assert shown in verdict["text"]


def test_the_markdown_holds_the_tables_of_the_report(paper):
    text = paper_markdown(results(n_seeds=2, n_points=20))
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    page = Page(paper.read_text())
    assert [h for h in (e["text"] for e in page.all("h2")) if h not in headings] == []
    assert text.count("| --- |") + text.count("| --- | --- |") > 0
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    assert len(tables) == len(page.all("table"))
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert "**" in text
    assert "*timed out*" in text


def test_the_markdown_says_how_each_experiment_was_done(paper):
    text = paper_markdown(results(n_seeds=2, n_points=20))
    under = dict(part.split("\n", 1) for part in text.split("\n## ")[1:])
    headings = ("True zeros", "Recovery", "Clusters", "Scale", "Held-out molecules")
    for experiment, heading in zip(EXPERIMENTS, headings, strict=True):
        (first,) = [section for title, section in under.items() if title.startswith(heading)]
        assert first.startswith(f"\nHow {experiment} was done.\n\n")
    assert "\n\nBelow half a read is zero.\n\n" in under["True zeros (Fig. 2)"]
    assert under["The claims"].startswith("\nOf 3 claims, 1 reproduced, 1 not reproduced, 1 not tested here.\n\n")
    assert under["What has no result, and why"].endswith("\n\nAlso:\n\n- trapnell: no labels\n")
    prose = {e["text"] for e in Page(paper.read_text()).all("p") if "class" not in e}
    assert len(prose) > len(EXPERIMENTS)
    assert [words for words in prose if f"\n\n{words}\n" not in text] == []


def test_cells_of_a_size_that_were_kept_by_an_earlier_version_are_called_resampled_too():
    found = results(n_seeds=1, n_points=5)
    for score in (s for c in found["cells"] if c["experiment"] == "scale" for s in c["scores"]):
        score["setting"] = score["setting"].removesuffix(", resampled")
    rows = rows_of(found, "scale", "seconds")
    assert [row.setting for row in rows] == [f"{n:,} cells, resampled" for n in SIZES]
    assert rows[-1].reasons == {"als": "timed out", "drimpute": "timed out"}


def test_a_report_is_written_of_results_that_are_all_failures(tmp_path):
    found = results(n_seeds=1, n_points=5)
    for cell in found["cells"]:
        cell.update(status="failed", note="boom", scores=[], figure={}, seconds=None, peak_gb=None)
    write_paper_report(found | {"claims": []}, tmp_path / "r.html")
    assert [e["text"] for e in Page((tmp_path / "r.html").read_text()).all("td")].count("boom") > 10


# ---------------------------------------------------------------------------------------------- in a browser

PROBE = """
<!DOCTYPE html><html style="color-scheme: light dark"><body style="margin:0">
<iframe id="f" style="border:0;width:%dpx;height:900px"></iframe><pre id="out"></pre><script>
const frame = document.getElementById("f");
frame.onload = () => {
  const page = frame.contentDocument, style = (e) => frame.contentWindow.getComputedStyle(e);
  const size = (e) => { const r = e.getBoundingClientRect(); return [r.width, r.height]; };
  document.getElementById("out").textContent = JSON.stringify({
    overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
    ground: style(page.body).backgroundColor, ink: style(page.body).color,
    tables: [...page.querySelectorAll("table")].map(size),
    scrolls: [...page.querySelectorAll(".scroll")].map((e) => [e.clientWidth, e.scrollWidth, style(e).overflowX]),
    drawings: [...page.querySelectorAll("svg")].map((e) => [...size(e), e.getAttribute("aria-label")]),
    letters: [...page.querySelectorAll("svg text")].map((e) => e.getBoundingClientRect().height),
    lettering: [...new Set([...page.querySelectorAll("svg text")].map((e) => style(e).fill))],
  });
};
frame.srcdoc = %s;
</script></body></html>
"""


def looked_at(report, tmp_path, *, width, dark=False):
    """What headless Chromium makes of a report in a window of that width, and what it complains of."""
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome was found: the report is not looked at in a browser")
    html = json.dumps(report.read_text()).replace("</", "<\\/")
    (tmp_path / "probe.html").write_text(PROBE % (width, html))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=9000"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1500,1000", "--dump-dom"]
    options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    done = subprocess.run(
        [CHROMIUM, *options, (tmp_path / "probe.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.S)[1]
    unescaped = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return json.loads(unescaped), re.findall(r".*CONSOLE.*", done.stderr)


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1400, False)])
def test_the_report_in_a_browser(report, tmp_path, width, dark):
    seen, complaints = looked_at(report, tmp_path, width=width, dark=dark)
    page = Page(report.read_text())
    assert complaints == []
    assert seen["overflow"] <= 0
    assert len(seen["tables"]) == len(page.all("table"))
    assert all(w > 50 and h > 20 for w, h in seen["tables"])
    assert all(w <= width and overflow == "auto" for w, _, overflow in seen["scrolls"])
    assert any(inside > w for w, inside, _ in seen["scrolls"]) or width > 390
    assert len(seen["drawings"]) == len(page.all("svg"))
    assert all(w > 100 and h > 20 and alt for w, h, alt in seen["drawings"])
    assert min(seen["letters"]) >= 8  # pixels: legible
    grey = [sum(map(int, re.findall(r"\d+", seen[part])[:3])) / 3 for part in ("ground", "ink")]
    assert (grey[0] < 50 and grey[1] > 200) if dark else (grey[0] > 240 and grey[1] < 60)
    assert seen["lettering"] == [seen["ink"]]
