// How codes of 2 to 8 bits fill words of 16 bits: a block is a few vectors of 32 words.
//
// A *vector* is 64 bytes, 32 words of 16 bits. Word k of every vector of a block belongs to lane k.
// A lane holds as many codes as fit in each of its words, lowest first; the bits left over at the
// top of the words (1, 4 or 2 of them for 3 and 5, 6, 7 bits) are put together to further codes, so
// that nothing is lost: 16 codes of 3 bits fill 3 words. A kernel shifts a whole vector by a
// constant to get one code of each lane; what lies above the code need not be masked, as table
// look-ups heed the low bits alone.
#pragma once

#include <cstdint>

namespace whet::table {

constexpr int kLanes = 32;        // words of a vector
constexpr int kVectorBytes = 64;  // bytes of a vector

// Words and codes of a lane's block.
static constexpr int block_words(int bits) {
  return bits == 3 || bits == 6 ? 3 : bits == 5 ? 5 : bits == 7 ? 7 : 1;
}
static constexpr int block_codes(int bits) { return 16 * block_words(bits) / bits; }

// Where the bits of code `i` of a lane lie: up to four pieces, from the lowest bit on.
struct Piece {
  int word, shift, bits;
};
struct Pieces {
  int count;
  Piece piece[5];
};

static constexpr Pieces pieces(int bits, int i) {
  const int whole = 16 / bits, direct = whole * block_words(bits);
  if (i < direct) return {1, {{i / whole, bits * (i % whole), bits}}};
  const int spare = 16 % bits;  // bits left at the top of each word
  Pieces found{};
  int bit = (i - direct) * bits;  // in the stream of left-over bits
  for (int need = bits; need > 0;) {
    const int inside = bit % spare, take = need < spare - inside ? need : spare - inside;
    found.piece[found.count++] = {bit / spare, 16 - spare + inside, take};
    bit += take;
    need -= take;
  }
  return found;
}

// Code `i` of a lane whose words lie `kLanes` apart.
static inline unsigned code_of(const std::uint16_t* lane, int bits, int i) {
  const Pieces where = pieces(bits, i);
  unsigned code = 0;
  for (int p = 0, at = 0; p < where.count; at += where.piece[p++].bits) {
    const Piece& piece = where.piece[p];
    code |= ((lane[piece.word * kLanes] >> piece.shift) & ((1u << piece.bits) - 1)) << at;
  }
  return code;
}

// Writes code `i` of a lane of zeros.
static inline void set_code(std::uint16_t* lane, int bits, int i, unsigned code) {
  const Pieces where = pieces(bits, i);
  for (int p = 0, at = 0; p < where.count; at += where.piece[p++].bits) {
    const Piece& piece = where.piece[p];
    const unsigned part = (code >> at) & ((1u << piece.bits) - 1);
    lane[piece.word * kLanes] =
        static_cast<std::uint16_t>(lane[piece.word * kLanes] | part << piece.shift);
  }
}

}  // namespace whet::table
