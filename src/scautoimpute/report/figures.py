"""Drawings for reports, as SVG that follows the theme of the page: lines, boxes, points and bars in small multiples.

Each function takes panels by title and returns one `<svg>` per panel and one for the key, to be laid out by the page
in as many columns as the window holds. Nothing is computed but the layout. Names are told apart by colour and by
marker or dash, so that neither colour vision nor print matters; the colours have a contrast of 3:1 or more on white
and on the dark page alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..io.matrix import evenly_spaced
from ._svg import INK, drawing, inline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["COLORS", "Axis", "Quartiles", "bars", "boxes", "lines", "scatter_grid"]

# After Okabe & Ito (2008), the light ones darkened until they can be seen on white.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#c0689a", "#a67c00", "#2f93d1", "#8763b5", "#7c8288")
STRONG = COLORS[1]
_MARKERS = "osD^vPX*"
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
WIDTH, HEIGHT = 320, 235  # of a panel, in CSS pixels: one fits a phone
POINTS = 2000  # in a panel of points; of more, evenly spaced ones are drawn


@dataclass(frozen=True, slots=True)
class Axis:
    """What stands along an axis: its title, whether it is logarithmic, its ends, its ticks where they have names."""

    title: str
    logarithmic: bool = False
    limits: tuple[float | None, float | None] = (None, None)
    ticks: Mapping[float, str] | None = None


@dataclass(frozen=True, slots=True)
class Quartiles:
    """A distribution as a box is drawn of it."""

    min: float
    q1: float
    median: float
    q3: float
    max: float


def lines(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
    *,
    x: Axis,
    y: Axis | Mapping[str, Axis],
    names: Sequence[str] | None = None,
    strong: str | None = None,
) -> str:
    """Draw lines with the spread of each point, in one panel per title.

    Parameters
    ----------
    panels
        Title → name → points (x, y, spread), sorted by x; a y that is NaN breaks the line.
    x, y
        The axes; `y` may differ by panel: title → axis.
    names
        Every name of the report in one order, which fixes their colours; those of `panels` by default.
    strong
        The name whose line is thick, in front, and in a colour of its own.

    Returns
    -------
    SVG elements: the key, then the panels.
    """
    from matplotlib.lines import Line2D

    present = _in_order((name for panel in panels.values() for name in panel), names)
    styles = _line_styles(names or present, strong)
    drawn = [
        _lines(title, panel, x, y[title] if isinstance(y, Mapping) else y, styles) for title, panel in panels.items()
    ]
    return "\n".join([_key([Line2D([], [], **styles[name]) for name in present], present, handlelength=3), *drawn])


def _lines(
    title: str,
    panel: Mapping[str, Sequence[tuple[float, float, float]]],
    x: Axis,
    y: Axis,
    styles: Mapping[str, dict[str, Any]],
) -> str:
    with drawing(WIDTH, HEIGHT) as figure:
        ax = figure.subplots()
        for name, points in panel.items():
            at, values, spread = np.asarray(points, dtype=float).reshape(-1, 3).T
            ax.errorbar(at, values, yerr=np.where(spread > 0, spread, np.nan), elinewidth=0.8, **styles[name])
        ax.grid(axis="y")
        _finish(ax, title, x, y)
        return inline(figure, label=f"{title}: {y.title} against {x.title} of {', '.join(panel)}.")


def _line_styles(names: Sequence[str], strong: str | None) -> dict[str, dict[str, Any]]:
    """Give the strong name a colour that no other has, the others colours, markers and dashes in turn."""
    others = COLORS if strong is None else tuple(color for color in COLORS if color != STRONG)
    styles = {}
    for index, name in enumerate(name for name in names if name != strong):
        turn, place = divmod(index, len(others))
        styles[name] = {
            "color": others[place],
            "linestyle": _DASHES[turn % len(_DASHES)],
            "marker": _MARKERS[place],
            "markerfacecolor": "none" if turn else others[place],
            "markersize": 4,
            "linewidth": 1.2,
        }
    if strong is not None:
        styles[strong] = {"color": STRONG, "linewidth": 3, "marker": "o", "markersize": 6, "zorder": 5}
    return styles


def boxes(panels: Mapping[str, Mapping[str, Quartiles]], *, x: Axis, strong: str | None = None) -> str:
    """Draw lying boxes with whiskers to the ends of each distribution, in one panel per title.

    Parameters
    ----------
    panels
        Title → name → distribution; names are drawn from the top.
    x
        The axis of values, the same in all panels.
    strong
        The name whose box has the second colour.

    Returns
    -------
    SVG elements, one per panel.
    """
    return "\n".join(_boxes(title, panel, x, strong) for title, panel in panels.items())


def _boxes(title: str, panel: Mapping[str, Quartiles], x: Axis, strong: str | None) -> str:
    with drawing(WIDTH, 70 + 17 * len(panel), left=_room(panel)) as figure:
        ax = figure.subplots()
        for place, (name, box) in enumerate(panel.items()):
            color = STRONG if name == strong else COLORS[0]
            ax.plot([box.min, box.max], [place, place], color=color, lw=1.1, solid_capstyle="butt")
            ax.barh(place, box.q3 - box.q1, left=box.q1, height=0.6, facecolor=color, alpha=0.45, edgecolor=color)
            ax.plot([box.median] * 2, [place - 0.3, place + 0.3], color=INK, lw=1.8, solid_capstyle="butt")
        ax.grid(axis="x")
        _finish(ax, title, x, _named(list(panel)))
        return inline(figure, label=f"{title}: {x.title}, a box for each of {', '.join(panel)}.")


def bars(
    panels: Mapping[str, Mapping[str, tuple[float, float]]], *, x: Axis, strong: str | None = None, form: str = ".2f"
) -> str:
    """Draw lying bars with their spread, each with its value in figures, in one panel per title.

    Parameters
    ----------
    panels
        Title → name → (value, spread); names are drawn from the top, a spread of 0 is not drawn.
    x
        The axis of values.
    strong
        The name whose bar has the second colour.
    form
        How the values are printed, as `format` takes it.

    Returns
    -------
    SVG elements, one per panel.
    """
    return "\n".join(_bars(title, panel, x, strong, form) for title, panel in panels.items())


def _bars(title: str, panel: Mapping[str, tuple[float, float]], x: Axis, strong: str | None, form: str) -> str:
    with drawing(WIDTH, 70 + 17 * len(panel), left=_room(panel)) as figure:
        ax = figure.subplots()
        for place, (name, (value, spread)) in enumerate(panel.items()):
            ax.barh(place, value, height=0.65, color=STRONG if name == strong else COLORS[0])
            if spread > 0:
                ax.errorbar(value, place, xerr=spread, color=INK, elinewidth=1)
            ax.annotate(format(value, form), (max(value + spread, 0), place), (4, 0), **_BESIDE)
        ax.grid(axis="x")
        ax.margins(x=0.14)
        _finish(ax, title, x, _named(list(panel)))
        shown = ", ".join(f"{name} {format(value, form)}" for name, (value, _) in panel.items())
        return inline(figure, label=f"{title}: {x.title}: {shown}.")


_BESIDE: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9}


def scatter_grid(
    panels: Mapping[str, tuple[ArrayLike, Sequence[str]]],
    *,
    classes: Sequence[str] | None = None,
    most: int = POINTS,
    axes: str = "PC",
) -> str:
    """Draw points by class, in one small square panel per title, without ticks.

    Parameters
    ----------
    panels
        Title → (coordinates, points × 2; the class of each point). A class has the same colour in all panels.
    classes
        All classes in one order, which fixes their colours; in the order of the points by default.
    most
        Of more points than this in a panel, evenly spaced ones are drawn.
    axes
        What the coordinates are: the axes are titled with it, 1 and 2.

    Returns
    -------
    SVG elements: the key, then the panels.
    """
    present = _in_order((c for _, labels in panels.values() for c in labels), classes)
    drawn = [_scatter(title, xy, labels, present, most=most, axes=axes) for title, (xy, labels) in panels.items()]
    return "\n".join([_dot_key(present), *drawn])


def _scatter(title: str, xy: ArrayLike, labels: Sequence[str], classes: Sequence[str], *, most: int, axes: str) -> str:
    xy_N2, of_N = np.asarray(xy, dtype=float).reshape(-1, 2), np.asarray(labels, dtype=str)
    chosen = evenly_spaced(len(xy_N2), most)
    with drawing(180, 180, left=20, bottom=20) as figure:
        ax = figure.subplots()
        for index, name in enumerate(classes):
            _dots(ax, xy_N2[chosen][of_N[chosen] == name], index)
        ax.autoscale_view()
        _finish(ax, title, Axis(f"{axes} 1"), Axis(f"{axes} 2"))
        ax.set(xticks=[], yticks=[])
        ax.xaxis.label.set_fontsize(9)
        ax.yaxis.label.set_fontsize(9)
        return inline(figure, label=f"{title}: {axes} 1 and {axes} 2 of {len(xy_N2)} points, coloured by class.")


def _dots(ax: "Axes", xy_N2: NDArray[np.float64], index: int) -> None:
    """Draw all points of a class as one path of lines without length, which takes a tenth of the bytes of markers."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if not len(xy_N2):
        return
    path = Path(np.repeat(xy_N2, 2, axis=0), np.tile([Path.MOVETO, Path.LINETO], len(xy_N2)))
    ax.add_patch(PathPatch(path, facecolor="none", **_dot_style(index)))


