#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "binding/named.h"
#include "binding/planned.h"
#include "binding/tables.h"

namespace nb = nanobind;

namespace whet {
namespace {

constexpr std::initializer_list<const char*> kActs = {"silu", "gelu", "gelu_tanh", "relu"};
constexpr std::initializer_list<const char*> kNorms = {"rms", "layer"};
constexpr std::initializer_list<const char*> kCodes = {"int4", "int8", "fp8-e4m3", "int16"};
constexpr std::initializer_list<const char*> kPointwise = {"add",      "scale", "cap",
                                                           "activate", "gate",  "copy"};

void add_embed(Planned& self, const Spot& out, const nb::dict& table, float scale,
               const nb::object& positions, int offset) {
  auto op = std::make_unique<Embed>();
  op->table = vectors_of(self, table);
  op->scale = scale;
  op->offset = offset;
  op->learned = !positions.is_none();
  if (op->learned) {
    op->positions = vectors_of(self, nb::cast<nb::dict>(positions));
    require(op->positions.plain != nullptr && op->positions.width == op->table.width,
            "positions are plain numbers as wide as the table");
    require(op->positions.rows >= self.program.limits().longest + offset,
            "there are fewer learned positions than a sequence has");
  }
  op->out = place(out);
  self.rows = op->table.rows;
  self.add(std::move(op));
}

void add_norm(Planned& self, const Spot& x, const Spot& out, const std::string& kind, float eps,
              int width, int heads, const nb::object& gain, const nb::object& bias,
              const nb::object& addend, const nb::object& sum, bool wanted) {
  auto op = std::make_unique<Norm>();
  op->kind = choice<NormKind>(kind, kNorms);
  op->eps = eps;
  op->width = width;
  op->heads = heads;
  op->gain = floats(gain);
  op->bias = floats(bias);
  const auto fits = [=](const std::vector<float>& v) {
    return v.empty() || v.size() == static_cast<size_t>(width);
  };
  require(fits(op->gain) && fits(op->bias), "gain and bias are as wide as what is normalised");
  op->x = place(x);
  op->out = place(out);
  op->added = !addend.is_none();
  if (op->added) {
    require(heads == 1, "a sum is normalised as a whole");
    op->addend = place(nb::cast<Spot>(addend));
    op->sum = place(nb::cast<Spot>(sum));
  }
  self.add(std::move(op), wanted);
}

void add_pointwise(Planned& self, const std::string& kind, const Spot& a, const nb::object& b,
                   const Spot& out, int width, float factor, const std::string& act, bool wanted) {
  auto op = std::make_unique<Pointwise>();
  op->kind = choice<Pointwise::Kind>(kind, kPointwise);
  op->nonlinearity = choice<Nonlinearity>(act, kActs);
  op->factor = factor;
  op->width = width;
  op->a = place(a);
  op->b = b.is_none() ? Place{} : place(nb::cast<Spot>(b));
  op->out = place(out);
  self.add(std::move(op), wanted);
}

int add_angles(Planned& self, const Floats& frequencies, float gain) {
  auto op = std::make_unique<Angles>();
  op->frequencies.assign(frequencies.data(), frequencies.data() + frequencies.size());
  op->gain = gain;
  const size_t count = static_cast<size_t>(self.program.limits().tokens) * frequencies.size();
  op->cosines.resize(count);
  op->sines.resize(count);
  self.angles.push_back(op.get());
  self.add(std::move(op));
  return static_cast<int>(self.angles.size()) - 1;
}

void set_angles(Planned& self, int index, const Floats& frequencies) {
  Angles* const angles = self.turns(index);
  require(angles != nullptr && frequencies.size() == angles->frequencies.size(),
          "as many frequencies as before");
  std::copy_n(frequencies.data(), frequencies.size(), angles->frequencies.begin());
}

void add_rope(Planned& self, const Spot& x, int heads, int dim, int angles) {
  auto op = std::make_unique<Rope>();
  op->x = place(x);
  op->heads = heads;
  op->dim = dim;
  op->angles = self.turns(angles);
  require(op->angles != nullptr && 2 * op->angles->frequencies.size() <= static_cast<size_t>(dim),
          "a head has fewer channels than are turned");
  self.add(std::move(op));
}

void add_store(Planned& self, const Spot& k, const Spot& v, int layer, int angles) {
  auto op = std::make_unique<Store>();
  require(layer >= 0 && layer < self.program.pool().geometry().layers, "no such layer");
  op->pool = &self.program.pool();
  op->layer = layer;
  op->k = place(k);
  op->v = place(v);
  op->angles = self.turns(angles);
  self.add(std::move(op));
}

void add_attend(Planned& self, const Spot& q, const Spot& out, int layer, int heads, float scale,
                int window, float cap) {
  auto op = std::make_unique<Attend>();
  const Geometry& g = self.program.pool().geometry();
  require(layer >= 0 && layer < g.layers, "no such layer");
  require(heads > 0 && heads % g.heads == 0, "heads are a multiple of those of keys");
  op->pool = &self.program.pool();
  op->layer = layer;
  op->heads = heads;
  op->window = window;
  op->scale = scale;
  op->cap = cap;
  op->longest = self.program.limits().longest;
  op->stretch = stretch_of(op->longest);
  op->piece_rows = piece_tokens(heads / g.heads) * (heads / g.heads);
  op->kernel_bytes = self.program.attention().scratch(op->piece_rows, g.dim);
  op->q = place(q);
  op->out = place(out);
  self.add(std::move(op));
}

void add_prepare(Planned& self, const Spot& x, size_t input, const nb::object& matrix, bool wanted) {
  auto op = std::make_unique<Prepare>();
  op->x = place(x);
  op->input = input;
  op->matrix = self.matrix(matrix);
  self.add(std::move(op), wanted);
}

void add_round(Planned& self, const Spot& x, const Spot& out, const std::string& element, int width,
               int group, bool affine, float scale, float zero, bool wanted) {
  auto op = std::make_unique<Round>();
  op->x = place(x);
  op->out = place(out);
  op->element = choice<Round::Element>(element, kCodes);
  op->width = width;
  op->group = group;
  op->affine = affine;
  op->scale = scale;
  op->zero = zero;
  require(group > 0, "a group has one channel or more");
  self.add(std::move(op), wanted);
}

void add_linear(Planned& self, const Spot& out, const nb::list& outputs, const nb::object& bias,
                bool accumulate, bool wanted) {
  auto op = std::make_unique<Linear>();
  int end = 0;
  for (nb::handle each : outputs) {
    const auto three = nb::cast<nb::tuple>(each);
    const Matrix* const matrix = self.matrix(three[0]);
    op->outputs.push_back({matrix, nb::cast<size_t>(three[1]), nb::cast<int>(three[2])});
    end = std::max(end, op->outputs.back().column + matrix->rows());
  }
  op->bias = floats(bias);
  require(op->bias.empty() || op->bias.size() == static_cast<size_t>(end), "a bias for each output");
  op->accumulate = accumulate;
  op->out = place(out);
  op->most = wanted ? self.program.limits().wanted : self.program.limits().tokens;
  self.add(std::move(op), wanted);
}

void add_experts(Planned& self, const Spot& x, const Spot& out, const Floats& router,
                 const nb::list& experts, int active, bool normalize, const std::string& act,
                 bool wanted) {
  auto op = std::make_unique<Experts>();
  for (nb::handle each : experts) {
    const auto three = nb::cast<nb::tuple>(each);
    op->experts.push_back({self.matrix(three[0]), self.matrix(three[1]), self.matrix(three[2])});
  }
  require(!op->experts.empty() && op->experts.size() <= 1024, "1 to 1,024 experts");
  op->router = floats(nb::cast(router));
  op->width = op->experts[0].up->cols();
  op->ffn = op->experts[0].up->rows();
  require(op->router.size() == op->experts.size() * static_cast<size_t>(op->width),
          "a row of the router for each expert");
  require(active > 0 && static_cast<size_t>(active) <= op->experts.size(), "active experts");
  op->active = active;
  op->normalize = normalize;
  op->nonlinearity = choice<Nonlinearity>(act, kActs);
  op->x = place(x);
  op->out = place(out);
  op->most = wanted ? self.program.limits().wanted : self.program.limits().tokens;
  op->resize();
  self.add(std::move(op), wanted);
}

void add_last(Planned& self, const Spot& x, const Spot& out, int width) {
  auto op = std::make_unique<Last>();
  op->x = place(x);
  op->out = place(out);
  op->width = width;
  self.add(std::move(op), true);
}

}  // namespace

void bind_operators(nb::class_<Planned>& planned) {
  const auto wanted = nb::arg("wanted") = false;
  planned
      .def("embed", &add_embed, nb::arg("out"), nb::arg("table"), nb::arg("scale"),
           nb::arg("positions").none(), nb::arg("offset"))
      .def("norm", &add_norm, nb::arg("x"), nb::arg("out"), nb::arg("kind"), nb::arg("eps"),
           nb::arg("width"), nb::arg("heads"), nb::arg("gain").none(), nb::arg("bias").none(),
           nb::arg("addend").none() = nb::none(), nb::arg("sum").none() = nb::none(), wanted)
      .def("pointwise", &add_pointwise, nb::arg("kind"), nb::arg("a"), nb::arg("b").none(),
           nb::arg("out"), nb::arg("width"), nb::arg("factor") = 1.0f, nb::arg("act") = "silu",
           wanted)
      .def("angles", &add_angles, nb::arg("frequencies"), nb::arg("gain"))
      .def("set_angles", &set_angles, nb::arg("index"), nb::arg("frequencies"))
      .def("rope", &add_rope, nb::arg("x"), nb::arg("heads"), nb::arg("dim"), nb::arg("angles"))
      .def("store", &add_store, nb::arg("k"), nb::arg("v"), nb::arg("layer"),
           nb::arg("angles") = -1)
      .def("attend", &add_attend, nb::arg("q"), nb::arg("out"), nb::arg("layer"), nb::arg("heads"),
           nb::arg("scale"), nb::arg("window") = 0, nb::arg("cap") = 0.0f)
      .def("prepare", &add_prepare, nb::arg("x"), nb::arg("input"), nb::arg("matrix"), wanted)
      .def("round", &add_round, nb::arg("x"), nb::arg("out"), nb::arg("element"), nb::arg("width"),
           nb::arg("group"), nb::arg("affine"), nb::arg("scale") = 0.0f, nb::arg("zero") = 0.0f,
           wanted)
      .def("linear", &add_linear, nb::arg("out"), nb::arg("outputs"), nb::arg("bias").none(),
           nb::arg("accumulate") = false, wanted)
      .def("experts", &add_experts, nb::arg("x"), nb::arg("out"), nb::arg("router"),
           nb::arg("experts"), nb::arg("active"), nb::arg("normalize"), nb::arg("act"), wanted)
      .def("last", &add_last, nb::arg("x"), nb::arg("out"), nb::arg("width"));
}

}  // namespace whet
