#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>

#include "base/team.h"
#include "binding/binding.h"
#include "binding/named.h"
#include "binding/opened.h"
#include "linear/matrix.h"

namespace nb = nanobind;

namespace whet {
namespace {

using Plane = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Outputs = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

constexpr int kTokensAtOnce = 512;

constexpr std::initializer_list<const char*> kModes = {"int8", "token8", "bf16", "int16"};
constexpr std::initializer_list<const char*> kElements = {
    "integer", "minifloat", "quantile", "log", "power_sum", "learned", "plain", "mapped"};
constexpr std::initializer_list<const char*> kScales = {"none", "bf16", "f16",
                                                        "f32",  "e8m0", "e4m3"};

template <class Value>
Value entry(const nb::dict& described, const char* name, Value otherwise) {
  return described.contains(name) ? nb::cast<Value>(described[name]) : otherwise;
}

Format format_of(const nb::dict& described) {
  Format format;
  format.element = choice<Element>(nb::cast<std::string>(described["element"]), kElements);
  format.bits = nb::cast<int>(described["bits"]);
  format.exponent = entry(described, "exponent", 0);
  format.group = entry(described, "group", kChannel);
  format.affine = entry(described, "affine", false);
  format.shared = entry(described, "shared", false);
  format.sparse = entry(described, "sparse", false);
  format.minimum = entry(described, "minimum", false);
  format.scale = choice<Scale>(entry<std::string>(described, "scale", "none"), kScales);
  return format;
}

nb::dict dict_of(const Format& format) {
  nb::dict described;
  described["element"] = kElements.begin()[static_cast<int>(format.element)];
  described["bits"] = format.bits;
  described["exponent"] = format.exponent;
  described["group"] = format.group;
  described["affine"] = format.affine;
  described["shared"] = format.shared;
  described["scale"] = kScales.begin()[static_cast<int>(format.scale)];
  if (format.sparse) described["sparse"] = true;
  if (format.minimum) described["minimum"] = true;
  return described;
}

nb::object array_of(std::byte* bytes, std::size_t size, void (*free)(void*) noexcept) {
  nb::capsule owner(bytes, free);
  return nb::cast(nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(bytes, {size}, owner));
}

nb::object array_of(Aligned memory) {
  const std::size_t size = memory.size();
  return array_of(memory.release(), size, &Aligned::free);
}

Bytes bytes_of(const Layout& layout) {
  return {reinterpret_cast<const std::byte*>(layout.data()), layout.size()};
}

Planes weight_of(const nb::dict& format, const nb::dict& planes, int rows, int cols,
                 float input_scale, std::vector<Plane>* held) {
  Planes weight{format_of(format), rows, cols, input_scale, {}};
  for (auto [name, value] : planes) {
    held->push_back(nb::cast<Plane>(value));
    weight.planes[nb::cast<std::string>(name)] = {
        static_cast<const std::byte*>(held->back().data()), held->back().nbytes()};
  }
  return weight;
}

nb::object packed(const nb::dict& format, const nb::dict& planes, int rows, int cols,
                  const std::string& tier, const std::string& mode, float input_scale) {
  std::vector<Plane> held;
  const Planes weight = weight_of(format, planes, rows, cols, input_scale, &held);
  const Tier level = tier_of(tier);
  const Mode way = choice<Mode>(mode, kModes);
  Aligned layout;
  {
    nb::gil_scoped_release release;
    layout = pack(weight, level, way);
  }
  return array_of(std::move(layout));
}

nb::tuple unpacked(const Layout& layout) {
  Stored weight;
  {
    nb::gil_scoped_release release;
    weight = unpack(bytes_of(layout));
  }
  nb::dict planes;
  for (const auto& [name, bytes] : weight.planes) {
    Aligned copy(bytes.size());
    std::memcpy(copy.data(), bytes.data(), bytes.size());
    planes[name.c_str()] = array_of(std::move(copy));
  }
  return nb::make_tuple(dict_of(weight.format), planes, weight.rows, weight.cols);
}

std::string kernel_name(const nb::dict& format, int rows, int cols, const std::string& tier,
                        const std::string& mode, float input_scale) {
  const Planes weight{format_of(format), rows, cols, input_scale, {}};
  std::string refusals;
  const Kernel* kernel = kernel_for(weight, tier_of(tier), choice<Mode>(mode, kModes), &refusals);
  if (kernel == nullptr) throw LayoutError(refusals);
  return kernel->name;
}

// Each kernel in the order of preference, and why it refuses a weight: '' where it does not.
std::vector<std::pair<std::string, std::string>> kernel_refusals(const nb::dict& format, int rows,
                                                                 int cols, const std::string& tier,
                                                                 const std::string& mode,
                                                                 float input_scale) {
  const Planes weight{format_of(format), rows, cols, input_scale, {}};
  std::vector<std::pair<std::string, std::string>> found;
  for (const Kernel& kernel : kernels()) {
    found.emplace_back(kernel.name,
                       kernel.refusal(weight, tier_of(tier), choice<Mode>(mode, kModes)));
  }
  return found;
}

nb::dict refusals(const nb::dict& format, int rows, int cols, const std::string& tier,
                  const std::string& mode, float input_scale) {
  const Planes weight{format_of(format), rows, cols, input_scale, {}};
  nb::dict reasons;
  for (const Kernel& kernel : kernels()) {
    const std::string reason = kernel.refusal(weight, tier_of(tier), choice<Mode>(mode, kModes));
    reasons[kernel.name] = reason;
  }
  return reasons;
}

// y = x·Wᵀ by a team.
void product(Team& team, const Matrix& matrix, const float* x, int tokens, float* y, Aligned& input,
             Aligned& scratch) {
  team.run([&](int thread) {
    matrix.prepare(x, matrix.cols(), tokens, input.data(), thread, team.size());
    team.barrier(thread);
    matrix.multiply(input.data(), tokens, y, matrix.rows(), false, scratch.data(), thread,
                    team.size());
  });
}

nb::object multiplied(const Opened& opened, const Rows& x, int threads) {
  const Matrix& matrix = *opened.matrix;
  if (x.shape(1) != static_cast<std::size_t>(matrix.cols())) {
    throw nb::value_error("the input's width is not the matrix's");
  }
  const int tokens = static_cast<int>(x.shape(0));
  const std::size_t count = x.shape(0) * static_cast<std::size_t>(matrix.rows());
  Aligned y(count * sizeof(float));
  {
    nb::gil_scoped_release release;
    Team team(threads);
    Aligned input(matrix.input_bytes(tokens)), scratch(matrix.scratch_bytes(tokens, threads));
    product(team, matrix, x.data(), tokens, reinterpret_cast<float*>(y.data()), input, scratch);
  }
  nb::capsule owner(y.data(), &Aligned::free);
  auto* numbers = reinterpret_cast<float*>(y.release());
  return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<2>>(
      numbers, {x.shape(0), static_cast<std::size_t>(matrix.rows())}, owner));
}

// The same into an array that is there already, some tokens at a time, so that they stay in caches.
void multiply_into(const Opened& opened, const Rows& x, const Outputs& y, int threads) {
  const Matrix& matrix = *opened.matrix;
  const std::size_t tokens = x.shape(0), rows = static_cast<std::size_t>(matrix.rows());
  const auto cols = static_cast<std::size_t>(matrix.cols());
  if (x.shape(1) != cols || y.shape(0) != tokens || y.shape(1) != rows) {
    throw nb::value_error("arrays are [tokens, columns] and [tokens, rows]");
  }
  nb::gil_scoped_release release;
  Team team(threads);
  Aligned input(matrix.input_bytes(kTokensAtOnce)), scratch(matrix.scratch_bytes(kTokensAtOnce, threads));
  for (std::size_t first = 0; first < tokens; first += kTokensAtOnce) {
    const int some = static_cast<int>(std::min<std::size_t>(kTokensAtOnce, tokens - first));
    product(team, matrix, x.data() + first * cols, some, y.data() + first * rows, input, scratch);
  }
}

// Times of multiplying a batch of ones by each matrix in turn, round after round [s].
std::vector<double> seconds(const std::vector<Opened*>& opened, int tokens, int threads,
                            int rounds) {
  nb::gil_scoped_release release;
  std::size_t inputs = 0, prepared = 0, outputs = 0, needed = 0;
  const auto count = static_cast<std::size_t>(tokens);
  for (const Opened* each : opened) {
    const Matrix& matrix = *each->matrix;
    inputs = std::max(inputs, count * static_cast<std::size_t>(matrix.cols()));
    outputs = std::max(outputs, count * static_cast<std::size_t>(matrix.rows()));
    prepared = std::max(prepared, matrix.input_bytes(tokens));
    needed = std::max(needed, matrix.scratch_bytes(tokens, threads));
  }
  std::vector<float> x(inputs, 1.0f), y(outputs);
  Aligned input(prepared), scratch(needed);
  Team team(threads);
  std::vector<double> spent;
  for (int round = 0; round < rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    for (const Opened* each : opened) {
      product(team, *each->matrix, x.data(), tokens, y.data(), input, scratch);
    }
    spent.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return spent;
}

}  // namespace

void bind_linear(nb::module_& module) {
  nb::exception<LayoutError>(module, "LayoutError", PyExc_ValueError);
  module.def("pack", &packed, nb::arg("format"), nb::arg("planes"), nb::arg("rows"),
             nb::arg("cols"), nb::arg("tier"), nb::arg("mode"), nb::arg("input_scale") = 0.0f,
             "A weight laid out for the kernel that takes it: bytes aligned to 64.");
  module.def("unpack", &unpacked, nb::arg("layout"),
             "Undo pack: the format, its planes as bytes, rows and columns.");
  module.def("kernel_name", &kernel_name, nb::arg("format"), nb::arg("rows"), nb::arg("cols"),
             nb::arg("tier"), nb::arg("mode"), nb::arg("input_scale") = 0.0f,
             "The kernel that takes a weight; LayoutError says why all refuse.");
  module.def("kernel_refusals", &kernel_refusals, nb::arg("format"), nb::arg("rows"),
             nb::arg("cols"), nb::arg("tier"), nb::arg("mode"), nb::arg("input_scale") = 0.0f,
             "Every kernel, and why it refuses a weight: '' where it does not.");
  module.def("refusals", &refusals, nb::arg("format"), nb::arg("rows"), nb::arg("cols"),
             nb::arg("tier"), nb::arg("mode"), nb::arg("input_scale") = 0.0f,
             "Why each kernel does not take a weight, or ''.");
  module.def("seconds", &seconds, nb::arg("matrices"), nb::arg("tokens"), nb::arg("threads"),
             nb::arg("rounds"), "Times of multiplying by each matrix in turn, once a round [s].");
  nb::class_<Opened>(module, "Matrix", "A layout that can be multiplied by.")
      .def(
          "__init__",
          [](Opened* self, const Layout& layout, const std::string& tier) {
            auto matrix = open(bytes_of(layout), tier_of(tier));
            new (self) Opened{layout, std::move(matrix)};
          },
          nb::arg("layout"), nb::arg("tier"))
      .def_prop_ro("rows", [](const Opened& self) { return self.matrix->rows(); })
      .def_prop_ro("cols", [](const Opened& self) { return self.matrix->cols(); })
      .def_prop_ro("name", [](const Opened& self) { return self.matrix->name(); })
      .def_prop_ro("input_key", [](const Opened& self) { return self.matrix->input_key(); })
      .def(
          "input_bytes",
          [](const Opened& self, int tokens) { return self.matrix->input_bytes(tokens); },
          nb::arg("tokens"), "Memory of a prepared input [byte].")
      .def("multiply", &multiplied, nb::arg("x"), nb::arg("threads") = 1,
           "x·Wᵀ for rows of float32.")
      .def("multiply_into", &multiply_into, nb::arg("x").noconvert(), nb::arg("y").noconvert(),
           nb::arg("threads"), "Write x·Wᵀ to an array.");
}

}  // namespace whet
