"""Where all chance of a simulation comes from."""

import random


def chance(what: str, seed: int) -> random.Random:
    """Return a generator for one purpose of one seed; others do not disturb it.

    It decides losses, and makes the keys of throw-away sites: it is predictable on purpose.
    """
    return random.Random(f"{what} {seed}")  # noqa: S311
