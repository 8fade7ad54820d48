// Weights with a table for each row, with AVX-512, of two tiers.
//
// A look-up serves one row, so 32 inputs of a row fill a vector, and the sum of a row is spread
// over sixteen lanes until its end. Levels are f16, split into two bf16 numbers when a row begins.
// Sums: in each lane segment by segment, high before low, from 0; y = scale * sum + y in each lane;
// the lanes at last. One token and many do the same.
#include "linear/table/avx512.h"
#include "linear/table/avx512_decode.h"

namespace whet::table::WHET_AVX512 {
namespace {

constexpr int kRows = 4, kTokens = 6;  // of a register tile
constexpr int kPieces = 2;             // terms of a level

// Splits f16 levels into the words of a table, repeated to 32.
WHET_INLINE void split_levels(const std::byte* from, int bits, Table& table) {
  const int count = 1 << bits;
  const auto* halves = reinterpret_cast<const std::uint16_t*>(from);
  const __mmask16 mask = count < 16 ? static_cast<__mmask16>((1u << count) - 1) : 0xffff;
  __m256i high, low;
  for (int i = 0; i < count; i += 16) {
    const __m512 value = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, halves + i));
    high = to_bf16(value);
    low = to_bf16(_mm512_sub_ps(
        value, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16))));
    if (count < kLanes) break;
    _mm256_store_si256(reinterpret_cast<__m256i*>(table.high + i), high);
    _mm256_store_si256(reinterpret_cast<__m256i*>(table.low + i), low);
  }
  if (count < kLanes) {
    alignas(64) static constexpr auto kOrder = [] {
      struct Order {
        std::uint16_t of[kLanes];
      } order{};
      for (int i = 0; i < kLanes; ++i) order.of[i] = static_cast<std::uint16_t>(i);
      return order;
    }();
    const __m512i order = _mm512_and_si512(_mm512_load_si512(kOrder.of),
                                           _mm512_set1_epi16(static_cast<short>(count - 1)));
    _mm512_store_si512(table.high, _mm512_permutexvar_epi16(order, _mm512_castsi256_si512(high)));
    _mm512_store_si512(table.low, _mm512_permutexvar_epi16(order, _mm512_castsi256_si512(low)));
  }
  for (int i = 0; bits == 8 && i < count; i += kLanes)
    for (int term = 0; term < kPieces; ++term) {
      const __m512i words = _mm512_load_si512((term ? table.low : table.high) + i);
      std::uint8_t* lower = table.bytes[2 * term] + i;
      std::uint8_t* upper = table.bytes[2 * term + 1] + i;
      _mm256_store_si256(reinterpret_cast<__m256i*>(lower), _mm512_cvtepi16_epi8(words));
      _mm256_store_si256(reinterpret_cast<__m256i*>(upper),
                         _mm512_cvtepi16_epi8(_mm512_srli_epi16(words, 8)));
    }
}

WHET_INLINE float scale_of(const Layout& l, const std::byte* row, int group) {
  const std::byte* at = row + group * scale_size(l.coding.scale);
  return _mm512_cvtss_f32(scales_at(l.coding.scale, at, l.global));  // what follows is not used
}

WHET_INLINE const std::byte* row_at(const Operand& w, int row) {
  return w.bytes + w.layout->first + static_cast<std::size_t>(row) * w.layout->tile_bytes;
}

// The segments of a row: how many vectors the one at hand has left, and of which group it is.
struct Walk {
  const Layout& l;
  int group = 0, from = 0, left;

  WHET_INLINE explicit Walk(const Layout& layout) : l(layout), left(vectors()) {}
  WHET_INLINE int vectors() const {
    const int rest = group_length(l, group) - from;
    return (rest < l.segment ? rest : l.segment) / kLanes;
  }
  WHET_INLINE void next() {
    from += l.segment;
    if (from >= group_length(l, group)) ++group, from = 0;
    left = group < l.groups ? vectors() : 1 << 30;
  }
};

// The scales of a row as float32, a zero for each group beyond the last.
WHET_INLINE void widen_scales(const Layout& l, const std::byte* row, int count, float* out) {
  for (int g = 0; g < count; g += 16) {
    const int left = l.groups - g > 0 ? l.groups - g : 0;
    const auto mask = static_cast<__mmask16>(left >= 16 ? 0xffffu : (1u << left) - 1);
    const std::byte* at = row + (left ? g : 0) * scale_size(l.coding.scale);
    _mm512_storeu_ps(out + g, _mm512_maskz_mov_ps(mask, scales_at(l.coding.scale, at, l.global)));
  }
}

// Rows that are read side by side.
template <class Decoder, int kN>
struct Rows {
  const std::byte* codes;
  std::size_t apart;
  Decoder decoder[kN];

