"""Numbers in runs, against a plain set."""

from hypothesis import given
from hypothesis import strategies as st

from sealcast.endpoint.runs import Runs

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9)), max_size=30)


@given(RANGES)
def test_it_is_a_set(ranges: list[tuple[int, int]]) -> None:
    runs, numbers = Runs(), set()
    for first, more in ranges:
        runs.add(first, first + more)
        numbers |= set(range(first, first + more + 1))
        assert runs.count == len(numbers)
    assert {number for number in range(80) if number in runs} == numbers
    held = {number for first, last in runs.ranges() for number in range(first, last + 1)}
    missing = {number for first, last in runs.missing(75) for number in range(first, last + 1)}
    assert (held, missing) == (numbers, set(range(75)) - numbers)
    # As few runs as can be.
    assert len(runs) == sum(number - 1 not in numbers for number in numbers)


def test_a_large_range_takes_no_room() -> None:
    runs = Runs()
    runs.add(0, 2**40)
    runs.add(2**41, 2**42)
    assert (len(runs), runs.missing(2**41)) == (2, [(2**40 + 1, 2**41 - 1)])
