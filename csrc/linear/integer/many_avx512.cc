// Many tokens: the codes of two tiles and some inputs are unpacked to bytes that stay in the first
// cache, where the sums of six tokens, or of four in halves, stay in registers.
#include "linear/integer/avx512.h"

namespace whet::integer {
namespace {

constexpr int kPanelTiles = 2;
constexpr int kPanelInputs = 512;  // unpacked together, unless a step is longer

// What a thread writes to while it multiplies blocks.
struct Panel {
  uint8_t* codes;  // [quad][tile][64]
  float* scales;   // [step][tile][16]
  int32_t* zeros;  // [step][tile][16]; or minima, as float32
  float* sums;     // [token][tile][16]
  int steps;       // unpacked together
};

int panel_steps(const Weight& weight) {
  return std::clamp(kPanelInputs / weight.step, 1, weight.steps);
}

Panel panel_of(const Weight& weight, std::byte* memory) {
  Panel panel{};
  panel.steps = panel_steps(weight);
  const std::size_t lines = static_cast<std::size_t>(panel.steps) * kPanelTiles * kVector;
  auto* at = reinterpret_cast<uint8_t*>(memory);
  panel.scales = reinterpret_cast<float*>(at);
  panel.zeros = reinterpret_cast<int32_t*>(at + lines);
  panel.codes = at + 2 * lines;
  panel.sums = reinterpret_cast<float*>(panel.codes + lines * weight.step / 4);
  return panel;
}

// How far a tile has been unpacked: where its next step begins, and its group.
struct Cursor {
  const uint8_t *at, *head;
};

// Unpacks some steps of tile `i` of the panel's; those before them have been.
template <int Bits>
Cursor unpack_steps(const Weight& weight, Cursor cursor, int first, int last, const Panel& panel,
                    int i, int tiles) {
  const int blocks = weight.step / kBlock, rest = weight.step % kBlock / 4;
  const __m512i levels = level_table<Bits>(weight);
  const __m512 unit = _mm512_set1_ps(weight.unit);
  const std::size_t stride = static_cast<std::size_t>(tiles) * kVector;
  uint8_t* to = panel.codes + i * kVector;
  for (int step = first; step < last; ++step) {
    if (step % weight.group == 0) {
      cursor.head = cursor.at;
      cursor.at += weight.head;
    }
    const std::size_t place = (static_cast<std::size_t>(step - first) * tiles + i) * kRows;
    _mm512_storeu_ps(panel.scales + place,
                     _mm512_mul_ps(read_scales(cursor.head, weight.scale), unit));
    const uint8_t* shifts = cursor.head + kRows * weight.scale_bytes;
    if (weight.affine) _mm512_storeu_si512(panel.zeros + place, read_zeros(shifts));
    if (weight.minimum) {
      _mm512_storeu_ps(panel.zeros + place, read_scales(shifts, weight.scale));
    }
    for (int block = 0; block < blocks; ++block, to += kQuads * stride) {
      cursor.at = unpack_block<Bits, kQuads>(cursor.at, levels, to, stride);
    }
    cursor.at = unpack_rest<Bits>(rest, cursor.at, levels, to, stride);
    to += rest * stride;
  }
  return cursor;
}

using UnpackSteps = Cursor (*)(const Weight&, Cursor, int, int, const Panel&, int, int);

UnpackSteps unpack_steps_of(const Weight& weight) {
  switch (weight.coding) {
    case 2:
      return unpack_steps<2>;
    case 3:
      return unpack_steps<3>;
    case 4:
      return unpack_steps<4>;
    case 5:
      return unpack_steps<5>;
    case 6:
      return unpack_steps<6>;
    case 7:
      return unpack_steps<7>;
    case 4 + kSparse:
      return unpack_steps<4 + kSparse>;
    case 8 + kSparse:
      return unpack_steps<8 + kSparse>;
    case 2 + kMapped:
      return unpack_steps<2 + kMapped>;
    case 3 + kMapped:
      return unpack_steps<3 + kMapped>;
    case 4 + kMapped:
      return unpack_steps<4 + kMapped>;
    default:
      return unpack_steps<8>;
  }
}

// Adds the products of a quad of inputs.
template <int Tiles, int Tokens>
static inline void add_quad(const uint8_t* codes, const int8_t* x, __m512i (&sums)[Tokens][Tiles]) {
  __m512i w[Tiles];
#pragma GCC unroll 2
  for (int i = 0; i < Tiles; ++i) w[i] = load(codes + i * kVector);
#pragma GCC unroll 8
  for (int t = 0; t < Tokens; ++t) {
    const __m512i four = four_inputs(x + 4 * t);
#pragma GCC unroll 2
    for (int i = 0; i < Tiles; ++i) add_products(sums[t][i], w[i], four);
  }
}

// What a group adds to the codes of its rows.
enum class Shift { none, zeros, minima };

// Adds some steps of a panel to the sums of some tokens, or of tokens in `Halves`. `Short`: a step is
// one full block.
template <Shift Kind, bool Short, int Tiles, int Halves, int Tokens>
void add_panel(const Weight& weight, const Panel& panel, int steps, Batch batch, float* kept) {
  constexpr int kWhole = Tokens / Halves;
  const int blocks = Short ? 1 : weight.step / kBlock;
  const int rest = Short ? 0 : weight.step % kBlock / 4;
  const __m512i shift = _mm512_set1_epi32(value_width(weight.coding) - 1);
  __m512 total[kWhole][Tiles];
#pragma GCC unroll 8
  for (int t = 0; t < kWhole; ++t) {
#pragma GCC unroll 2
    for (int i = 0; i < Tiles; ++i) total[t][i] = _mm512_loadu_ps(kept + (t * Tiles + i) * kRows);
  }
  const uint8_t* codes = panel.codes;
  const int8_t* x = batch.x;
  for (int step = 0; step < steps; ++step) {
    __m512i sums[Tokens][Tiles];
#pragma GCC unroll 8
    for (int t = 0; t < Tokens; ++t) {
      const bool none = Kind == Shift::minima || (Halves == 2 && t % 2 == 0);
      const __m512i negated = none ? _mm512_setzero_si512() : _mm512_set1_epi32(batch.sums[t]);
#pragma GCC unroll 2
      for (int i = 0; i < Tiles; ++i) {
        if (none) {
          sums[t][i] = negated;
        } else {
          sums[t][i] =
              Kind == Shift::zeros
                  ? _mm512_mullo_epi32(
                        _mm512_loadu_si512(panel.zeros + (step * Tiles + i) * kRows), negated)
                  : _mm512_sllv_epi32(negated, shift);
        }
      }
    }
    for (int block = 0; block < blocks; ++block) {
#pragma GCC unroll 8
      for (int q = 0; q < kQuads; ++q) {
        add_quad<Tiles, Tokens>(codes + q * Tiles * kVector, x + 4 * q * Tokens, sums);
      }
      codes += kQuads * Tiles * kVector;
      x += kBlock * Tokens;
    }
    for (int quad = 0; quad < rest; ++quad, codes += Tiles * kVector, x += 4 * Tokens) {
      add_quad<Tiles, Tokens>(codes, x, sums);
    }
#pragma GCC unroll 8
    for (int t = 0; t < kWhole; ++t) {
      const int last = t * Halves + Halves - 1;
      const __m512 a = _mm512_set1_ps(batch.scales[last]);
#pragma GCC unroll 2
      for (int i = 0; i < Tiles; ++i) {
        const int place = (step * Tiles + i) * kRows;
        const __m512 s = _mm512_loadu_ps(panel.scales + place);
        const __m512i sum =
            Halves == 2 ? put_together(sums[last + 1 - Halves][i], sums[last][i]) : sums[last][i];
        total[t][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(s, a), total[t][i]);
        if (Kind == Shift::minima) {
          total[t][i] = _mm512_fmadd_ps(_mm512_loadu_ps(panel.zeros + place),
                                        _mm512_set1_ps(input_sum(batch, last)), total[t][i]);
        }
      }
    }
    batch.scales += Tokens;
    batch.sums += Tokens;
  }
#pragma GCC unroll 8
  for (int t = 0; t < kWhole; ++t) {
#pragma GCC unroll 2
    for (int i = 0; i < Tiles; ++i) _mm512_storeu_ps(kept + (t * Tiles + i) * kRows, total[t][i]);
  }
}

using AddPanel = void (*)(const Weight&, const Panel&, int, Batch, float*);

template <Shift Kind, bool Short, int Tiles, int Halves, int... Counts>
AddPanel pick_panel(int tokens, std::integer_sequence<int, Counts...>) {
  static constexpr AddPanel found[] = {
      add_panel<Kind, Short, Tiles, Halves, Halves*(Counts + 1)>...};
  return found[tokens - 1];
}

template <Shift Kind, bool Short, int Tiles>
AddPanel pick_panel(int tokens, int halves) {
  return halves == 2 ? pick_panel<Kind, Short, Tiles, 2>(
                           tokens, std::make_integer_sequence<int, kFewTogether / 2>{})
                     : pick_panel<Kind, Short, Tiles, 1>(
                           tokens, std::make_integer_sequence<int, kManyTogether>{});
}

template <Shift Kind>
AddPanel pick_panel(bool is_short, int tiles, int tokens, int halves) {
  if (is_short) {
    return tiles == 1 ? pick_panel<Kind, true, 1>(tokens, halves)
                      : pick_panel<Kind, true, 2>(tokens, halves);
  }
  return tiles == 1 ? pick_panel<Kind, false, 1>(tokens, halves)
                    : pick_panel<Kind, false, 2>(tokens, halves);
}

AddPanel add_panel_of(const Weight& weight, int tiles, int tokens, int halves) {
  const bool is_short = weight.step == kBlock;
  if (weight.minimum) return pick_panel<Shift::minima>(is_short, tiles, tokens, halves);
  if (weight.affine) return pick_panel<Shift::zeros>(is_short, tiles, tokens, halves);
  return pick_panel<Shift::none>(is_short, tiles, tokens, halves);
}

// Some tiles times all tokens.
void multiply_panel(const Weight& weight, const Input& input, int halves, const Output& out,
                    const Panel& panel, int tile, int tiles) {
  const int batch = together_avx512(halves, out.halves);
  const UnpackSteps unpack = unpack_steps_of(weight);
  Cursor cursors[kPanelTiles];
  for (int i = 0; i < tiles; ++i) cursors[i] = {weight.tile(tile + i), nullptr};
  std::memset(panel.sums, 0, static_cast<std::size_t>(halves) * tiles * kVector);
  for (int first = 0; first < weight.steps; first += panel.steps) {
    const int last = std::min(first + panel.steps, weight.steps);
    for (int i = 0; i < tiles; ++i) {
      cursors[i] = unpack(weight, cursors[i], first, last, panel, i, tiles);
    }
    for (int begin = 0; begin < halves; begin += batch) {
      const int count = std::min(batch, halves - begin);
      Batch of_tokens = batch_of(input, begin);
      of_tokens.x += static_cast<std::size_t>(first) * weight.step * count;
      of_tokens.scales += static_cast<std::size_t>(first) * count;
      of_tokens.sums += static_cast<std::size_t>(first) * count;
      const AddPanel add = add_panel_of(weight, tiles, count / out.halves, out.halves);
      add(weight, panel, last - first, of_tokens, panel.sums + begin / out.halves * tiles * kRows);
    }
  }
  for (int half = 0; half < halves; half += out.halves) {
    for (int i = 0; i < tiles; ++i) {
      const float* own = panel.sums + (half / out.halves * tiles + i) * kRows;
      write(out, half, tile + i, weight.rows - (tile + i) * kRows, _mm512_loadu_ps(own));
    }
  }
}

}  // namespace

std::size_t scratch_avx512(const Weight& weight, int halves) {
  if (halves <= kFew) return 0;
  const std::size_t lines = static_cast<std::size_t>(panel_steps(weight)) * kPanelTiles * kVector;
  return 2 * lines + lines * weight.step / 4 +
         static_cast<std::size_t>(halves) * kPanelTiles * kVector;
}

void multiply_many_avx512(const Weight& weight, const Input& input, int halves, const Output& out,
                          std::byte* memory, int first, int last) {
  const Panel panel = panel_of(weight, memory);
  for (int tile = first; tile < last; tile += kPanelTiles) {
    multiply_panel(weight, input, halves, out, panel, tile, std::min(kPanelTiles, last - tile));
  }
}

}  // namespace whet::integer
