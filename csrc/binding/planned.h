// A program as Python holds it.
#pragma once

#include <nanobind/ndarray.h>

#include <memory>
#include <utility>
#include <vector>

#include "binding/opened.h"
#include "plan/program.h"

namespace whet {

using Spot = std::pair<size_t, int>;  // a Place
using Plane = nanobind::ndarray<nanobind::ro, nanobind::c_contig, nanobind::device::cpu>;

inline Place place(const Spot& spot) { return {spot.first, spot.second}; }

inline void require(bool good, const char* what) {
  if (!good) throw nanobind::value_error(what);
}

// A program and what it reads of Python's.
struct Planned {
  Program program;
  std::vector<nanobind::object> held;
  std::vector<Angles*> angles;
  int rows = 0;  // of the table of embeddings
  bool sealed = false;

  template <class Op>
  Op& add(std::unique_ptr<Op> op, bool wanted = false) {
    require(!sealed, "a sealed program takes no more operators");
    return program.add(std::move(op), wanted);
  }
  const std::byte* bytes(const nanobind::object& given, size_t least) {
    const auto array = nanobind::cast<Plane>(given);
    require(array.nbytes() >= least, "an array is smaller than its shape says");
    held.push_back(given);
    return static_cast<const std::byte*>(array.data());
  }
  const Matrix* matrix(const nanobind::object& given) {
    if (given.is_none()) return nullptr;
    held.push_back(given);
    return nanobind::cast<const Opened&>(given).matrix.get();
  }
  Angles* turns(int index) {
    require(index >= -1 && index < static_cast<int>(angles.size()), "no such angles");
    return index < 0 ? nullptr : angles[static_cast<size_t>(index)];
  }
};

// How a program gets its operators.
void bind_operators(nanobind::class_<Planned>& planned);

}  // namespace whet
