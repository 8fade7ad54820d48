"""The safetensors reader: equal to the library on good files, unmoved by hostile ones."""

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.base.errors import FolderError, MissingError, UnsafeError
from whet.store.shard import HEADER_LIMIT, Shard

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.tensor(2.5, dtype=torch.bfloat16),
    "c": torch.zeros(0, 4, dtype=torch.int64),
    "d": torch.arange(5, dtype=torch.uint8),
}


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def raw(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def with_header(header: object, data: bytes = b"") -> bytes:
    return raw(json.dumps(header).encode(), data)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.safetensors"
    safetensors.torch.save_file(TENSORS, path, metadata={"format": "pt"})
    return path


def test_reads_what_the_library_wrote(good: Path):
    shard = Shard(good)
    assert shard.metadata == {"format": "pt"}
    assert shard.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        expected = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        assert bytes(shard.read(name)) == bytes(shard.map(name)) == expected
        assert b"".join(shard.chunks(name, 3)) == expected
        assert shard.tensors[name].shape == tuple(tensor.shape)


def test_reads_part_of_a_tensor(good: Path):
    assert bytes(Shard(good).read("d", 1, 3)) == b"\x01\x02"
    assert bytes(Shard(good).read("d", 4, 99)) == b"\x04"
    assert bytes(Shard(good).read("d", 4, 2)) == b""


def test_map_is_private(good: Path):
    Shard(good).map("d")[0] = 77
    assert bytes(Shard(good).read("d"))[0] == 0


def test_reading_leaves_no_mapping(tmp_path: Path):
    path = tmp_path / "big.safetensors"
    safetensors.torch.save_file({"x": torch.zeros(64 << 20, dtype=torch.uint8)}, path)
    shard, before = Shard(path), resident()
    for chunk in shard.chunks("x", 1 << 20):
        del chunk
    assert resident() - before < 16 << 20


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


U8 = entry("U8", [4], 0, 4)
ATTACKS: dict[str, bytes] = {
    "empty file": b"",
    "seven bytes": b"\0" * 7,
    "header longer than the file": (1000).to_bytes(8, "little") + b"{}",
    "header of 2^63 bytes": (1 << 63).to_bytes(8, "little") + b"{}",
    "header is no object": raw(b"[]"),
    "header is no JSON": raw(b"{not json"),
    "header is no UTF-8": raw(b'{"\xff\xfe": 1}'),
    "header begins with a space": raw(b" {}"),
    "NaN in the header": raw(b'{"a": NaN}'),
    "deep nesting": raw(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "a number of 100,000 digits": raw(b'{"a":' + b"9" * 100_000 + b"}"),
    "duplicate tensor": raw(b'{"a":%s,"a":%s}' % ((json.dumps(U8).encode(),) * 2), b"1234"),
    "duplicate key in an entry": raw(
        b'{"a":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}}', b"1234"
    ),
    "overlap": with_header({"a": U8, "b": entry("U8", [4], 2, 6)}, b"123456"),
    "hole": with_header({"a": U8, "b": entry("U8", [4], 6, 10)}, b"1234567890"),
    "hole at the start": with_header({"a": entry("U8", [4], 2, 6)}, b"123456"),
    "truncated data": with_header({"a": U8}, b"123"),
    "bytes of no tensor": with_header({"a": U8}, b"12345"),
    "size of another shape": with_header({"a": entry("F32", [3], 0, 4)}, b"1234"),
    "shape that overflows": with_header({"a": entry("U8", [1 << 40, 1 << 40], 0, 0)}),
    "negative shape": with_header({"a": entry("U8", [-4], 0, 4)}, b"1234"),
    "negative offsets": with_header({"a": entry("U8", [4], -4, 0)}, b"1234"),
    "offsets backwards": with_header({"a": entry("U8", [0], 4, 0)}, b"1234"),
    "float offsets": with_header({"a": entry("U8", [4], 0, 4.0)}, b"1234"),  # type: ignore[arg-type]
    "boolean shape": with_header({"a": entry("U8", [True], 0, 1)}, b"1"),
    "rank 100": with_header({"a": entry("U8", [1] * 100, 0, 1)}, b"1"),
    "unknown dtype": with_header({"a": entry("F4", [8], 0, 4)}, b"1234"),
    "dtype is a list": with_header({"a": {**U8, "dtype": ["U8"]}}, b"1234"),
    "missing offsets": with_header({"a": {"dtype": "U8", "shape": [4]}}, b"1234"),
    "unknown entry key": with_header({"a": {**U8, "x": 1}}, b"1234"),
    "entry is a number": with_header({"a": 4}, b"1234"),
    "name with a path": with_header({"../../etc/passwd": U8}, b"1234"),
    "name with a NUL": with_header({"a\0b": U8}, b"1234"),
    "name with an escape": with_header({"a\x1b[2J": U8}, b"1234"),
    "metadata are numbers": with_header({"__metadata__": {"a": 1}, "a": U8}, b"1234"),
    "metadata are a list": with_header({"__metadata__": [], "a": U8}, b"1234"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_hostile_files_are_refused_at_once(attack: str, tmp_path: Path):
    path = tmp_path / "hostile.safetensors"
    path.write_bytes(ATTACKS[attack])
    began = time.process_time()
    with pytest.raises(FolderError) as caught:
        Shard(path)
    assert time.process_time() - began < 1
    assert str(path) in caught.value.message
    assert len(str(caught.value).splitlines()) <= 3
    assert str(caught.value).replace("\n", "").isprintable()


def test_huge_header_is_refused_unread(tmp_path: Path):
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write((HEADER_LIMIT + 1).to_bytes(8, "little") + b"{")
        file.truncate(HEADER_LIMIT + 100)
    before, began = resident(), time.process_time()
    with pytest.raises(FolderError, match="header of"):
        Shard(path)
    assert time.process_time() - began < 0.5
    assert resident() - before < 8 << 20


def test_header_of_many_tensors_is_bounded(tmp_path: Path):
    many = {f"t{i}": entry("U8", [0], 0, 0) for i in range(2_000)}
    path = tmp_path / "many.safetensors"
    path.write_bytes(with_header(many))
    began = time.process_time()
    assert len(Shard(path).tensors) == 2_000
    assert time.process_time() - began < 1


def test_file_that_shrinks_is_noticed(good: Path):
    shard = Shard(good)
    os.truncate(good, shard.size - 4)
    last = max(shard.tensors, key=lambda name: shard.tensors[name].stop)
    with pytest.raises(FolderError, match="became shorter"):
        shard.read(last)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda path: None, MissingError),
        (lambda path: path.mkdir(), UnsafeError),
        (os.mkfifo, UnsafeError),
        (lambda path: path.symlink_to("/dev/zero"), UnsafeError),
    ],
    ids=["missing", "folder", "pipe", "device"],
)
def test_what_is_no_file_is_never_opened(
    make: Callable[[Path], None], error: type[Exception], tmp_path: Path
):
    make(tmp_path / "x.safetensors")
    with pytest.raises(error):
        Shard(tmp_path / "x.safetensors")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_mutated_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    whole = bytearray(with_header({"a": U8, "b": entry("BF16", [2, 1], 4, 8)}, b"12345678"))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(whole) - 1))
        whole[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(bytes(whole))
    try:
        shard = Shard(path)
    except FolderError:
        return
    for name, info in shard.tensors.items():
        assert len(shard.read(name)) == info.nbytes
