// Attention of every tier is near to the generic one, at the edges of pages, pieces and windows.
#include <cmath>

#include "attention/attend.h"
#include "base/aligned.h"
#include "check/check.h"
#include "plan/program.h"

namespace whet::check {
namespace {

struct Shape {
  int dim, group, window;
  float cap;
};
constexpr Shape kShapes[] = {{16, 2, 0, 0}, {8, 1, 0, 0},   {12, 7, 0, 0},   {64, 8, 0, 0},
                             {80, 3, 5, 0}, {128, 1, 65, 0}, {16, 71, 0, 3}, {40, 3, 70, 2}};
constexpr Kind kKinds[] = {Kind::f32, Kind::f16, Kind::bf16, Kind::int8, Kind::kv4, Kind::kv2};

const char* kind_name(Kind kind) {
  constexpr const char* kNames[] = {"f32", "f16", "bf16", "int8", "kv4", "kv2"};
  return kNames[static_cast<int>(kind)];
}

// Pages of the keys and values of one head, as a tier writes them.
struct Pages {
  std::vector<Aligned> memory;
  std::vector<Page> pages;
  std::vector<Kind> kinds;

  Page open(Kind kind, int dim) {
    memory.emplace_back(block_of(kind, dim).bytes());
    std::byte* const keys = memory.back().data();
    return {keys, keys + block_of(kind, dim).keys};
  }

  // Of `time` tokens whose keys and values lie side by side.
  Pages(const Attention& tier, Kind kind, int dim, int time, const std::vector<float>& rows) {
    const bool fresh = fresh_kept(kind);
    for (int first = 0; first < time; first += kPage) {
      Page page = open(fresh ? Kind::bf16 : kind, dim);
      Kind held = fresh ? Kind::bf16 : kind;
      for (int i = 0; i < kPage && first + i < time; ++i) {
        const float* const k = rows.data() + static_cast<std::size_t>(first + i) * 2 * dim;
        tier.put(held, dim, k, k + dim, i, page);
      }
      if (fresh && first + kPage <= time) {
        const Page settled = open(kind, dim);
        tier.settle(kind, dim, page, settled);
        page = settled;
        held = kind;
      }
      pages.push_back(page);
      kinds.push_back(held);
    }
  }
};

// Attention of the last tokens of a sequence, those that stand in its last page.
std::vector<float> attended(const Attention& tier, const Shape& shape, const Pages& pages, int time,
                            int tokens, const std::vector<float>& q) {
  const int stride = shape.group * shape.dim;
  const Queries queries{q.data(), stride,       tokens,
                        shape.group, shape.dim, time - tokens,
                        shape.window, 1.0f / std::sqrt(static_cast<float>(shape.dim)), shape.cap};
  const int rows = queries.rows();
  std::vector<float> memory(2 * partial_floats(rows, shape.dim));
  const Partial total = partial_at(memory.data(), rows, shape.dim);
  const Partial own = partial_at(memory.data() + partial_floats(rows, shape.dim), rows, shape.dim);
  Aligned scratch(tier.scratch(rows, shape.dim));
  tier.clear(rows, shape.dim, total);
  for (std::size_t p = 0; p < pages.pages.size(); ++p) {
    tier.begin(queries, pages.kinds[p], scratch.data());
    tier.clear(rows, shape.dim, own);
    tier.page(queries, pages.kinds[p], pages.pages[p], static_cast<int>(p) * kPage, scratch.data(),
              own);
    tier.merge(rows, shape.dim, total, own);
  }
  std::vector<float> out(static_cast<std::size_t>(tokens) * stride);
  tier.finish(queries, total, out.data(), stride);
  return out;
}

void compare(Report& report, const Shape& shape, Kind kind, int time, int tokens, Chance& chance) {
  const std::vector<float> rows = chance.numbers(static_cast<std::size_t>(time) * 2 * shape.dim);
  const std::vector<float> q =
      chance.numbers(static_cast<std::size_t>(tokens) * shape.group * shape.dim);
  const Attention& twin = attention_of(Tier::generic);
  const Pages pages(twin, kind, shape.dim, time, rows);
  const std::vector<float> expected = attended(twin, shape, pages, time, tokens, q);
  for (Tier tier : other_tiers()) {
    const Attention& own = attention_of(tier);
    const Pages written(own, kind, shape.dim, time, rows);
    const std::string name = std::string("attention/") + tier_name(tier) + " " + kind_name(kind) +
                             " dim " + std::to_string(shape.dim) + " group " +
                             std::to_string(shape.group) + " time " + std::to_string(time) +
                             " tokens " + std::to_string(tokens);
    bool same = true;
    for (std::size_t i = 0; i < pages.memory.size(); ++i) {
      same = same && std::equal(written.memory[i].data(),
                                written.memory[i].data() + written.memory[i].size(),
                                pages.memory[i].data());
    }
    report.that(name + ": pages", same);
    const bool rounds = has_avx512(tier) && kind != Kind::f32 && kind != Kind::f16;
    report.near(name, attended(own, shape, written, time, tokens, q), expected,
                rounds ? 3e-2f : 4e-6f);  // queries and weights in bf16
  }
}

}  // namespace

void check_attention(Report& report) {
  Chance chance(3);
  for (const Shape& shape : kShapes) {
    for (Kind kind : kKinds) {
      for (int time : {1, 2, 63, 64, 65, 129}) {
        const int last = (time - 1) % kPage + 1;  // tokens of the last page
        compare(report, shape, kind, time, 1, chance);
        if (last > 1) compare(report, shape, kind, time, last < 9 ? last : 9, chance);
      }
    }
  }
}

}  // namespace whet::check
