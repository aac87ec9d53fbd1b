"""Sealcast: secure reliable multicast with full key management.

The packages are layers, and imports only go down:

    cli
    authority, endpoint
    device, sidechannel, repair, relay
    est, keys
    ca
    pki
    errors

The engine is `sealcast._core`, written in Rust; from `pki` upwards everyone may use it.
"""

from sealcast._core import __version__

__all__ = ["__version__"]
