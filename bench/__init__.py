"""Measurements: `python -m bench`, or `make bench`.

`children` starts processes and ends them; `site` makes a throw-away authority with devices; `ends` is what
the measured processes run; `stream`, `latency`, `memory`, `removal` and `engine` each measure one thing;
`figures` says what a figure is; `report` writes `bench/results/`.

Nothing here is a test: a bar that is missed is reported, it does not fail the run.
"""
