#include "binding/tables.h"

#include <nanobind/stl/string.h>

#include "binding/named.h"

namespace nb = nanobind;

namespace whet {
namespace {

constexpr std::initializer_list<const char*> kNumbers = {"F32", "F16", "BF16"};
constexpr std::initializer_list<const char*> kScales = {"f32", "f16", "bf16", "e8m0", "e4m3"};

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
  if (!given["minimum"].is_none())
    term.minimum = self.bytes(given["minimum"], scales * kBytes[static_cast<int>(term.scale_kind)]);
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

}  // namespace

std::vector<float> floats(const nb::object& given) {
  if (given.is_none()) return {};
  const auto array = nb::cast<Floats>(given);
  return {array.data(), array.data() + array.size()};
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

}  // namespace whet