  WHET_INLINE Rows(const Operand& w, int row, Table* tables)
      : Rows(w, row, tables, std::make_integer_sequence<int, kN>{}) {}

  // The next block of each.
  template <class Use>
  WHET_INLINE void block(Use&& use) {
    beside<Decoder, kN>([&](int k) -> const Decoder& { return decoder[k]; }, codes, apart,
                        kN* apart, use);
    codes += Decoder::kBytes;
  }

 private:
  template <int... kRow>
  WHET_INLINE Rows(const Operand& w, int row, Table* tables, std::integer_sequence<int, kRow...>)
      : codes(row_at(w, row) + w.layout->codes),
        apart(w.layout->tile_bytes),
        decoder{Decoder(&(split_levels(row_at(w, row + kRow) + w.layout->levels,
                                       w.layout->coding.bits, tables[kRow]),
                          tables[kRow]))...} {}
};

template <int kN>
WHET_INLINE void store_sums(const Multiplication& m, int row, const __m512* y) {
  for (int k = 0; k < kN; ++k) {
    const float total = _mm512_reduce_add_ps(y[k]);
    m.y[row + k] = m.accumulate ? m.y[row + k] + total : total;
  }
}

// One token, where segments are whole blocks.
template <class Decoder, int kN>
void whole_blocks(const Operand& w, const Multiplication& m, int row, Table* tables) {
  const Layout& l = *w.layout;
  Rows<Decoder, kN> rows(w, row, tables);
  const std::byte* x = m.input;
  __m512 y[kN], sum[kN];
  for (__m512& total : y) total = _mm512_setzero_ps();
  for (int g = 0; g < l.groups; ++g)
    for (int from = 0; from < group_length(l, g); from += l.segment) {
      const int left = group_length(l, g) - from, stop = left < l.segment ? left : l.segment;
      for (__m512& total : sum) total = _mm512_setzero_ps();
      for (int i = 0; i < stop; i += kLanes * Decoder::kCount) {
        rows.block([&](int k, int v, __m512bh high, __m512bh low) {
          const __m512bh factor = as_bf16(load_vector(x + v * kVectorBytes));
          sum[k] = add_pairs(sum[k], high, factor);
          sum[k] = add_pairs(sum[k], low, factor);
        });
        x += Decoder::kCount * kVectorBytes;
      }
      for (int k = 0; k < kN; ++k)
        y[k] = _mm512_fmadd_ps(_mm512_set1_ps(scale_of(l, row_at(w, row + k), g)), sum[k], y[k]);
    }
  store_sums<kN>(m, row, y);
}

// One token, where a block holds several groups of `kFold` vectors.
template <class Decoder, int kN, int kFold>
void split_blocks(const Operand& w, const Multiplication& m, int row, Table* tables) {
  const Layout& l = *w.layout;
  Rows<Decoder, kN> rows(w, row, tables);
  const std::byte* x = m.input;
  const int vectors = l.padded / kLanes, of_row = (vectors / kFold + 31) / 16 * 16;
  auto* scales = reinterpret_cast<float*>(m.scratch);
  for (int k = 0; k < kN; ++k) widen_scales(l, row_at(w, row + k), of_row, scales + k * of_row);
  __m512 y[kN], sum[kN];
  for (int k = 0; k < kN; ++k) y[k] = sum[k] = _mm512_setzero_ps();
  for (int i = 0; i < vectors; i += Decoder::kCount) {
    rows.block([&](int k, int v, __m512bh high, __m512bh low) {
      const __m512bh factor = as_bf16(load_vector(x + v * kVectorBytes));
      sum[k] = add_pairs(sum[k], high, factor);
      sum[k] = add_pairs(sum[k], low, factor);
      if ((v + 1) % kFold) return;
      y[k] = _mm512_fmadd_ps(_mm512_set1_ps(scales[k * of_row + v / kFold]), sum[k], y[k]);
      sum[k] = _mm512_setzero_ps();
    });
    scales += Decoder::kCount / kFold;
    x += Decoder::kCount * kVectorBytes;
  }
  store_sums<kN>(m, row, y);
}

