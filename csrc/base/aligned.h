// Memory that begins at a cache line.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

namespace whet {

inline constexpr std::size_t kLine = 64;  // [byte]

constexpr std::size_t round_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

// Bytes, zero at first, owned.
class Aligned {
 public:
  Aligned() = default;
  explicit Aligned(std::size_t size)
      : bytes_(static_cast<std::byte*>(
            ::operator new(round_up(size ? size : 1, kLine), std::align_val_t{kLine}))),
        size_(size) {
    std::memset(bytes_.get(), 0, size);
  }

  std::byte* data() { return bytes_.get(); }
  const std::byte* data() const { return bytes_.get(); }
  std::size_t size() const { return size_; }
  std::byte* release() { return bytes_.release(); }  // free with Aligned::free
  static void free(void* bytes) noexcept { ::operator delete(bytes, std::align_val_t{kLine}); }

 private:
  struct Free {
    void operator()(std::byte* bytes) const noexcept { free(bytes); }
  };
  std::unique_ptr<std::byte, Free> bytes_;
  std::size_t size_ = 0;
};

}  // namespace whet
