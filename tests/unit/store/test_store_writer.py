"""Writing shards: equal bytes for equal tensors, aligned, streamed, whole or not there."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from whet.base.errors import FolderError
from whet.store.dtypes import DTYPES
from whet.store.folder import INDEX, SINGLE, Folder
from whet.store.shard import WIDTHS, Shard
from whet.store.writer import Shards, write_shard

dtypes = st.sampled_from(sorted(set(DTYPES) - {"F8_E8M0"}))
shapes = st.lists(st.integers(0, 4), max_size=3)


def filled(dtype: str, shape: list[int]) -> torch.Tensor:
    count = WIDTHS[dtype] * int(torch.Size(shape).numel())
    raw = torch.arange(count, dtype=torch.int64).remainder(2 if dtype == "BOOL" else 100)
    return raw.to(torch.uint8).view(DTYPES[dtype]).reshape(shape)


@settings(max_examples=40, deadline=None)
@given(kinds=st.dictionaries(st.text("abcdef.", min_size=1, max_size=4), st.tuples(dtypes, shapes)))
def test_the_library_reads_what_we_write(
    kinds: dict[str, tuple[str, list[int]]], tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    tensors = {name: filled(*kind) for name, kind in kinds.items() if ".." not in name}
    write_shard(path, tensors)
    read = safetensors.torch.load_file(path)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert read[name].shape == tensor.shape
        assert (
            read[name].contiguous().view(torch.uint8).equal(tensor.contiguous().view(torch.uint8))
            if tensor.numel() and tensor.ndim
            else True
        )
    shard = Shard(path)
    assert all(info.start % WIDTHS[info.dtype] == 0 for info in shard.tensors.values())


def test_bytes_do_not_depend_on_order(tmp_path: Path):
    tensors = {"b": torch.ones(3), "a": torch.zeros(2, dtype=torch.uint8), "c": torch.ones(1)}
    write_shard(tmp_path / "x", tensors)
    write_shard(tmp_path / "y", dict(reversed(tensors.items())))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_views_are_written_as_they_look(tmp_path: Path):
    whole = torch.arange(12.0).reshape(3, 4)
    write_shard(tmp_path / "x", {"t": whole.T, "s": whole[:, 1:3], "p": torch.nn.Parameter(whole)})
    read = safetensors.torch.load_file(tmp_path / "x")
    assert read["t"].equal(whole.T)
    assert read["s"].equal(whole[:, 1:3])
    assert read["p"].equal(whole)


def test_one_file_where_it_fits(tmp_path: Path):
    shards = Shards(tmp_path)
    shards.put("a", torch.zeros(4))
    assert shards.nbytes == 16
    assert shards.finish() == (SINGLE,)
    assert not (tmp_path / INDEX).exists()


def test_shards_stream_from_files_in_order(tmp_path: Path):
    parts, out = tmp_path / "parts", tmp_path / "out"
    parts.mkdir()
    out.mkdir()
    for i in (2, 0, 1):
        write_shard(
            parts / f"{i}.safetensors", {f"t{i}.{j}": torch.full((50,), i + j) for j in (0, 1)}
        )
    shards = Shards(out, max_bytes=1000)
    for i in range(3):
        assert shards.add(parts / f"{i}.safetensors") == {f"t{i}.0", f"t{i}.1"}
    names = shards.finish()
    assert names == (*(f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)), INDEX)
    (out / "config.json").write_text("{}")
    folder = Folder(out)
    for i in range(3):
        for j in (0, 1):
            expected = torch.full((50,), i + j)
            assert torch.frombuffer(folder.read(f"t{i}.{j}"), dtype=torch.int64).equal(expected)


def test_a_tensor_larger_than_a_shard_has_its_own(tmp_path: Path):
    shards = Shards(tmp_path, max_bytes=10)
    for name in "abc":
        shards.put(name, torch.zeros(100))
    assert len(shards.finish()) == 4


def test_the_same_name_twice_is_refused(tmp_path: Path):
    shards = Shards(tmp_path)
    shards.put("a", torch.zeros(1))
    with pytest.raises(FolderError, match="written twice"):
        shards.put("a", torch.zeros(1))


def test_dtypes_that_cannot_be_stored_are_refused(tmp_path: Path):
    with pytest.raises(FolderError, match="complex64"):
        write_shard(tmp_path / "x", {"a": torch.zeros(1, dtype=torch.complex64)})