def _dot_style(index: int) -> dict[str, Any]:
    """Round dots, then square ones, then small round ones."""
    turn = index // len(COLORS)
    return {
        "edgecolor": COLORS[index % len(COLORS)],
        "linewidth": (3.4, 3.4, 2.0)[turn % 3],
        "capstyle": ("round", "projecting", "round")[turn % 3],
    }


def _dot_key(classes: Sequence[str]) -> str:
    from matplotlib.lines import Line2D

    handles = []
    for style in map(_dot_style, range(len(classes))):
        marker = "s" if style["capstyle"] == "projecting" else "o"
        look = {"mfc": style["edgecolor"], "mew": 0, "ms": 2 * style["linewidth"]}
        handles.append(Line2D([], [], ls="", marker=marker, **look))
    return _key(handles, classes, handlelength=1, width=180)


def _key(handles: Sequence[Any], names: Sequence[str], *, handlelength: float, width: float = WIDTH) -> str:
    with drawing(width, 10 + 17.5 * len(names), left=0, bottom=0, top=0) as figure:
        figure.legend(handles, list(names), loc="upper left", handlelength=handlelength, borderpad=0)
        return inline(figure, label=f"Key: {', '.join(names)}.")


def _in_order(found: Iterable[str], names: Sequence[str] | None) -> list[str]:
    """Return each name that was found once, in the order of `names`, or of the finding."""
    present = dict.fromkeys(found)
    return list(present) if names is None else [name for name in names if name in present]


