#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>

#include "binding/binding.h"
#include "binding/named.h"
#include "solve/gram.h"

namespace nb = nanobind;

namespace whet {
namespace {

using Activations = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Total = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Channels = nb::ndarray<nb::numpy, const float, nb::ndim<1>>;

constexpr std::size_t kMostTokens = 1 << 17;  // whose products fit 32 bits

void create(Codes* self, const Activations& x, const std::optional<Activations>& minus,
            const std::string& tier, int threads) {
  const std::size_t tokens = x.shape(0), channels = x.shape(1);
  if (tokens > kMostTokens) throw nb::value_error("too many tokens for sums of 32 bits");
  if (minus && (minus->shape(0) != tokens || minus->shape(1) != channels)) {
    throw nb::value_error("a difference is one of arrays of the same shape");
  }
  const Tier level = tier_of(tier);
  const float* const from = x.data();
  const float* const other = minus ? minus->data() : nullptr;
  new (self) Codes(static_cast<int>(tokens), static_cast<int>(channels));
  nb::gil_scoped_release release;
  encode(level, from, other, *self, threads);
}

void add(const Total& total, const Codes& left, const Codes& right, const std::string& tier,
         int threads) {
  if (left.tokens != right.tokens) throw nb::value_error("both factors have the same tokens");
  if (total.shape(0) != static_cast<std::size_t>(left.channels) ||
      total.shape(1) != static_cast<std::size_t>(right.channels)) {
    throw nb::value_error("a product is [left channels, right channels]");
  }
  const Tier level = tier_of(tier);
  float* const into = total.data();
  nb::gil_scoped_release release;
  add_products(level, left, right, into, threads);
}

Channels channels_of(const float* numbers, const Codes& codes) {
  return Channels(numbers, {static_cast<std::size_t>(codes.channels)}, nb::find(codes));
}

}  // namespace

void bind_gram(nb::module_& module) {
  nb::class_<Codes>(module, "Codes", "Activations rounded to 8 bits, each channel over its range.")
      .def("__init__", &create, nb::arg("x").noconvert(), nb::arg("minus").noconvert().none(),
           nb::arg("tier"), nb::arg("threads"))
      .def_prop_ro("scale", [](const Codes& self) { return channels_of(self.scale(), self); })
      .def_prop_ro("energy", [](const Codes& self) { return channels_of(self.energy(), self); },
                   "The sum of squares of each channel, not rounded.");
  module.def("add_products", &add, nb::arg("total").noconvert(), nb::arg("left"), nb::arg("right"),
             nb::arg("tier"), nb::arg("threads"), "Add leftᵀ · right to a matrix.");
}

}  // namespace whet
