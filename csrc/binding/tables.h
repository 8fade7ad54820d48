// Numbers that operators read of Python's arrays.
#pragma once

#include "binding/planned.h"
#include "plan/table.h"

namespace whet {

using Floats = nanobind::ndarray<const float, nanobind::c_contig, nanobind::device::cpu>;

// A copy of an array; none of None.
std::vector<float> floats(const nanobind::object& given);

// A table of embeddings; the program holds its arrays.
Vectors vectors_of(Planned& self, const nanobind::dict& given);

}  // namespace whet
