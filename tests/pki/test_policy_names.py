"""The names of a policy: whatever changes, what is encoded is what a list made anew encodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealcast.errors import UsageError
from sealcast.pki.policy_names import BLOCK_NAMES, NameBlock, Names
from sealcast.pki.signed import encode_cbor

NUMBERS = st.integers(0, 999)


def name(number: int) -> str:
    """Of several lengths, so that encodings have heads of one byte and of two."""
    return f"{'0' * 32}:d{number:03}" if number % 7 == 0 else f"d{number:03}{'x' * (number % 40)}"


def anew(names: set[str]) -> Names:
    return Names.of(sorted(names))


@given(st.sets(NUMBERS), st.lists(NUMBERS, max_size=300))
def test_a_changed_list_is_the_one_that_is_made_anew(first: set[int], changes: list[int]) -> None:
    wanted = set(map(name, first))
    names = anew(wanted)
    for changed in map(name, changes):
        before, known = names, changed in wanted
        assert (changed in names) is known
        names = names.removing(changed) if known else names.adding(changed)
        wanted ^= {changed}
        assert len(before) != len(names) == len(wanted)
    assert names == anew(wanted) == tuple(sorted(wanted))
    assert names.encode() == encode_cbor(sorted(wanted))
    assert list(names) == sorted(wanted)
    assert all(0 < block.count <= 2 * BLOCK_NAMES for block in names.blocks)


@given(st.sets(NUMBERS), st.sets(NUMBERS))
def test_what_one_list_has_and_the_other_has_not(some: set[int], others: set[int]) -> None:
    mine, theirs = set(map(name, some)), set(map(name, others))
    assert anew(mine).beyond(anew(theirs)) == sorted(mine - theirs)


def test_a_change_touches_one_block() -> None:
    names = Names.of(sorted(map(name, range(1000))))
    after = names.removing(name(500)).adding("d500-more")
    assert len(names.blocks) == len(after.blocks) == 8
    assert sum(old is new for old, new in zip(names.blocks, after.blocks, strict=True)) == 7


def test_few_names_do_not_stay_in_many_blocks() -> None:
    names = Names.of(sorted(map(name, range(1000))))
    for number in range(1000):
        if number % 100:
            names = names.removing(name(number))
    assert len(names) == 10
    assert len(names.blocks) <= 2


def test_a_block_is_read_from_what_was_stored() -> None:
    names = Names.of(sorted(map(name, range(300))))
    again = Names(NameBlock(block.first, block.count, block.encoded) for block in names.blocks)
    assert again == names
    assert again[-1] == names[299] == tuple(names)[-1]
    assert again[:2] == tuple(names)[:2]
    with pytest.raises(IndexError):
        again[300]


@pytest.mark.parametrize("names", [["b", "a"], ["a", "a"]])
def test_a_list_is_sorted_and_none_stands_twice(names: list[str]) -> None:
    with pytest.raises(UsageError):
        Names.of(names)


@pytest.mark.parametrize("bad", ["a*", "a\nb", "", ":a", "0:a", "x" * 64, "é", "-a", "\n"])
def test_what_no_policy_may_list(bad: str) -> None:
    with pytest.raises(UsageError):
        Names.of(sorted(["c", bad]))
    with pytest.raises(UsageError):
        Names().adding(bad)
