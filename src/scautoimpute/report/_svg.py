"""From a matplotlib figure to SVG that stands in a page: text as text, the theme's ink, no ids but those in use."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"  # stands for the colour of the page's text, which matplotlib cannot know
_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "scautoimpute",
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "path.simplify": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": True,
    "axes.formatter.useoffset": False,
    "figure.facecolor": "none",
    "grid.color": INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


@contextmanager
def drawing(
    width: float, height: float, *, left: float = 52, bottom: float = 44, top: float = 24
) -> Iterator["Figure"]:
    """Give a matplotlib figure in which colours and text are as the page wants them; all sizes in CSS pixels.

    Margins are fixed, so that the axes of neighbouring panels line up.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _SETTINGS]):  # whatever the user's matplotlibrc says
        figure = Figure(figsize=(width / 72, height / 72))
        figure.subplots_adjust(left / width, bottom / height, 1 - 6 / width, 1 - top / height)
        yield figure


def inline(figure: "Figure", *, label: str) -> str:
    """Return a figure made in `drawing` as an <svg> element; `label` is its alt text."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(buffer.getvalue())
    referred = set(re.findall(r'(?:href="#|url\(#)([\w-]+)', buffer.getvalue().decode()))
    for parent in list(root.iter()):
        for child in [c for c in parent if c.tag.endswith(("}metadata", "}style"))]:  # a style would rule the page
            parent.remove(child)
    for element in root.iter():
        _simplify(element, referred)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label, "stroke-linejoin": "round"}
    return _compact(ElementTree.tostring(root, encoding="unicode"))


def _simplify(element: "ElementTree.Element", referred: set[str]) -> None:
    """Take away namespaces, which HTML does not need, and ids that nothing refers to."""
    element.tag = element.tag.rpartition("}")[2]
    element.attrib = {
        name.rpartition("}")[2]: value for name, value in element.attrib.items() if name != "id" or value in referred
    }


def _compact(svg: str) -> str:
    svg = svg.replace(INK, "currentColor")
    svg = re.sub(r"'DejaVu Sans'(, [^;\"]*)?", "system-ui, sans-serif", svg)
    svg = re.sub(r"<[^<>]+>", _rounded, svg)
    svg = re.sub(r"M (\S+) (\S+)\s+L \1 \2\s*", r"M\1 \2h0", svg)  # a dot: a line of no length, with round ends
    svg = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", svg)
    return re.sub(r" {2,}", " ", re.sub(r"\s*\n\s*", "\n", svg)).strip()


def _rounded(tag: re.Match[str]) -> str:
    """Cut the numbers of a tag, not those of a text, to a hundredth of a pixel, which is not seen."""
    return re.sub(r"(?<![\w#.-])(-?\d+\.\d{2})\d+", r"\1", tag[0])
