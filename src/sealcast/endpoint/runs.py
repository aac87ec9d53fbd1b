"""Numbers in runs: the pieces of a file that are here, or that are wanted."""

from bisect import bisect_left, bisect_right


class Runs:
    """A set of numbers that mostly follow each other; `len` is how many runs it takes."""

    __slots__ = ("_firsts", "_lasts", "count")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.count = 0
        """Numbers in it."""

    def __len__(self) -> int:
        return len(self._firsts)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number <= self._lasts[at]

    def add(self, first: int, last: int) -> None:
        """Add the numbers from `first` to `last`, last included."""
        begin = bisect_left(self._lasts, first - 1)
        end = bisect_right(self._firsts, last + 1)
        if begin < end:
            first, last = min(first, self._firsts[begin]), max(last, self._lasts[end - 1])
            self.count -= sum(
                b - a + 1 for a, b in zip(self._firsts[begin:end], self._lasts[begin:end], strict=True)
            )
        self._firsts[begin:end] = [first]
        self._lasts[begin:end] = [last]
        self.count += last - first + 1

    def ranges(self) -> list[tuple[int, int]]:
        """First and last of each run."""
        return list(zip(self._firsts, self._lasts, strict=True))

    def missing(self, total: int) -> list[tuple[int, int]]:
        """First and last of what is not in it of the numbers below `total`."""
        found, due = [], 0
        for first, last in zip(self._firsts, self._lasts, strict=True):
            if first > due:
                found.append((due, first - 1))
            due = last + 1
        if due < total:
            found.append((due, total - 1))
        return found
