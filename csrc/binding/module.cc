#include "binding/binding.h"

NB_MODULE(_native, module) {
  module.doc() = "The native engine: kernels and the plan that runs them.";
  whet::bind_cpu(module);
  whet::bind_gram(module);
  whet::bind_linear(module);
  whet::bind_plan(module);
  whet::bind_solve(module);
}
