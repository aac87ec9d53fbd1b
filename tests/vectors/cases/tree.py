"""The tree of a block, and paths that do and do not lead to its root."""

from __future__ import annotations

from tests.reference import tree
from tests.reference.wire import NODE_BYTES, Epoch, Header, PacketType
from tests.vectors.cases.schedule import START
from tests.vectors.cases.writing import Group, VectorFile, fixed

BLOCK_ID = fixed("block", 16)


def block_tree() -> VectorFile:
    groups = []
    for suite, counts in ((1, range(1, 65)), (2, (1, 2, 3, 5, 64)), (3, (1, 2, 3, 5, 63, 64))):
        comment = "header is that of index 0; the others differ in the index, byte 54"
        group = Group(comment, {"suite": suite, "blockId": BLOCK_ID})
        for count in counts:
            header = _header(count)
            bodies = [bytes((index,)) for index in range(count)]
            leaves = [
                tree.leaf(suite, BLOCK_ID, index, header[:54] + bytes((index,)) + header[55:], body)
                for index, body in enumerate(bodies)
            ]
            levels = tree.levels(suite, BLOCK_ID, leaves)
            group.valid(
                f"{count} packets",
                count=count,
                header=header,
                bodies=bodies,
                leaves=leaves,
                nodes=levels[1:],
                paths=[b"".join(tree.path(levels, index)) for index in range(count)],
                root=levels[-1][0],
            )
        groups.append(group)
    return VectorFile("block_tree", ["DP-7", "DP-8", "DP-9"], {}, groups)


def _header(count: int) -> bytes:
    return Header(
        type=PacketType.DATA,
        stream_id=fixed("stream id", 16),
        epoch=Epoch(slot=4711, generation=3, step=2),
        block_id=BLOCK_ID,
        first_sequence=1000,
        index=0,
        count=count,
        time=START,
    ).serialize()


def block_path() -> VectorFile:
    suite = 1
    group = Group("a leaf and a path against a root", {"suite": suite, "blockId": BLOCK_ID})

    def leaves_of(count: int) -> list[bytes]:
        return [fixed(f"leaf {index} of {count}") for index in range(count)]

    def case(count: int, index: int) -> tuple[bytes, list[bytes], bytes]:
        levels = tree.levels(suite, BLOCK_ID, leaves_of(count))
        return levels[0][index], list(tree.path(levels, index)), levels[-1][0]

    def invalid(
        comment: str, flag: str, count: int, index: int, leaf: bytes, path: list[bytes], root: bytes
    ) -> None:
        group.invalid(
            comment,
            "path",
            flags=(flag,),
            count=count,
            index=index,
            leaf=leaf,
            path=b"".join(path),
            root=root,
        )

    for count, index in ((1, 0), (2, 1), (3, 2), (5, 4), (7, 6), (33, 32), (64, 63)):
        leaf, path, root = case(count, index)
        joined = b"".join(path)
        group.valid(f"leaf {index} of {count}", count=count, index=index, leaf=leaf, path=joined, root=root)
    for count, index in ((2, 0), (3, 1), (5, 3), (64, 17)):
        leaf, path, root = case(count, index)
        flipped = [bytes((path[-1][0] ^ 0x80,)) + path[-1][1:]]
        invalid("a bit of the path flipped", "Changed", count, index, leaf, [*path[:-1], *flipped], root)
        invalid("the path is one node short", "PathLength", count, index, leaf, path[:-1], root)
        invalid("the path is one node long", "PathLength", count, index, leaf, [*path, bytes(16)], root)
        invalid("the neighbour's index", "Place", count, index ^ 1, leaf, path, root)
        invalid("the neighbour's leaf", "Place", count, index, leaves_of(count)[index ^ 1], path, root)
        if len(path) > 1:
            invalid("the path from the top down", "Place", count, index, leaf, path[::-1], root)
    leaf, path, root = case(3, 2)
    invalid("the last of 3 as the last of 4", "TwinLeaf", 4, 3, leaf, [leaf[:NODE_BYTES], *path], root)
    invalid("the last of 3 as its own neighbour", "TwinLeaf", 4, 2, leaf, [leaf[:NODE_BYTES], *path], root)
    leaf, path, root = case(5, 4)
    invalid("the last of 5 as the last of 6", "TwinLeaf", 6, 5, leaf, [leaf[:NODE_BYTES], *path], root)
    twin = tree.levels(suite, BLOCK_ID, [*leaves_of(3), leaves_of(3)[2]])
    leaf, path, root = leaves_of(3)[2], list(tree.path(twin, 2)), twin[-1][0]
    invalid("a root over the doubled leaf", "TwinLeaf", 3, 2, leaf, path[1:], root)
    levels = tree.levels(suite, BLOCK_ID, leaves_of(4))
    invalid(
        "an inner node of 4 as a leaf of 2",
        "InnerNode",
        2,
        0,
        levels[1][0],
        [levels[1][1][:NODE_BYTES]],
        levels[2][0],
    )
    invalid("a leaf of 2 as the only one", "Changed", 1, 0, leaves_of(2)[0], [], case(2, 0)[2])
    leaf, path, root = case(64, 0)
    invalid("the root cut to 16 bytes and zeros", "Root", 64, 0, leaf, path, root[:16] + bytes(16))
    notes = {
        "Changed": ("MISSING_CHECK", "a value of the path or of the leaf is another one"),
        "PathLength": ("MISSING_CHECK", "the length of a path follows from index and count (DP-9)"),
        "Place": ("MISSING_CHECK", "a node stands only in its own place (DP-7)"),
        "TwinLeaf": ("KNOWN_BUG", "a last node without sibling is promoted, never doubled (CVE-2012-2459)"),
        "InnerNode": ("KNOWN_BUG", "the place of a node is part of its hash, so that none passes for a leaf"),
        "Root": ("MISSING_CHECK", "the root is compared in full, 32 bytes (DP-8)"),
    }
    return VectorFile("block_path", ["DP-7", "DP-8", "DP-9"], notes, [group])
