"""The engine, in Rust: what runs per packet, and what must be the same in every language."""

__version__: str
"""The version of Sealcast; the only place that states it is the Cargo workspace."""
