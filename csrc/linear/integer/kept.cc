// Layouts of weights of which only some codes are stored.
#include <array>
#include <bit>

#include "linear/integer/canon.h"

namespace whet::integer {
namespace {

using Places = std::array<std::size_t, kRows>;  // of the next code of each row of a tile

uint64_t word_at(const uint8_t* at) {
  uint64_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// Bytes of the codes that a quad's mask keeps.
std::size_t bytes_of(uint64_t kept, const Weight& weight) {
  return kept_bytes(weight.coding, static_cast<std::size_t>(std::popcount(kept)));
}

// The mask of a quad of a tile.
uint64_t quad_mask(const Canon& canon, const uint8_t* mask, int tile, int column) {
  uint64_t found = 0;
  for (int r = 0; r < kRows && tile * kRows + r < canon.rows && column < canon.cols; ++r) {
    const std::size_t row = static_cast<std::size_t>(tile) * kRows + r;
    uint64_t four = mask[row * canon.mask_bytes + column / 8] >> (column % 8) & 15;
    if (canon.cols - column < 4) four &= (1u << (canon.cols - column)) - 1;
    found |= four << (4 * r);
  }
  return found;
}

// Where each row's codes begin, and their number.
std::vector<std::size_t> row_starts(const Canon& canon, const uint8_t* mask) {
  std::vector<std::size_t> found = {0};
  for (int row = 0; row < canon.rows; ++row, mask += canon.mask_bytes) {
    std::size_t count = 0;
    for (int c = 0; c < canon.cols; c += 8) {
      const unsigned within = canon.cols - c < 8 ? (1u << (canon.cols - c)) - 1 : 255;
      count += static_cast<std::size_t>(std::popcount(mask[c / 8] & within));
    }
    found.push_back(found.back() + count);
  }
  return found;
}

Places places_of(const std::vector<std::size_t>& rows, int tile) {
  Places found{};
  for (std::size_t r = 0, row = static_cast<std::size_t>(tile) * kRows;
       r < kRows && row + r < rows.size(); ++r) {
    found[r] = rows[row + r];
  }
  return found;
}

// Where the tiles begin, and where the last one ends.
std::vector<uint64_t> tile_starts(const Weight& weight, const Canon& canon, const uint8_t* mask) {
  std::vector<uint64_t> found = {0};
  for (int tile = 0; tile < weight.tile_count(); ++tile) {
    const std::size_t end = walk(
        weight, static_cast<std::size_t>(found.back()), [](std::size_t, int) {},
        [&](std::size_t at, int column, int quads) {
          at += 8 * static_cast<std::size_t>(quads);
          for (int quad = 0; quad < quads; ++quad) {
            const uint64_t kept = quad_mask(canon, mask, tile, column + 4 * quad);
            at += bytes_of(kept, weight);
          }
          return at;
        });
    found.push_back(round_up(end, kLine));
  }
  return found;
}

// Writes the codes of a quad of a tile; returns where they end.
uint8_t* write_codes(uint64_t kept, const uint8_t* codes, int coding, Places* next, uint8_t* to) {
  const auto count = static_cast<std::size_t>(std::popcount(kept));
  const unsigned most = (1u << width_of(coding)) - 1;
  for (std::size_t i = 0; i < count; ++i, kept &= kept - 1) {
    const std::size_t r = static_cast<std::size_t>(std::countr_zero(kept)) / 4;
    put_code(to, 1, i, width_of(coding), codes[(*next)[r]++] & most);
  }
  return to + kept_bytes(coding, count);
}

void write_tile(const Weight& weight, const Canon& canon, const Source& from, Places next, int tile,
                uint8_t* out) {
  walk(
      weight, out,
      [&](uint8_t* head, int group) { write_head(weight, canon, from, tile, group, head); },
      [&](uint8_t* masks, int column, int quads) {
        uint8_t* codes = masks + 8 * quads;
        for (int quad = 0; quad < quads; ++quad) {
          const uint64_t kept = quad_mask(canon, from.mask, tile, column + 4 * quad);
          std::memcpy(masks + 8 * quad, &kept, sizeof kept);
          codes = write_codes(kept, from.codes, weight.coding, &next, codes);
        }
        return codes;
      });
}

// Calls f(mask, its column, its codes) for each quad of a tile.
template <class Head, class F>
void each_quad(const Weight& weight, int tile, Head&& head, F&& f) {
  walk(weight, weight.tile(tile), head, [&](const uint8_t* masks, int column, int quads) {
    const uint8_t* codes = masks + 8 * quads;
    for (int quad = 0; quad < quads; ++quad) {
      const uint64_t kept = word_at(masks + 8 * quad);
      f(kept, column + 4 * quad, codes);
      codes += bytes_of(kept, weight);
    }
    return codes;
  });
}

// Where a tile ends that begins at `at`; it must end before `limit`.
std::size_t end_of(const Weight& weight, std::size_t at, std::size_t limit) {
  const auto require = [&](std::size_t end) {
    if (end > limit) throw LayoutError("the layout is damaged: a tile ends outside of it");
  };
  return walk(
      weight, at,
      [&](std::size_t head, int) { require(head + static_cast<std::size_t>(weight.head)); },
      [&](std::size_t masks, int, int quads) {
        std::size_t end = masks + 8 * static_cast<std::size_t>(quads);
        require(end);
        for (const std::size_t codes = end; masks < codes; masks += 8) {
          end += bytes_of(word_at(weight.tiles + masks), weight);
        }
        require(end);
        return end;
      });
}

}  // namespace

Aligned pack_kept(const Weight& weight, const Canon& canon, Source from, const Planes& planes,
                  MatrixView view) {
  from.mask = raw(plane(planes, "mask", canon.mask_size()));
  const std::vector<std::size_t> rows = row_starts(canon, from.mask);
  from.codes = raw(plane(planes, "codes", rows.back()));
  const std::vector<uint64_t> starts = tile_starts(weight, canon, from.mask);
  view.offset[0] = kHeader;
  view.length[0] = starts.back() + kLine;
  view.offset[1] = view.offset[0] + view.length[0];
  view.length[1] = starts.size() * sizeof(uint64_t);
  view.size = view.offset[1] + view.length[1];
  Aligned layout(view.size);
  std::memcpy(layout.data(), &view, sizeof view);
  std::memcpy(layout.data() + view.offset[1], starts.data(), view.length[1]);
  auto* tiles = reinterpret_cast<uint8_t*>(layout.data() + view.offset[0]);
  for (int tile = 0; tile < weight.tile_count(); ++tile) {
    write_tile(weight, canon, from, places_of(rows, tile), tile,
               tiles + starts[static_cast<std::size_t>(tile)]);
  }
  return layout;
}

void find_tiles(Bytes layout, const MatrixView& view, Weight* weight) {
  const std::size_t count = static_cast<std::size_t>(weight->tile_count());
  if (view.length[0] < kLine || view.length[1] != (count + 1) * sizeof(uint64_t)) {
    throw LayoutError("the layout's header is damaged: its sizes do not agree");
  }
  weight->starts = reinterpret_cast<const uint64_t*>(layout.data() + view.offset[1]);
  const std::size_t limit = view.length[0] - kLine;
  std::size_t at = 0;
  for (std::size_t tile = 0; tile <= count; ++tile) {
    if (weight->starts[tile] != at) {
      throw LayoutError("the layout is damaged: a tile does not end where the next one begins");
    }
    if (tile < count) at = round_up(end_of(*weight, at, limit), kLine);
  }
  if (at != limit) throw LayoutError("the layout's header is damaged: its sizes do not agree");
}

std::vector<std::size_t> read_masks(const Weight& weight, const Canon& canon, const Target& to) {
  for (int tile = 0; tile < weight.tile_count(); ++tile) {
    each_quad(
        weight, tile, [](const uint8_t*, int) {},
        [&](uint64_t kept, int column, const uint8_t*) {
          for (int r = 0; r < kRows && tile * kRows + r < canon.rows && column < canon.cols; ++r) {
            const std::size_t row = static_cast<std::size_t>(tile) * kRows + r;
            to.mask[row * canon.mask_bytes + column / 8] |=
                static_cast<uint8_t>((kept >> (4 * r) & 15) << (column % 8));
          }
        });
  }
  return row_starts(canon, to.mask);
}

void read_kept(const Weight& weight, const Canon& canon, const std::vector<std::size_t>& rows,
               int tile, const Target& to) {
  Places next = places_of(rows, tile);
  each_quad(
      weight, tile,
      [&](const uint8_t* head, int group) { read_head(weight, canon, tile, group, head, to); },
      [&](uint64_t kept, int column, const uint8_t* codes) {
        const std::size_t bytes = bytes_of(kept, weight);
        for (std::size_t i = 0; kept != 0; ++i, kept &= kept - 1) {
          const int place = std::countr_zero(kept);
          const std::size_t r = static_cast<std::size_t>(place) / 4;
          if (tile * kRows + place / 4 >= canon.rows || column + place % 4 >= canon.cols) continue;
          to.codes[next[r]++] =
              static_cast<uint8_t>(code_at(codes, bytes, 1, i, width_of(weight.coding)));
        }
      });
}

}  // namespace whet::integer
