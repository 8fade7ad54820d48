// A matrix as Python holds it.
#pragma once

#include <nanobind/ndarray.h>

#include <memory>

#include "linear/matrix.h"

namespace whet {

using Layout = nanobind::ndarray<const uint8_t, nanobind::ndim<1>, nanobind::c_contig,
                                 nanobind::device::cpu>;

// A matrix and the layout that it reads.
struct Opened {
  Layout layout;
  std::unique_ptr<Matrix> matrix;
};

}  // namespace whet
