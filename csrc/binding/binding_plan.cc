#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>

#include "binding/binding.h"
#include "binding/named.h"
#include "binding/planned.h"

namespace nb = nanobind;

namespace whet {
namespace {

using Numbers = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

constexpr std::initializer_list<const char*> kKinds = {"f32", "f16", "bf16", "int8", "kv4", "kv2"};

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
            const Limits limits{tokens, wanted, sequences, longest, vocab};
            new (self) Planned{{threads, tier_of(tier), limits, arena, std::move(pool)}, {}, {}, 0, false};
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
