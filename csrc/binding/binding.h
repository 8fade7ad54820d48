// The only files that know Python: each binds one folder of the engine.
#pragma once

#include <nanobind/nanobind.h>

namespace whet {

void bind_cpu(nanobind::module_& module);
void bind_gram(nanobind::module_& module);
void bind_linear(nanobind::module_& module);
void bind_plan(nanobind::module_& module);
void bind_solve(nanobind::module_& module);

}  // namespace whet
