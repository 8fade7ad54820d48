#include "plan/attention_operators.h"

#include <cstring>

#include "base/aligned.h"

namespace whet {
namespace {

constexpr int kUnits = 4;  // for each thread; with fewer, stretches are shared out

// The page that the tokens of a run are written to.
Page target(const Pool& pool, const Step& step, const Run& run, int layer, int head) {
  const Sequence& sequence = step.sequences[run.sequence];
  if (!fresh_kept(pool.geometry().kind)) return pool.page(layer, sequence.pages[run.position / kPage], head);
  return run.staged < 0 ? pool.fresh(layer, sequence.slot, head) : pool.staged(run.staged, head);
}

// Asks for memory that is read soon.
void fetch(const std::byte* from, size_t bytes) {
  for (size_t i = 0; i < bytes; i += kLine) __builtin_prefetch(from + i, 0, 2);
}

}  // namespace

void Store::run(const Step& step, int, int thread, int threads) {
  const Geometry& g = pool->geometry();
  const bool fresh = fresh_kept(g.kind);
  const Share mine = share(step.run_count * g.heads, thread, threads);
  for (int unit = mine.begin; unit < mine.end; ++unit) {
    const Run& run = step.runs[unit / g.heads];
    const int head = unit % g.heads;
    const Page page = target(*pool, step, run, layer, head);
    for (int i = 0; i < run.count; ++i) {
      const int row = run.row + i;
      float* const key = step.at(k, row) + static_cast<size_t>(head) * g.dim;
      if (angles != nullptr) {
        const size_t pairs = angles->frequencies.size();
        step.rows->turn(angles->cosines.data() + row * pairs, angles->sines.data() + row * pairs,
                        static_cast<int>(pairs), key);
      }
      step.attention->put(fresh ? Kind::bf16 : g.kind, g.dim, key,
                          step.at(v, row) + static_cast<size_t>(head) * g.dim,
                          (run.position + i) % kPage, page);
    }
    if (fresh && run.full)
      step.attention->settle(g.kind, g.dim, page,
                             pool->page(layer, step.sequences[run.sequence].pages[run.position / kPage], head));
  }
}

bool Attend::split(const Step& step) const {
  if (step.piece_count * pool->geometry().heads >= kUnits * step.threads) return false;
  for (int i = 0; i < step.piece_count; ++i)
    if (stretches(step.pieces[i]) > 1) return true;
  return false;
}

int Attend::phases(const Step& step) const {
  bool kept = false;
  if (fresh_kept(pool->geometry().kind))
    for (int i = 0; i < step.run_count; ++i) kept |= step.runs[i].staged >= 0;
  return kept || split(step) ? 2 : 1;
}

size_t Attend::partial_bytes() const {
  return round_up(sizeof(float) * partial_floats(piece_rows, pool->geometry().dim), kLine);
}

// A thread's own scratch: the sums of all stretches, those of one, then that of the kernels.
size_t Attend::own_bytes() const { return 2 * partial_bytes() + round_up(kernel_bytes, kLine); }

size_t Attend::scratch_bytes(int threads) {
  const auto parts = static_cast<size_t>(kUnits * threads) * (longest / stretch + 1);
  return static_cast<size_t>(threads) * own_bytes() + parts * partial_bytes();
}

Queries Attend::queries(const Step& step, const Piece& piece, int head) const {
  const Geometry& g = pool->geometry();
  const float* const first = step.at(q, piece.row) + static_cast<size_t>(head) * group() * g.dim;
  return {first, q.stride, piece.count, group(), g.dim, piece.position, window, scale, cap};
}

// Takes in the pages of one stretch, from the first that is seen to the piece's own.
void Attend::walk(const Step& step, const Piece& piece, int head, int number, const Queries& queries,
                  void* scratch, Partial into) const {
  const Kind kind = pool->geometry().kind;
  const Run& run = step.runs[piece.run];
  const Sequence& sequence = step.sequences[run.sequence];
  const int own = piece.position / kPage, pages = stretch / kPage;
  const int low = window > 0 && piece.position >= window ? (piece.position - window + 1) / kPage : 0;
  const int begin = low > number * pages ? low : number * pages;
  const int end = own + 1 < (number + 1) * pages ? own + 1 : (number + 1) * pages;
  const size_t block_bytes = block_of(kind, queries.dim).bytes();
  step.attention->clear(queries.rows(), queries.dim, into);
  for (int p = begin; p < end; ++p) {
    const bool fresh = p == own && fresh_kept(kind);
    const Page page = fresh ? target(*pool, step, run, layer, head)
                            : pool->page(layer, sequence.pages[p], head);
    if (p + 1 < end) fetch(pool->page(layer, sequence.pages[p + 1], head).keys, block_bytes);
    step.attention->page(queries, fresh ? Kind::bf16 : kind, page, p * kPage, scratch, into);
  }
}

void Attend::answer(const Step& step, int unit, std::byte* mine) const {
  const int kv_heads = pool->geometry().heads, dim = pool->geometry().dim;
  const Piece& piece = step.pieces[step.piece_count - 1 - unit / kv_heads];  // the longest first
  const int head = unit % kv_heads;
  const Queries asked = queries(step, piece, head);
  const Partial total = partial_at(reinterpret_cast<float*>(mine), asked.rows(), dim);
  const Partial some = partial_at(reinterpret_cast<float*>(mine + partial_bytes()), asked.rows(), dim);
  void* const scratch = mine + 2 * partial_bytes();
  step.attention->begin(asked, pool->geometry().kind, scratch);
  step.attention->clear(asked.rows(), dim, total);
  for (int number = 0; number < stretches(piece); ++number) {
    walk(step, piece, head, number, asked, scratch, some);
    step.attention->merge(asked.rows(), dim, total, some);
  }
  float* const to = step.at(out, piece.row) + static_cast<size_t>(head) * group() * dim;
  step.attention->finish(asked, total, to, out.stride);
}

// Sums of one stretch, kept for `merge_parts`. Parts are numbered by stretch, head and piece.
void Attend::answer_part(const Step& step, int unit, std::byte* mine) const {
  const int kv_heads = pool->geometry().heads, units = step.piece_count * kv_heads;
  const Piece& piece = step.pieces[unit % units / kv_heads];
  const int head = unit % kv_heads, number = unit / units;
  if (number >= stretches(piece)) return;
  const Queries asked = queries(step, piece, head);
  void* const scratch = mine + 2 * partial_bytes();
  std::byte* const parts = step.scratch + static_cast<size_t>(step.threads) * own_bytes();
  const Partial part = partial_at(reinterpret_cast<float*>(parts + unit * partial_bytes()), asked.rows(),
                                  pool->geometry().dim);
  step.attention->begin(asked, pool->geometry().kind, scratch);
  walk(step, piece, head, number, asked, scratch, part);
}

void Attend::merge_parts(const Step& step, int thread, int threads) const {
  const int kv_heads = pool->geometry().heads, dim = pool->geometry().dim;
  const int units = step.piece_count * kv_heads;
  std::byte* const mine = step.scratch + static_cast<size_t>(thread) * own_bytes();
  std::byte* const parts = step.scratch + static_cast<size_t>(threads) * own_bytes();
  for (int unit = thread; unit < units; unit += threads) {
    const Piece& piece = step.pieces[unit / kv_heads];
    const int head = unit % kv_heads;
    const Queries asked = queries(step, piece, head);
    const Partial total = partial_at(reinterpret_cast<float*>(mine), asked.rows(), dim);
    step.attention->clear(asked.rows(), dim, total);
    for (int number = 0; number < stretches(piece); ++number) {
      std::byte* const part = parts + static_cast<size_t>(number * units + unit) * partial_bytes();
      step.attention->merge(asked.rows(), dim, total,
                            partial_at(reinterpret_cast<float*>(part), asked.rows(), dim));
    }
    float* const to = step.at(out, piece.row) + static_cast<size_t>(head) * group() * dim;
    step.attention->finish(asked, total, to, out.stride);
  }
}

// The last page of a sequence that is not full becomes its own.
void Attend::keep(const Step& step, int thread, int threads) const {
  const Geometry& g = pool->geometry();
  for (int unit = thread; unit < step.run_count * g.heads; unit += threads) {
    const Run& run = step.runs[unit / g.heads];
    if (run.staged < 0 || !run.last || run.full) continue;
    const int head = unit % g.heads;
    const int slot = step.sequences[run.sequence].slot;
    std::memcpy(pool->fresh(layer, slot, head).keys, pool->staged(run.staged, head).keys,
                block_of(Kind::bf16, g.dim).bytes());
  }
}

void Attend::run(const Step& step, int phase, int thread, int threads) {
  const bool parted = split(step);
  if (phase == 1) {
    if (parted) merge_parts(step, thread, threads);
    if (fresh_kept(pool->geometry().kind)) keep(step, thread, threads);
    return;
  }
  std::byte* const mine = step.scratch + static_cast<size_t>(thread) * own_bytes();
  const int units = step.piece_count * pool->geometry().heads;
  int count = units;
  if (parted)
    for (int i = 0; i < step.piece_count; ++i)
      if (units * stretches(step.pieces[i]) > count) count = units * stretches(step.pieces[i]);
  for (int unit; (unit = next_.fetch_add(1, std::memory_order_relaxed)) < count;)
    parted ? answer_part(step, unit, mine) : answer(step, unit, mine);
}

}  // namespace whet
