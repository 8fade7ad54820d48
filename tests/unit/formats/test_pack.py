import numpy as np
import pytest
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from hypothesis import given
from hypothesis import strategies as st

from whet.formats.bits import packed as packed_by_numpy
from whet.formats.bits import unpacked as unpacked_by_numpy
from whet.formats.pack import pack, packed_size, unpack


def codes_of(bits, rows, count, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2**bits, (rows, count), generator=random).to(torch.uint8)


@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 70), st.integers(0, 2**31))
def test_packing_is_a_bijection_of_the_least_size(bits, rows, count, seed):
    codes = codes_of(bits, rows, count, seed)
    packed = pack(codes, bits)
    assert packed.shape == (rows, packed_size(count, bits))
    assert packed_size(count, bits) == -(-count * bits // 8)
    assert torch.equal(unpack(packed, bits, count), codes)


@given(st.integers(1, 8), st.integers(1, 5), st.integers(0, 70), st.integers(0, 2**31))
def test_numpy_packs_the_same_bytes(bits, rows, count, seed):
    codes = codes_of(bits, rows, count, seed)
    stream = packed_by_numpy(codes.numpy(), bits)
    assert np.array_equal(stream, pack(codes, bits).numpy())
    assert np.array_equal(unpacked_by_numpy(stream, bits, count), codes.numpy())


@given(st.integers(1, 8), st.integers(1, 40), st.integers(0, 2**31))
def test_codes_are_a_little_endian_bit_stream(bits, count, seed):
    codes = codes_of(bits, 1, count, seed)
    stream = sum(int(code) << (i * bits) for i, code in enumerate(codes[0]))
    expected = stream.to_bytes(packed_size(count, bits), "little")
    assert bytes(pack(codes, bits)[0].tolist()) == expected


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("words", [1, 3])
def test_bytes_are_those_of_compressed_tensors(bits, words):
    count = 32 * words  # whole 32-bit words for every width
    codes = codes_of(bits, 6, count, bits)
    signed = (codes.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)
    theirs = pack_to_int32(signed, bits)
    assert torch.equal(pack(codes, bits).view(torch.int32), theirs)


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_that_end_inside_a_word_but_fill_it_are_those_of_compressed_tensors(bits):
    count = 96 // bits * bits  # awkward counts, cut to whole words
    while count * bits % 32:
        count += 1
    codes = codes_of(bits, 3, count, bits)
    signed = (codes.to(torch.int16) - 2 ** (bits - 1)).to(torch.int8)
    assert torch.equal(pack(codes, bits).view(torch.int32), pack_to_int32(signed, bits))


def test_no_codes_fill_no_bytes():
    assert pack(torch.zeros(2, 0, dtype=torch.uint8), 3).shape == (2, 0)
    assert unpack(torch.zeros(2, 0, dtype=torch.uint8), 3, 0).shape == (2, 0)
