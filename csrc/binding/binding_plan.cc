#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "binding/binding.h"
#include "binding/opened.h"
#include "plan/program.h"

namespace nb = nanobind;

namespace whet {
namespace {

using Spot = std::pair<size_t, int>;  // a Place
using Floats = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Plane = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;

template <class Value>
Value choice(const std::string& name, std::initializer_list<const char*> names) {
  int index = 0;
  for (const char* each : names) {
    if (name == each) return static_cast<Value>(index);
    ++index;
  }
  throw nb::value_error(("unknown: " + name).c_str());
}

constexpr std::initializer_list<const char*> kKinds = {"f32", "f16", "bf16", "int8", "kv4", "kv2"};
constexpr std::initializer_list<const char*> kNumbers = {"F32", "F16", "BF16"};
constexpr std::initializer_list<const char*> kScales = {"f32", "f16", "bf16", "e8m0", "e4m3"};
constexpr std::initializer_list<const char*> kActs = {"silu", "gelu", "gelu_tanh", "relu"};
constexpr std::initializer_list<const char*> kNorms = {"rms", "layer"};
constexpr std::initializer_list<const char*> kCodes = {"int4", "int8", "fp8-e4m3"};
constexpr std::initializer_list<const char*> kPointwise = {"add",      "scale", "cap",
                                                           "activate", "gate",  "copy"};

Place place(const Spot& spot) { return {spot.first, spot.second}; }

std::vector<float> floats(const nb::object& given) {
  if (given.is_none()) return {};
  const auto array = nb::cast<Floats>(given);
  return {array.data(), array.data() + array.size()};
}

void require(bool good, const char* what) {
  if (!good) throw nb::value_error(what);
}

// A program and what it reads of Python's.
struct Planned {
  Program program;
  std::vector<nb::object> held;
  std::vector<Angles*> angles;
  int rows = 0;  // of the table of embeddings
  bool sealed = false;

  template <class Op>
  Op& add(std::unique_ptr<Op> op, bool wanted = false) {
    require(!sealed, "a sealed program takes no more operators");
    return program.add(std::move(op), wanted);
  }
  const std::byte* bytes(const nb::object& given, size_t least) {
    const auto array = nb::cast<Plane>(given);
    require(array.nbytes() >= least, "an array is smaller than its shape says");
    held.push_back(given);
    return static_cast<const std::byte*>(array.data());
  }
  const Matrix* matrix(const nb::object& given) {
    if (given.is_none()) return nullptr;
    held.push_back(given);
    return nb::cast<const Opened&>(given).matrix.get();
  }
  Angles* turns(int index) {
    require(index >= -1 && index < static_cast<int>(angles.size()), "no such angles");
    return index < 0 ? nullptr : angles[static_cast<size_t>(index)];
  }
};

Term term_of(Planned& self, const nb::dict& given, int rows, int width) {
  Term term;
  term.bits = nb::cast<int>(given["bits"]);
  require(term.bits >= 1 && term.bits <= 8, "codes have 1 to 8 bits");
  term.group = nb::cast<int>(given["group"]);
  require(term.group > 0, "a group has one weight or more");
  term.groups = (width + term.group - 1) / term.group;
  term.single = nb::cast<bool>(given["single"]);
  term.row_bytes = (static_cast<size_t>(width) * term.bits + 7) / 8;
  const size_t scales = term.single ? 1 : static_cast<size_t>(rows) * term.groups;
  term.scale_kind = choice<ScaleKind>(nb::cast<std::string>(given["scale_kind"]), kScales);
  constexpr size_t kBytes[] = {4, 2, 2, 1, 1};
  term.codes = reinterpret_cast<const uint8_t*>(
      self.bytes(given["codes"], term.row_bytes * static_cast<size_t>(rows)));
  term.scale = self.bytes(given["scale"], scales * kBytes[static_cast<int>(term.scale_kind)]);
  if (!given["zero"].is_none()) {
    const size_t zeros =
        term.single ? 1 : (static_cast<size_t>(rows) * term.bits + 7) / 8 * term.groups;
    term.zero = reinterpret_cast<const uint8_t*>(self.bytes(given["zero"], zeros));
  }
  term.levels = floats(given["levels"]);
  const size_t levels = size_t{1} << term.bits;
  if (term.levels.empty())
    term.own_levels = reinterpret_cast<const uint16_t*>(
        self.bytes(given["own_levels"], 2 * levels * static_cast<size_t>(rows)));
  else
    require(term.levels.size() == levels, "a table has a level for each code");
  term.whole = nb::cast<float>(given["whole"]);
  return term;
}

Vectors vectors_of(Planned& self, const nb::dict& given) {
  Vectors table;
  table.rows = nb::cast<int>(given["rows"]);
  table.width = nb::cast<int>(given["width"]);
  if (given.contains("terms")) {
    for (nb::handle term : nb::cast<nb::list>(given["terms"]))
      table.terms.push_back(term_of(self, nb::cast<nb::dict>(term), table.rows, table.width));
    return table;
  }
  table.number = choice<Number>(nb::cast<std::string>(given["number"]), kNumbers);
  const size_t size = table.number == Number::f32 ? 4 : 2;
  table.plain =
      self.bytes(given["plain"], static_cast<size_t>(table.rows) * table.width * size);
  return table;
}

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

// A sequence's part of a step: how many tokens, the position of the first, pages and slot.
Sequence sequence_of(const Planned& self, const nb::tuple& given, int row) {
  const Limits& limits = self.program.limits();
  const Geometry& g = self.program.pool().geometry();
  const auto pages = nb::cast<Numbers>(given[2]);
  const Sequence sequence{row, nb::cast<int>(given[0]), nb::cast<int>(given[1]), pages.data(),
                          nb::cast<int>(given[3])};
  require(sequence.count > 0 && sequence.start >= 0, "a sequence has tokens");
  require(sequence.count <= limits.longest - sequence.start, "a sequence is too long");
  const int needed = (sequence.start + sequence.count + kPage - 1) / kPage;
  require(pages.size() >= static_cast<size_t>(needed), "a sequence has too few pages");
  for (int i = 0; i < needed; ++i)
    require(pages.data()[i] >= 0 && pages.data()[i] < g.pages, "no such page");
  require(sequence.slot >= 0 && sequence.slot < g.slots, "no such slot");
  return sequence;
}

nb::object step(Planned& self, const Numbers& tokens, const nb::list& sequences,
                const Numbers& wanted) {
  const Limits& limits = self.program.limits();
  require(self.sealed, "the program is not sealed");
  require(tokens.size() > 0 && tokens.size() <= static_cast<size_t>(limits.tokens),
          "more tokens than a step takes");
  for (size_t i = 0; i < tokens.size(); ++i)
    require(tokens.data()[i] >= 0 && tokens.data()[i] < self.rows, "no such token");
  std::vector<Sequence> found;
  int row = 0;
  for (nb::handle each : sequences) {
    found.push_back(sequence_of(self, nb::cast<nb::tuple>(each), row));
    row += found.back().count;
    require(row <= static_cast<int>(tokens.size()), "sequences have more tokens than there are");
  }
  require(row == static_cast<int>(tokens.size()), "sequences have fewer tokens than there are");
  require(found.size() <= static_cast<size_t>(limits.sequences), "too many sequences");
  for (size_t i = 0; i < wanted.size(); ++i)
    require(wanted.data()[i] >= 0 && wanted.data()[i] < row, "a wanted row is not there");
  const size_t rows = wanted.size(), vocab = static_cast<size_t>(limits.vocab);
  auto* const logits = new float[std::max<size_t>(1, rows * vocab)];
  nb::capsule owner(logits, [](void* p) noexcept { delete[] static_cast<float*>(p); });
  {
    nb::gil_scoped_release release;
    self.program.step({tokens.data(), row, found.data(), static_cast<int>(found.size()),
                       wanted.data(), static_cast<int>(rows), logits});
  }
  return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<2>>(logits, {rows, vocab}, owner));
}

std::shared_ptr<Pool> make_pool(int layers, int heads, int dim, int pages, int slots, int staged,
                                const std::string& kind) {
  return std::make_shared<Pool>(
      Geometry{layers, heads, dim, pages, slots, staged, choice<Kind>(kind, kKinds)});
}

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

}  // namespace

