#include "attention/pool.h"

#include <sys/mman.h>

#include <cstring>
#include <new>
#include <stdexcept>

namespace whet {

Block block_of(Kind kind, int dim) {
  const auto channels = static_cast<size_t>(padded(dim));
  const size_t numbers = channels * kPage;
  const size_t groups = (channels + kValueGroup - 1) / kValueGroup;
  switch (kind) {
    case Kind::f32:
      return {4 * numbers, 4 * numbers};
    case Kind::f16:
    case Kind::bf16:
      return {2 * numbers, 2 * numbers};
    case Kind::int8:
      return {numbers + 4 * kPage, numbers + 4 * kPage};
    case Kind::kv4:
      return {numbers / 2 + 4 * channels, numbers / 2 + 4 * kPage * groups};
    case Kind::kv2:
      return {numbers / 4 + 4 * channels, numbers / 4 + 4 * kPage * groups};
  }
  return {0, 0};
}

Pool::Pool(const Geometry& geometry)
    : geometry_(geometry),
      block_(block_of(geometry.kind, geometry.dim)),
      fresh_block_(block_of(Kind::bf16, geometry.dim)) {
  const Geometry& g = geometry_;
  if (g.layers < 1 || g.heads < 1 || g.dim < 1 || g.pages < 1 || g.slots < 1)
    throw std::invalid_argument("a pool needs at least one layer, head, channel, page and slot");
  const auto heads = static_cast<size_t>(g.heads);
  fresh_begin_ = static_cast<size_t>(g.layers) * g.pages * heads * block_.bytes();
  staged_begin_ = fresh_begin_;
  bytes_ = fresh_begin_;
  if (fresh_kept(g.kind)) {
    staged_begin_ += static_cast<size_t>(g.layers) * g.slots * heads * fresh_block_.bytes();
    bytes_ = staged_begin_ + static_cast<size_t>(g.staged) * heads * fresh_block_.bytes();
  }
  void* const memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
#if defined(MADV_HUGEPAGE)
  madvise(memory, bytes_, MADV_HUGEPAGE);  // a page of all layers is some megabytes
#endif
}

Pool::~Pool() { munmap(memory_, bytes_); }

Page Pool::page(int layer, int index, int head) const {
  const size_t page = static_cast<size_t>(index) * geometry_.layers + layer;
  std::byte* const keys = memory_ + (page * geometry_.heads + head) * block_.bytes();
  return {keys, keys + block_.keys};
}

Page Pool::fresh(int layer, int slot, int head) const {
  const size_t page = static_cast<size_t>(slot) * geometry_.layers + layer;
  std::byte* const keys =
      memory_ + fresh_begin_ + (page * geometry_.heads + head) * fresh_block_.bytes();
  return {keys, keys + fresh_block_.keys};
}

Page Pool::staged(int index, int head) const {
  const size_t page = static_cast<size_t>(index) * geometry_.heads + head;
  std::byte* const keys = memory_ + staged_begin_ + page * fresh_block_.bytes();
  return {keys, keys + fresh_block_.keys};
}

size_t Pool::page_bytes() const {
  return static_cast<size_t>(geometry_.layers) * geometry_.heads * block_.bytes();
}

void Pool::copy_page(int from, int to) const {
  std::memcpy(page(0, to, 0).keys, page(0, from, 0).keys, page_bytes());
}

void Pool::copy_slot(int from, int to) const {
  if (!fresh_kept(geometry_.kind)) return;
  const size_t heads = static_cast<size_t>(geometry_.layers) * geometry_.heads;
  std::memcpy(fresh(0, to, 0).keys, fresh(0, from, 0).keys, heads * fresh_block_.bytes());
}

}  // namespace whet
