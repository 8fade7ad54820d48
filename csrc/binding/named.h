// What Python names by a string.
#pragma once

#include <nanobind/nanobind.h>

#include <initializer_list>
#include <string>

#include "base/cpu.h"

namespace whet {

template <class Value>
Value choice(const std::string& name, std::initializer_list<const char*> names) {
  int index = 0;
  for (const char* each : names) {
    if (name == each) return static_cast<Value>(index);
    ++index;
  }
  throw nanobind::value_error(("unknown: " + name).c_str());
}

inline Tier tier_of(const std::string& name) {
  Tier tier = Tier::generic;
  if (!parse_tier(name, &tier)) throw nanobind::value_error(("no tier " + name).c_str());
  return tier;
}

}  // namespace whet
