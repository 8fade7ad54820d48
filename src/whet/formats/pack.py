"""Small integers to bytes and back: a bijection, with no knowledge of scales or kernels."""

import torch
from jaxtyping import UInt8
from torch import Tensor


def packed_size(count: int, bits: int) -> int:
    """Return how many bytes `count` codes of `bits` fill."""
    return -(-count * bits // 8)


def pack(codes: UInt8[Tensor, "rows count"], bits: int) -> UInt8[Tensor, "rows bytes"]:
    """Write each row as a dense little-endian bit stream: code i at bit `i * bits`.

    Codes of 3, 5, 6 and 7 bits cross byte borders; the last byte is filled up with zeros.
    Law: `unpack(pack(c, bits), bits, count) == c` for codes below `2**bits`.
    """
    rows, count = codes.shape
    if bits == 8:
        return codes.contiguous()
    padded = torch.nn.functional.pad(codes, (0, -count % 8)).reshape(rows, -1, 8)
    words = torch.zeros(rows, padded.shape[1], dtype=torch.int64, device=codes.device)
    for i in range(8):  # eight codes fill `bits` bytes
        words |= padded[:, :, i].to(torch.int64) << (i * bits)
    shifts = torch.arange(0, 8 * bits, 8, device=codes.device)
    filled = ((words.unsqueeze(-1) >> shifts) & 255).to(torch.uint8).reshape(rows, -1)
    return filled[:, : packed_size(count, bits)].contiguous()


def unpack(
    packed: UInt8[Tensor, "rows bytes"], bits: int, count: int
) -> UInt8[Tensor, "rows count"]:
    """Undo `pack`: read the first `count` codes of each row."""
    rows = packed.shape[0]
    if bits == 8:
        return packed[:, :count]
    if bits in (1, 2, 4):
        shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)
        codes = (packed.unsqueeze(-1) >> shifts) & (2**bits - 1)
        return codes.reshape(rows, packed.shape[1] * (8 // bits))[:, :count]
    padded = torch.nn.functional.pad(packed, (0, -packed.shape[1] % bits)).reshape(rows, -1, bits)
    words = torch.zeros(rows, padded.shape[1], dtype=torch.int64, device=packed.device)
    for i in range(bits):
        words |= padded[:, :, i].to(torch.int64) << (8 * i)
    shifts = torch.arange(0, 8 * bits, bits, device=packed.device)
    codes = ((words.unsqueeze(-1) >> shifts) & (2**bits - 1)).to(torch.uint8)
    return codes.reshape(rows, padded.shape[1] * 8)[:, :count]
