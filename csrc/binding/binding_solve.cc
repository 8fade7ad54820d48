#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <string>

#include "binding/binding.h"
#include "binding/named.h"
#include "solve/solve.h"

namespace nb = nanobind;

namespace whet {
namespace {

using Matrix2 = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Read2 = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Vector1 = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Order = nb::ndarray<const int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr std::initializer_list<const char*> kRoundings = {"integer", "minifloat", "table",
                                                           "tables"};
constexpr std::initializer_list<const char*> kStored = {"bf16", "f16", "f32", "e8m0", "e4m3"};

void require(bool good, const char* what) {
  if (!good) throw nb::value_error(what);
}

template <class Array>
bool has_shape(const Array& array, size_t rows, size_t columns) {
  return array.shape(0) == rows && array.shape(1) == columns;
}

// Where a setting that may be missing lies; none of None.
template <class Array>
auto data_of(const nb::dict& given, const char* name, size_t rows, size_t columns)
    -> decltype(std::declval<Array>().data()) {
  const nb::object held = given[name];
  if (held.is_none()) return nullptr;
  const auto array = nb::cast<Array>(held, false);
  require(has_shape(array, rows, columns), "a parameter of the format has another shape");
  return array.data();
}

float number(const nb::dict& given, const char* name) { return nb::cast<float>(given[name]); }

Grid grid_of(const nb::dict& given, size_t inputs, size_t outputs) {
  Grid grid;
  grid.rounding = choice<Rounding>(nb::cast<std::string>(given["rounding"]), kRoundings);
  grid.stored = choice<Stored>(nb::cast<std::string>(given["stored"]), kStored);
  grid.whole = number(given, "whole");
  grid.low = number(given, "low");
  grid.high = number(given, "high");
  grid.top = number(given, "top");
  grid.least = number(given, "least");
  grid.step = number(given, "step");
  grid.levels = nb::cast<int>(given["levels"]);
  grid.group = nb::cast<int>(given["group"]);
  require(grid.group > 0 && grid.levels >= 0, "a group has inputs");
  const size_t groups = (inputs + grid.group - 1) / static_cast<size_t>(grid.group);
  grid.scale = data_of<Matrix2>(given, "scale", groups, outputs);
  grid.zero = data_of<Matrix2>(given, "zero", groups, outputs);
  grid.mask = data_of<Read2>(given, "mask", inputs, outputs);
  grid.moves_zero = nb::cast<bool>(given["moves_zero"]);
  require(grid.scale != nullptr && (grid.zero != nullptr || !grid.moves_zero),
          "there are scales, and zero points where these move");
  if (grid.rounding == Rounding::table || grid.rounding == Rounding::tables) {
    const size_t tables = grid.rounding == Rounding::table ? 1 : outputs;
    const auto levels = static_cast<size_t>(grid.levels);
    require(levels >= 2 && levels <= 256, "a table has from 2 to 256 levels");
    grid.bounds = data_of<Read2>(given, "bounds", levels - 1, tables);
    grid.values = data_of<Read2>(given, "values", levels, tables);
    require(grid.bounds != nullptr && grid.values != nullptr, "a table has bounds and values");
  }
  return grid;
}

void columns(const Read2& target, const Read2& lower, const Order& order, const nb::dict& format,
             const Matrix2& result, const Vector1& loss, int threads) {
  const size_t inputs = target.shape(0), outputs = target.shape(1);
  require(has_shape(lower, inputs, inputs) && order.shape(0) == inputs &&
              has_shape(result, inputs, outputs) && loss.shape(0) == outputs,
          "matrices are [inputs, outputs], the factor is square");
  for (size_t i = 0; i < inputs; ++i) {
    require(order.data()[i] >= 0 && order.data()[i] < static_cast<int64_t>(inputs),
            "the order names inputs");
  }
  const Grid grid = grid_of(format, inputs, outputs);
  const Columns problem{static_cast<int>(inputs), static_cast<int>(outputs), target.data(),
                        lower.data(),             order.data(),              result.data(),
                        loss.data()};
  nb::gil_scoped_release release;
  solve_columns(problem, grid, threads);
}

int64_t sweep(const Matrix2& values, const Matrix2& gradient, const Read2& gram, float ridge,
              const nb::dict& format, bool recode, bool settle, bool local, int slab,
              int threads) {
  const size_t inputs = values.shape(0), outputs = values.shape(1);
  require(has_shape(gradient, inputs, outputs) && has_shape(gram, inputs, inputs) && slab > 0,
          "matrices are [inputs, outputs], H is square");
  const Grid grid = grid_of(format, inputs, outputs);
  const Sweep problem{static_cast<int>(inputs), static_cast<int>(outputs), values.data(),
                      gradient.data(), gram.data(), ridge, recode, settle, local, slab};
  nb::gil_scoped_release release;
  return solve_sweep(problem, grid, threads);
}

}  // namespace

void bind_solve(nb::module_& module) {
  module.def("solve_columns", &columns, nb::arg("target").noconvert(), nb::arg("lower").noconvert(),
             nb::arg("order").noconvert(), nb::arg("format"), nb::arg("result").noconvert(),
             nb::arg("loss").noconvert(), nb::arg("threads"),
             "Round a matrix [inputs, outputs] by GPTQ.");
  module.def("solve_sweep", &sweep, nb::arg("values").noconvert(), nb::arg("gradient").noconvert(),
             nb::arg("gram").noconvert(), nb::arg("ridge"), nb::arg("format"), nb::arg("recode"),
             nb::arg("settle"), nb::arg("local"), nb::arg("slab"), nb::arg("threads"),
             "Improve codes and scales in place by a sweep of coordinate descent; "
             "return how many codes changed.");
}

}  // namespace whet