void bind_plan(nb::module_& module) {
  module.attr("PAGE") = kPage;
  nb::class_<Pool>(module, "Pool", "Pages of keys and values of all layers.")
      .def(nb::new_(&make_pool), nb::arg("layers"), nb::arg("heads"), nb::arg("dim"),
           nb::arg("pages"), nb::arg("slots"), nb::arg("staged"), nb::arg("kind"))
      .def_prop_ro("nbytes", &Pool::bytes)
      .def_prop_ro("page_bytes", &Pool::page_bytes)
      .def("copy_page", &Pool::copy_page, nb::arg("source"), nb::arg("target"))
      .def("copy_slot", &Pool::copy_slot, nb::arg("source"), nb::arg("target"));
  nb::class_<Planned> planned(module, "Program", "Operators over an arena, and a team that runs them.");
  planned
      .def(
          "__init__",
          [](Planned* self, int threads, const std::string& tier, int tokens, int wanted,
             int sequences, int longest, int vocab, size_t arena, std::shared_ptr<Pool> pool) {
            Tier level = Tier::generic;
            require(parse_tier(tier, &level), "no such tier");
            const Limits limits{tokens, wanted, sequences, longest, vocab};
            new (self) Planned{{threads, level, limits, arena, std::move(pool)}, {}, {}, 0, false};
          },
          nb::arg("threads"), nb::arg("tier"), nb::arg("tokens"), nb::arg("wanted"),
          nb::arg("sequences"), nb::arg("longest"), nb::arg("vocab"), nb::arg("arena"),
          nb::arg("pool"))
      .def(
          "seal",
          [](Planned& self, const Spot& logits, int group) {
            self.program.seal(place(logits), group);
            self.sealed = true;
          },
          nb::arg("logits"), nb::arg("group"))
      .def("step", &step, nb::arg("tokens"), nb::arg("sequences"), nb::arg("wanted"),
           "Logits of the wanted rows; each sequence is (count, start, pages, slot).")
      .def("time", [](Planned& self, bool on) { self.program.time(on); }, nb::arg("on"))
      .def_prop_ro("seconds", [](const Planned& self) { return self.program.seconds(); })
      .def_prop_ro("arena_bytes", [](const Planned& self) { return self.program.arena_bytes(); })
      .def_prop_ro("scratch_bytes",
                   [](const Planned& self) { return self.program.scratch_bytes(); });
  bind_operators(planned);
}

}  // namespace whet