// One token, where groups end anywhere.
template <class Decoder>
void any_blocks(const Operand& w, const Multiplication& m, int row, Table* tables) {
  const Layout& l = *w.layout;
  Rows<Decoder, 1> rows(w, row, tables);
  const std::byte* x = m.input;
  const int vectors = l.padded / kLanes;
  Walk walk(l);
  __m512 y = _mm512_setzero_ps(), sum = y;
  for (int i = 0; i < vectors; i += Decoder::kCount) {
    rows.block([&](int, int v, __m512bh high, __m512bh low) {
      if (i + v >= vectors) return;  // of a last block that is not full
      const __m512bh factor = as_bf16(load_vector(x + v * kVectorBytes));
      sum = add_pairs(sum, high, factor);
      sum = add_pairs(sum, low, factor);
      if (--walk.left > 0) return;
      y = _mm512_fmadd_ps(_mm512_set1_ps(scale_of(l, row_at(w, row), walk.group)), sum, y);
      sum = _mm512_setzero_ps();
      walk.next();
    });
    x += Decoder::kCount * kVectorBytes;
  }
  store_sums<1>(m, row, &y);
}

template <class Decoder>
void one_token(const Operand& w, const Multiplication& m) {
  constexpr int kN = Decoder::kBytesOfTable <= 128 ? 4 : Decoder::kBytesOfTable <= 256 ? 2 : 1;
  const Layout& l = *w.layout;
  const int slot = l.slot / kLanes;  // vectors of a group
  Table tables[kN];
  int row = m.first;
  const auto with = [&]<int kFold>(std::integral_constant<int, kFold>) {
    for (; row + kN <= m.last; row += kN) split_blocks<Decoder, kN, kFold>(w, m, row, tables);
    for (; row < m.last; ++row) split_blocks<Decoder, 1, kFold>(w, m, row, tables);
  };
  if (slot % Decoder::kCount == 0 && l.last % (kLanes * Decoder::kCount) == 0) {
    for (; row + kN <= m.last; row += kN) whole_blocks<Decoder, kN>(w, m, row, tables);
    for (; row < m.last; ++row) whole_blocks<Decoder, 1>(w, m, row, tables);
  } else if (slot == 1) {
    with(std::integral_constant<int, 1>{});
  } else if (slot == 2 && Decoder::kCount % 2 == 0) {
    with(std::integral_constant<int, 2>{});
  } else if (slot == 4 && Decoder::kCount % 4 == 0) {
    with(std::integral_constant<int, 4 <= Decoder::kCount ? 4 : 2>{});
  }
  for (; row < m.last; ++row) any_blocks<Decoder>(w, m, row, tables);
}

// Some decoded rows, [vector][row][term].
template <class Decoder>
void decode(const Operand& w, int row, int place, int rows, std::uint16_t* values) {
  const Layout& l = *w.layout;
  const std::byte* at = row_at(w, row);
  Table table;
  split_levels(at + l.levels, l.coding.bits, table);
  const Decoder decoder(&table);
  const std::byte* codes = at + l.codes;
  const int vectors = l.padded / kLanes;
  for (int i = 0; i < vectors; i += Decoder::kCount) {
    decoded(decoder, codes, [&](int v, __m512bh high, __m512bh low) {
      if (i + v >= vectors) return;
      std::uint16_t* out = values + ((i + v) * rows + place) * kPieces * kLanes;
      _mm512_store_si512(out, (__m512i)high);
      _mm512_store_si512(out + kLanes, (__m512i)low);
    });
    codes += Decoder::kBytes;
  }
}

// Decoded rows times tokens; x of token t begins `t * width` words on.
struct Block {
  const Layout* layout;
  const std::uint16_t* values;
  const float* scales;  // [group][row]
  const std::uint16_t* x;
  float* y;
  int stride;
  bool accumulate;
};

template <int kR, int kT>
void multiply_block(const Block& b) {
  const Layout& l = *b.layout;
  __m512 y[kR][kT];
  for (int r = 0; r < kR; ++r)
    for (int t = 0; t < kT; ++t) y[r][t] = _mm512_setzero_ps();
  const std::uint16_t *values = b.values, *x = b.x;
  for (int g = 0; g < l.groups; ++g)
    for (int from = 0; from < group_length(l, g); from += l.segment) {
      const int left = group_length(l, g) - from;
      __m512 sum[kR][kT];
      for (int r = 0; r < kR; ++r)
        for (int t = 0; t < kT; ++t) sum[r][t] = _mm512_setzero_ps();
      for (int i = (left < l.segment ? left : l.segment) / kLanes; i > 0; --i) {
        __m512bh factor[kT];
        for (int t = 0; t < kT; ++t)
          factor[t] = as_bf16(load_vector(x + static_cast<std::size_t>(t) * l.width));
        for (int p = 0; p < kPieces; ++p)
          for (int r = 0; r < kR; ++r) {
            const __m512bh value = as_bf16(_mm512_load_si512(values + (r * kPieces + p) * kLanes));
            for (int t = 0; t < kT; ++t) sum[r][t] = add_pairs(sum[r][t], value, factor[t]);
          }
        values += kR * kPieces * kLanes;
        x += kLanes;
      }
      for (int r = 0; r < kR; ++r) {
        const __m512 scale = _mm512_set1_ps(b.scales[g * kR + r]);
        for (int t = 0; t < kT; ++t) y[r][t] = _mm512_fmadd_ps(scale, sum[r][t], y[r][t]);
      }
    }
  for (int t = 0; t < kT; ++t)
    for (int r = 0; r < kR; ++r) {
      float* at = b.y + static_cast<std::size_t>(t) * b.stride + r;
      const float total = _mm512_reduce_add_ps(y[r][t]);
      *at = b.accumulate ? *at + total : total;
    }
}

