"""The report of a run: JSON for programs, a Markdown table for people."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from bench import plots
from bench.children import ROOT
from bench.figures import Figures, number

RESULTS = ROOT / "bench" / "results"

_HOW_TO_READ = """Medians, least and most of all runs. The two processes of a pair share the machine's cores:
with two of them, a difference below a quarter means little. How to repeat this: `bench/PROFILE.md`."""


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    facts = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "rustc": _output("rustc", "--version"),
        "commit": _output("git", "rev-parse", "HEAD"),
        "uncommitted_changes": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
        "load_before": round(os.getloadavg()[0], 2),
    }
    for name in ("rmem_max", "wmem_max"):
        path = Path("/proc/sys/net/core") / name
        if path.exists():
            facts[f"net.core.{name}"] = int(path.read_text())
    return facts


def write(
    figures: Figures,
    facts: dict[str, Any],
    missing: Mapping[str, str],
    *,
    command: str,
    seconds: float,
    json_file: Path,
) -> None:
    """Write the JSON file, and beside it the table (Markdown) and the plots (SVG).

    `missing`: parts that were not measured, or not whole, and why.
    """
    run = {
        "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "command": command,
        "seconds": round(seconds),
        "machine": facts,
        "missing": dict(missing),
        "figures": [figure.as_json(figures.ratio(figure)) for figure in figures.all],
    }
    json_file.parent.mkdir(parents=True, exist_ok=True)
    json_file.write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n")
    plotted = plots.draw(run, json_file.with_suffix(""))
    json_file.with_suffix(".md").write_text(_markdown(run, plotted))


def _markdown(run: dict[str, Any], plotted: dict[str, Path]) -> str:
    facts = run["machine"]
    dirty = " with uncommitted changes" if facts["uncommitted_changes"] else ""
    lines = [
        "# Figures",
        "",
        f"`{run['command']}`, {run['date']}, commit {facts['commit'][:12]}{dirty}; {run['seconds']} s.",
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory']}; {facts['kernel']}; "
        f"Python {facts['python']}; {facts['rustc']}; load before the run {facts['load_before']}; "
        + "; ".join(f"{name} {value}" for name, value in facts.items() if name.startswith("net."))
        + ".",
        "",
        _HOW_TO_READ,
    ]
    for name, reason in run["missing"].items():
        lines.append(f"\nNot whole: {name} ({reason}).")
    for group, members in groupby(run["figures"], key=lambda figure: str(figure["group"])):
        lines += ["", f"## {group[0].upper()}{group[1:]}", ""]
        if group in plotted:
            path = plotted[group]
            lines += [f"![{group}]({path.parent.name}/{path.name})", ""]
        lines += [
            "| | median | min - max | unit | ratio | bar | |",
        ]
        lines.append("|---|---:|---:|---|---:|---|---|")
        lines += [_row(figure) for figure in members]
    return "\n".join(lines) + "\n"


def _row(figure: dict[str, Any]) -> str:
    spread = f"{number(figure['min'])} - {number(figure['max'])}"
    ratio = f"{figure['ratio']:.2f}" if "ratio" in figure else ""
    bar = ""
    if "bar" in figure:
        bar = f"{figure['bar']}: " + ("met" if figure["bar_met"] else "**missed**")
    cells = [
        figure["name"],
        number(figure["median"]),
        spread,
        figure["unit"],
        ratio,
        bar,
        figure.get("note", ""),
    ]
    return "| " + " | ".join(cells) + " |"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
