"""One seed, fanned out into named streams, so that adding a consumer never shifts another."""

import hashlib


def stream_seed(seed: int, name: str) -> int:
    """Return a 63-bit seed for the stream `name`. Law: different names give unrelated seeds."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
