#include "attention/attend.inl"

namespace whet {

const Attention& attention_neon() {
  static constexpr Attention table = {put,        settle, plain_scratch, plain_begin,
                                      plain_page, clear,  merge,         finish};
  return table;
}

}  // namespace whet
