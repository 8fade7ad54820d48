// Keys and values of earlier tokens, in pages of 64 positions.
//
// A page of one layer and one head is a block of keys and a block of values. Plain numbers (f32,
// f16) lie [channel][position] for keys and [position][channel] for values. All others lie in
// pairs, as bf16 dot products read them: keys [channel / 2][position][2], values [position /
// 2][channel][2]. Channels are filled up with zeros to a multiple of 16.
//
//   bf16       rounded
//   int8       codes, then one float32 scale for each position
//   kv4, kv2   unsigned codes and pairs (scale, least) in bf16: of keys for each channel of a page,
//              of values for each position and 32 channels (arXiv:2402.02750, §3). The page that is
//              not full yet is kept in bf16, in a slot of its sequence.
#pragma once

#include <cstddef>
#include <cstdint>

namespace whet {

enum class Kind : int { f32 = 0, f16 = 1, bf16 = 2, int8 = 3, kv4 = 4, kv2 = 5 };

inline constexpr int kPage = 64;        // positions
inline constexpr int kValueGroup = 32;  // channels of a value that share a scale

inline int padded(int dim) { return (dim + 15) / 16 * 16; }
inline bool fresh_kept(Kind kind) { return kind == Kind::kv4 || kind == Kind::kv2; }

struct Block {  // the parts of a page of one head [byte]
  size_t keys, values;
  size_t bytes() const { return keys + values; }
};
Block block_of(Kind kind, int dim);

struct Geometry {
  int layers, heads, dim, pages, slots, staged;  // `staged`: unfinished pages of one step
  Kind kind;
};

// One page of one head.
struct Page {
  std::byte* keys;
  std::byte* values;
};

class Pool {
 public:
  explicit Pool(const Geometry& geometry);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  const Geometry& geometry() const { return geometry_; }
  Page page(int layer, int index, int head) const;
  Page fresh(int layer, int slot, int head) const;  // bf16: a sequence's page that is not full
  Page staged(int index, int head) const;           // bf16: more of them within one step
  size_t bytes() const { return bytes_; }           // reserved; memory comes when touched
  size_t page_bytes() const;                        // of all layers and heads
  void copy_page(int from, int to) const;
  void copy_slot(int from, int to) const;

 private:
  Geometry geometry_;
  Block block_, fresh_block_;
  size_t fresh_begin_ = 0, staged_begin_ = 0, bytes_ = 0;
  std::byte* memory_ = nullptr;
};

}  // namespace whet
