"""What a figure is: values of several runs, their median and spread, a ratio, a bar."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What a figure should reach."""

    limit: float
    at_least: bool

    def is_met(self, value: float) -> bool:
        """Whether a median reaches it."""
        return value >= self.limit if self.at_least else value < self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '<'} {number(self.limit)}"


def at_least(limit: float) -> Bar:
    """Return a bar for what should be high."""
    return Bar(limit=limit, at_least=True)


def below(limit: float) -> Bar:
    """Return a bar for what should be low."""
    return Bar(limit=limit, at_least=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured quantity."""

    group: str
    """Heading under which it is reported."""
    name: str
    unit: str
    values: list[float]
    """One per run."""
    bar: Bar | None = None
    ratio_to: str | None = None
    """Name of the figure of the same group that it is set against."""
    note: str = ""

    @property
    def median(self) -> float:
        """The middle value."""
        return median(self.values)

    def as_json(self, ratio: float | None) -> dict[str, Any]:
        """Return the fields of the JSON report."""
        fields: dict[str, Any] = {
            "group": self.group,
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "values": self.values,
        }
        if ratio is not None:
            fields |= {"ratio": ratio, "ratio_to": self.ratio_to}
        if self.bar is not None:
            fields |= {"bar": str(self.bar), "bar_met": self.bar.is_met(self.median)}
        if self.note:
            fields["note"] = self.note
        return fields


@dataclass(slots=True)
class Figures:
    """All figures of a run, in the order of the report."""

    all: list[Figure] = field(default_factory=list)

    def add(self, figure: Figure) -> None:
        """Take a figure and say it."""
        self.all.append(figure)
        text = f"{number(figure.median)} ({number(min(figure.values))} - {number(max(figure.values))})"
        verdict = ""
        if figure.bar is not None:
            verdict = f"   bar {figure.bar}: {'met' if figure.bar.is_met(figure.median) else 'MISSED'}"
        print(f"  {figure.name:<58} {text} {figure.unit}{verdict}", flush=True)

    def ratio(self, figure: Figure) -> float | None:
        """Return the median over that of the figure it is set against, if that was measured."""
        for other in self.all:
            if other.group == figure.group and other.name == figure.ratio_to and other.median:
                return figure.median / other.median
        return None


def number(value: float) -> str:
    """Return a number as people read it: three digits that count, thousands apart."""
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"