using BlockKernel = void (*)(const Block&);

BlockKernel block_kernel(int rows, int tokens) {
  static constexpr auto kernels = []<int... kT>(std::integer_sequence<int, kT...>) {
    struct All {
      BlockKernel of[kRows][kTokens];
    };
    return All{{{multiply_block<1, kT + 1>...},
                {multiply_block<2, kT + 1>...},
                {multiply_block<3, kT + 1>...},
                {multiply_block<4, kT + 1>...}}};
  }(std::make_integer_sequence<int, kTokens>{});
  return kernels.of[rows - 1][tokens - 1];
}

// Rows that are decoded together, as many as L2 holds with room to spare, in quadruples.
int decoded_rows(const Layout& l) {
  constexpr int kRoom = 256 << 10;
  const int quadruples = kRoom / (l.padded * kRows * kPieces * 2);
  return kRows * (quadruples > 1 ? quadruples : 1);
}

// Bytes of the decoded rows, after which come their scales.
std::size_t values_bytes(const Layout& l) {
  return static_cast<std::size_t>(l.padded) * decoded_rows(l) * kPieces * 2;
}

// Several tokens: some rows are decoded, then a tile of tokens is multiplied by all of them.
template <class Decoder>
void many_tokens(const Operand& w, const Multiplication& m) {
  const Layout& l = *w.layout;
  auto* values = reinterpret_cast<std::uint16_t*>(m.scratch);
  auto* scales = reinterpret_cast<float*>(m.scratch + values_bytes(l));
  const std::size_t row_words = static_cast<std::size_t>(l.padded) * kPieces;
  for (int first = m.first; first < m.last; first += decoded_rows(l)) {
    const int stop = m.last - first < decoded_rows(l) ? m.last : first + decoded_rows(l);
    for (int row = first; row < stop; ++row) {
      const int place = (row - first) % kRows, head = row - place;
      const int rows = stop - head < kRows ? stop - head : kRows;
      decode<Decoder>(w, row, place, rows, values + (head - first) * row_words);
      for (int g = 0; g < l.groups; ++g)
        scales[(head - first) * l.groups + g * rows + place] = scale_of(l, row_at(w, row), g);
    }
    for (int t = 0; t < m.tokens; t += kTokens) {
      const int count = m.tokens - t < kTokens ? m.tokens - t : kTokens;
      const auto* x =
          reinterpret_cast<const std::uint16_t*>(m.input) + static_cast<std::size_t>(t) * l.width;
      for (int row = first; row < stop; row += kRows) {
        const int rows = stop - row < kRows ? stop - row : kRows;
        block_kernel(rows, count)(
            {&l, values + (row - first) * row_words, scales + (row - first) * l.groups, x,
             m.y + static_cast<std::size_t>(t) * m.stride + row, m.stride, m.accumulate});
      }
    }
  }
}

}  // namespace

std::size_t rowwise_scratch(const Layout& l, int tokens) {
  if (tokens == 1) return (static_cast<std::size_t>(l.padded / kLanes) + 32) * kRows * 4;
  const std::size_t scales = static_cast<std::size_t>(l.groups) * decoded_rows(l) * sizeof(float);
  return values_bytes(l) + (scales + 63) / 64 * 64;
}

void rowwise(const Operand& w, const Multiplication& m) {
  const auto run = [&]<class Decoder>() {
    m.tokens == 1 ? one_token<Decoder>(w, m) : many_tokens<Decoder>(w, m);
  };
  switch (w.layout->coding.bits) {
    case 2:
      return run.template operator()<Coded<2, kPieces>>();
    case 3:
      return run.template operator()<Coded<3, kPieces>>();
    case 4:
      return run.template operator()<Coded<4, kPieces>>();
    case 5:
      return run.template operator()<Coded<5, kPieces>>();
    case 6:
      return run.template operator()<Coded<6, kPieces>>();
    case 7:
      return run.template operator()<Coded<7, kPieces>>();
    default:
      return run.template operator()<Octets<kPieces, false>>();
  }
}

}  // namespace whet::table::WHET_AVX512
