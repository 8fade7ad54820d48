#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "base/aligned.h"
#include "base/bandwidth.h"
#include "base/cpu.h"
#include "binding/binding.h"
#include "binding/named.h"

namespace nb = nanobind;

namespace whet {
namespace {

std::vector<std::string> names_of(const std::vector<Tier>& tiers) {
  std::vector<std::string> names;
  for (Tier tier : tiers) names.emplace_back(tier_name(tier));
  return names;
}

// Bytes per second of the best of some readings of fresh memory.
double read_bandwidth(std::size_t size, int threads, int repeats) {
  nb::gil_scoped_release release;
  Aligned memory(size);
  Team team(threads);
  return static_cast<double>(size) / read_seconds(team, memory.data(), size, repeats);
}

}  // namespace

void bind_cpu(nb::module_& module) {
  module.def(
      "tiers", [] { return names_of(tiers()); }, "Tiers that can run here, the slowest first.");
  module.def(
      "written_tiers", [] { return names_of(written_tiers()); },
      "Tiers for this kind of processor, the slowest first.");
  module.def(
      "tier_refusal", [](const std::string& name) { return tier_refusal(tier_of(name)); },
      nb::arg("tier"), "Why a tier cannot run here, or ''.");
  module.def(
      "chosen_tier", [] { return std::string(tier_name(chosen_tier())); },
      "The fastest tier, or the one that WHET_ISA names.");
  module.def("cpu_features", &cpu_features,
             "Instruction sets that kernels use and that are present.");
  module.def("read_bandwidth", &read_bandwidth, nb::arg("size"), nb::arg("threads"),
             nb::arg("repeats") = 5, "How fast memory is read [byte/s].");
}

}  // namespace whet