def _room(names: Iterable[str]) -> float:
    """Return the width that names on an axis need, by what letters need on the average."""
    return 16 + 5.9 * max(map(len, names))


def _named(names: Sequence[str]) -> Axis:
    """Make an axis of names, the first at the top."""
    return Axis("", limits=(len(names) - 0.4, -0.6), ticks=dict(enumerate(names)))


def _finish(ax: "Axes", title: str, x: Axis, y: Axis) -> None:
    """Title the panel at its left edge, whatever stands beside the axes, and set these."""
    figure: Any = ax.get_figure(root=True)
    width, height = figure.get_size_inches() * 72
    longest = int(width / 6.8)  # pixels of an average bold letter
    shown = title if len(title) <= longest else f"{title[: longest - 1]}…"
    figure.text(2 / width, 1 - 14 / height, shown, fontsize=11, fontweight="bold")
    _set_axis(ax, "x", x)
    _set_axis(ax, "y", y)


def _set_axis(ax: "Axes", which: str, axis: Axis) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    side = getattr(ax, f"{which}axis")
    getattr(ax, f"set_{which}label")(axis.title)
    if axis.logarithmic:
        getattr(ax, f"set_{which}scale")("log")
        side.set_major_locator(LogLocator(subs=(1, 2, 5)))
        side.set_major_formatter(StrMethodFormatter("{x:g}"))
        side.set_minor_formatter(NullFormatter())
    getattr(ax, f"set_{which}lim")(*axis.limits)
    if axis.ticks is not None:
        side.set_ticks(list(axis.ticks), list(axis.ticks.values()))
        side.set_ticks([], minor=True)
