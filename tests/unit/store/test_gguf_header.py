"""GGUF files that lie: one clear error within a second, and nothing beyond the file is touched."""

import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.gguf_files import converted

from whet.base.errors import WhetError
from whet.store.folder import Folder
from whet.store.gguf.header import read_header
from whet.store.resolve import demo
from whet.store.tokenizer import Tokenizer

HUGE = 2**62


def text(value: str | bytes, length: int | None = None) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def tensor(
    name: str = "t", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0
) -> bytes:
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + sizes + struct.pack("<IQ", kind, offset)


def head(tensors: int = 0, pairs: int = 0, version: int = 3, magic: bytes = b"GGUF") -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, pairs)


def whole(*parts: bytes, data: int = 4096) -> bytes:
    return b"".join(parts) + bytes(data)


LIST = struct.pack("<I", 9)
MISTAKES = {
    "empty": b"",
    "short": b"GGUF",
    "magic": whole(head(magic=b"GGML")),
    "version 1": whole(head(version=1)),
    "version 4": whole(head(version=4)),
    "byte order": whole(head(version=3 << 24)),
    "pairs": whole(head(pairs=HUGE)),
    "pairs that end": head(pairs=1000) + bytes(8),
    "tensors": whole(head(tensors=HUGE)),
    "tensors that end": head(tensors=1000) + bytes(8),
    "key length": whole(head(pairs=1), text("k", 2**63)),
    "key beyond": head(pairs=1) + text("k", 255),
    "key empty": whole(head(pairs=1), pair("", 4, bytes(4))),
    "key of control characters": whole(head(pairs=1), pair("a\x1b[2J", 4, bytes(4))),
    "key no utf-8": whole(head(pairs=1), text(b"\xff\xfe") + struct.pack("<I", 4), bytes(4)),
    "key twice": whole(head(pairs=2), pair("k", 4, bytes(4)) * 2),
    "value type": whole(head(pairs=1), pair("k", 13, bytes(4))),
    "string length": whole(head(pairs=1), pair("k", 8, text("v", 2**63))),
    "list length": whole(head(pairs=1), pair("k", 9, struct.pack("<IQ", 0, HUGE))),
    "list of strings": whole(head(pairs=1), pair("k", 9, struct.pack("<IQ", 8, HUGE))),
    "list beyond the limit": whole(
        head(pairs=1), pair("k", 9, struct.pack("<IQ", 0, 1 << 22)), data=1 << 23
    ),
    "list of lists": whole(head(pairs=1), pair("k", 9, struct.pack("<IQ", 9, 1) + LIST * 99)),
    "list type": whole(head(pairs=1), pair("k", 9, struct.pack("<IQ", 99, 1))),
    "alignment 0": whole(head(pairs=1), pair("general.alignment", 4, struct.pack("<I", 0))),
    "alignment 2^31": whole(head(pairs=1), pair("general.alignment", 4, struct.pack("<I", 2**31))),
    "alignment 33": whole(head(pairs=1), pair("general.alignment", 4, struct.pack("<I", 33))),
    "alignment text": whole(head(pairs=1), pair("general.alignment", 8, text("32"))),
    "alignment true": whole(head(pairs=1), pair("general.alignment", 7, b"\1")),
    "tensor twice": whole(head(tensors=2), tensor() * 2),
    "tensor rank 0": whole(head(tensors=1), tensor(shape=())),
    "tensor rank 5": whole(head(tensors=1), tensor(shape=(1,) * 5)),
    "tensor size 0": whole(head(tensors=1), tensor(shape=(32, 0))),
    "tensor overflow": whole(head(tensors=1), tensor(shape=(2**32, 2**32))),
    "tensor 2^63": whole(head(tensors=1), tensor(shape=(2**63,))),
    "tensor type": whole(head(tensors=1), tensor(kind=99)),
    "tensor type removed": whole(head(tensors=1), tensor(kind=4)),
    "tensor block": whole(head(tensors=1), tensor(shape=(33,), kind=2)),
    "tensor offset": whole(head(tensors=1), tensor(offset=2**62)),
    "tensor offset 2^64": whole(head(tensors=1), tensor(offset=2**64 - 32)),
    "tensor unaligned": whole(head(tensors=1), tensor(offset=8)),
    "tensor beyond": whole(head(tensors=1), tensor(shape=(4096,))),
    "tensors overlap": whole(head(tensors=2), tensor("a"), tensor("b", offset=32)),
    "tensor name": whole(head(tensors=1), tensor("n" * 300)),
}


def refused(path: Path, data: bytes) -> str:
    """The message, which came soon and took little memory."""
    path.write_bytes(data)
    tracemalloc.start()
    start = perf_counter()
    with pytest.raises(WhetError) as caught:
        read_header(path)
    assert perf_counter() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    return str(caught.value)


@pytest.mark.parametrize("name", MISTAKES)
def test_files_that_lie_are_refused(name: str, tmp_path: Path) -> None:
    message = refused(tmp_path / "x.gguf", MISTAKES[name])
    assert "x.gguf" in message
    assert len(message.splitlines()) <= 2


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("gguf")
    return converted(demo(), folder / "demo.gguf", "Q4_0").read_bytes()


def opened(path: Path) -> None:
    """Everything that reads a file before it runs."""
    folder = Folder(path)
    for name in list(folder.tensors)[:4]:
        folder.read(name)
    Tokenizer(path)


def test_cut_files_are_refused(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    for size in [*range(0, 400, 7), *range(400, len(sound), len(sound) // 12), len(sound) - 1]:
        path.write_bytes(sound[:size])
        with pytest.raises(WhetError):
            opened(path)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(0, 3000))
def test_changed_files_open_or_are_refused(
    sound: bytes, tmp_path: Path, seed: int, count: int, within: int
) -> None:
    chance = np.random.default_rng(seed)
    data = bytearray(sound)
    for _ in range(count):
        place = int(chance.integers(max(within, 24)))
        data[place] = int(chance.choice([0, 255, 127, 128, data[place] ^ 1, chance.integers(256)]))
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    start = perf_counter()
    with suppress(WhetError):
        opened(path)
    assert perf_counter() - start < 5
