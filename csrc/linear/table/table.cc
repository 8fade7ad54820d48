#include <cmath>
#include <cstring>

#include "base/half.h"
#include "linear/table/kernel.h"

namespace whet::table {

void fill(Table& table, const float* values, int bits) {
  const int count = 1 << bits;
  for (int i = 0; i < 256; ++i) {
    const float value = values[i % count];
    const std::uint16_t high = f32_to_bf16(value);
    const float rest = std::isnan(value) ? 0.0f : value - bf16_to_f32(high);
    table.values[i] = value;
    table.high[i] = high;
    table.low[i] = f32_to_bf16(rest);
    table.bytes[0][i] = static_cast<std::uint8_t>(high);
    table.bytes[1][i] = static_cast<std::uint8_t>(high >> 8);
    table.bytes[2][i] = static_cast<std::uint8_t>(table.low[i]);
    table.bytes[3][i] = static_cast<std::uint8_t>(table.low[i] >> 8);
  }
  table.mirrored = bits == 8;
  for (int i = 0; i < 128 && table.mirrored; ++i)
    table.mirrored = (table.high[i] ^ 0x8000) == table.high[i + 128] &&
                     (table.low[i] == table.low[i + 128]) && table.low[i] == 0;
}

void fill_uppers(Table& table, const std::uint8_t* uppers) {
  for (int i = 0; i < 256; ++i) table.bytes[1][i] = uppers[i % kUppers];
}

}  // namespace whet::table
