// Random weights in their stored planes, and products of their layouts.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "check/check.h"
#include "linear/matrix.h"

namespace whet::check {

// A weight that owns its planes.
struct Random {
  Format format;
  int rows, cols;
  std::map<std::string, std::vector<std::byte>> owned;

  Random(const Format& format, int rows, int cols, Chance& chance);
  Planes planes(float input_scale = 0) const;
  std::string name() const;
};

// x·Wᵀ of a layout by a tier, by so many threads' shares one after the other.
std::vector<float> product(Bytes layout, Tier tier, const std::vector<float>& x, int tokens,
                           int threads = 1, bool accumulate = false);

inline Bytes bytes_of(const Aligned& memory) { return {memory.data(), memory.size()}; }

}  // namespace whet::check
