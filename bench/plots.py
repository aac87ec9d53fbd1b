"""Plots of a run, as SVG: where a group sets figures of one unit side by side, bars with their spread."""

from __future__ import annotations

import re
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.figures import number

_LEAST = 3
"""Figures of one unit that are worth a picture."""
_OURS, _OTHERS = "#1f6f8b", "#b8b8b8"
_RIVALS = ("bare", "Cyclone", "UFTP", "NORM", "NATS", "mosquitto", "plain", "TLS")
_HEIGHT_INCHES = 0.34


def draw(run: dict[str, Any], folder: Path) -> dict[str, Path]:
    """Write one plot for each group that has enough to compare; return them by group.

    Without matplotlib, which `make bench` installs, there are none.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        print("no plots: matplotlib is not here; `make bench` installs it")
        return {}
    mpl.use("svg")
    # The same figures give the same file.
    mpl.rcParams["svg.hashsalt"] = "sealcast"
    plotted = {}
    for group, members in groupby(run["figures"], key=lambda figure: str(figure["group"])):
        figures = _of_the_first_unit(list(members))
        if len(figures) >= _LEAST:
            folder.mkdir(parents=True, exist_ok=True)
            plotted[group] = folder / f"{re.sub('[^a-z0-9]+', '-', group.lower()).strip('-')}.svg"
            _bars(group, figures, plotted[group])
    return plotted


def _of_the_first_unit(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [figure for figure in figures if figure["unit"] == figures[0]["unit"]]


def _bars(title: str, figures: list[dict[str, Any]], file: Path) -> None:
    from matplotlib import pyplot

    names = [figure["name"] for figure in figures]
    medians = [figure["median"] for figure in figures]
    spread = [
        [figure["median"] - figure["min"] for figure in figures],
        [figure["max"] - figure["median"] for figure in figures],
    ]
    colours = [_OTHERS if name.startswith(_RIVALS) else _OURS for name in names]
    plot, axes = pyplot.subplots(figsize=(9, 1.1 + _HEIGHT_INCHES * len(names)), layout="constrained")
    axes.barh(names, medians, xerr=spread, color=colours, ecolor="#444444", capsize=2, height=0.7)
    for place, figure in enumerate(figures):
        axes.annotate(
            number(figure["median"]),
            (figure["max"], place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(figures[0]["unit"] or "ratio", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    # No date: it would change with every run.
    plot.savefig(file, metadata={"Date": None})
    pyplot.close(plot)
