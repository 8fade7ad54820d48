// How fast this machine reads memory: what decoding is measured against.
#pragma once

#include <cstddef>

#include "base/team.h"

namespace whet {

// Reads `size` bytes (a multiple of 64 for each thread is read) `repeats` times with the whole
// team; returns the best time of one reading [s].
double read_seconds(Team& team, const std::byte* data, std::size_t size, int repeats);

}  // namespace whet
