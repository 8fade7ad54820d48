#include "linear/matrix.h"

#include <cstring>

namespace whet {

const std::vector<Kernel>& kernels() {
  static const std::vector<Kernel> all = [] {
    std::vector<Kernel> found = {integer_kernel()};
    for (const Kernel& kernel : table_kernels()) found.push_back(kernel);
    return found;
  }();
  return all;
}

const Kernel* kernel_for(const Planes& weight, Tier tier, Mode mode, std::string* refusals) {
  for (const Kernel& kernel : kernels()) {
    const std::string reason = kernel.refusal(weight, tier, mode);
    if (reason.empty()) return &kernel;
    if (refusals != nullptr) {
      *refusals += (refusals->empty() ? "" : "; ") + std::string(kernel.name) + ": " + reason;
    }
  }
  return nullptr;
}

Aligned pack(const Planes& weight, Tier tier, Mode mode) {
  if (weight.rows < 1 || weight.cols < 1) throw LayoutError("the weight is empty");
  std::string refusals;
  const Kernel* kernel = kernel_for(weight, tier, mode, &refusals);
  if (kernel == nullptr) throw LayoutError("no kernel takes this weight: " + refusals);
  return kernel->pack(weight, tier, mode);
}

const MatrixView& view_of(Bytes layout) {
  if (reinterpret_cast<uintptr_t>(layout.data()) % kLine != 0) {
    throw LayoutError("the layout does not begin at a multiple of 64 bytes");
  }
  if (layout.size() < kHeader) throw LayoutError("the layout is shorter than its header");
  const auto& view = *reinterpret_cast<const MatrixView*>(layout.data());
  if (std::memcmp(view.magic, MatrixView::kMagic, sizeof view.magic) != 0) {
    throw LayoutError("these bytes are no layout");
  }
  if (view.size != layout.size()) throw LayoutError("the layout is cut off");
  if (view.rows < 1 || view.cols < 1) throw LayoutError("the layout's shape is impossible");
  for (int part = 0; part < MatrixView::kParts; ++part) {
    const uint64_t offset = view.offset[part], length = view.length[part];
    if (length > view.size || offset > view.size - length || offset % kLine != 0) {
      throw LayoutError("a part of the layout lies outside of it");
    }
  }
  return view;
}

namespace {

const Kernel& kernel_of(const MatrixView& view) {
  for (const Kernel& kernel : kernels()) {
    if (kernel.id == view.kernel) return kernel;
  }
  throw LayoutError("the layout is of a kernel that is not known here");
}

}  // namespace

Stored unpack(Bytes layout) { return kernel_of(view_of(layout)).unpack(layout); }

std::unique_ptr<Matrix> open(Bytes layout, Tier tier) {
  const std::string reason = tier_refusal(tier);
  if (!reason.empty()) throw LayoutError(std::string(tier_name(tier)) + ": " + reason);
  return kernel_of(view_of(layout)).open(layout, tier);
}

MatrixView header_for(const Planes& weight, uint32_t kernel, Tier tier, Mode mode) {
  MatrixView view;
  std::memset(&view, 0, sizeof view);
  std::memcpy(view.magic, MatrixView::kMagic, sizeof view.magic);
  view.kernel = kernel;
  view.tier = tier;
  view.mode = mode;
  view.element = weight.format.element;
  view.scale = weight.format.scale;
  view.rows = weight.rows;
  view.cols = weight.cols;
  view.group = weight.format.group;
  view.bits = weight.format.bits;
  view.exponent = weight.format.exponent;
  view.affine = weight.format.affine;
  view.shared = weight.format.shared;
  view.sparse = weight.format.sparse;
  view.minimum = weight.format.minimum;
  view.input_scale = weight.input_scale;
  return view;
}

Stored described(const MatrixView& view) {
  Stored weight;
  weight.format = {view.element,     view.bits,        view.exponent, view.group,
                   view.affine != 0, view.shared != 0, view.scale,    view.sparse != 0,
                   view.minimum != 0};
  weight.rows = view.rows;
  weight.cols = view.cols;
  weight.input_scale = view.input_scale;
  return weight;
}

Bytes plane(const Planes& weight, const std::string& name, std::size_t size) {
  const auto found = weight.planes.find(name);
  if (found == weight.planes.end()) throw LayoutError("the weight has no plane " + name);
  if (found->second.size() != size) {
    throw LayoutError("plane " + name + " has " + std::to_string(found->second.size()) +
                      " bytes, expected " + std::to_string(size));
  }
  return found->second;
}

int scale_bytes(Scale scale) {
  switch (scale) {
    case Scale::none:
      return 0;
    case Scale::bf16:
    case Scale::f16:
      return 2;
    case Scale::f32:
      return 4;
    case Scale::e8m0:
    case Scale::e4m3:
      return 1;
  }
  return 0;
}

}  // namespace whet
