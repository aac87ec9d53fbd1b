"""A second implementation of spec/, in plain Python, written from the text alone.

It imports nothing of the package: where the two differ, one of them or the specification is wrong. It is
short rather than fast, keeps no budgets and no bounds on memory, and is not for use outside the tests.

    wire, bodies, frames     bytes and their meaning         (wire.md sections 2, 6, 7; keys.md section 3)
    tree, ed25519, edwards   what vouches for a packet       (wire.md section 3)
    schedule                 every derivation                (keys.md)
    credential, trust        signed objects and the verdict  (trust.md)
    requests                 what the side channel carries   (side-channel.md)
    seal, receiver           the two ends
"""
