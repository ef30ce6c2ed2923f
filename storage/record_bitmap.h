// Sets of record ordinals as bytes: bit n of byte n / 8, from the least significant. No zero bytes at the end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ckpt::storage {

inline bool HasRecord(std::string_view bitmap, std::uint32_t ordinal) {
  return ordinal / 8 < bitmap.size() && (static_cast<unsigned char>(bitmap[ordinal / 8]) >> (ordinal % 8) & 1) != 0;
}

inline void AddRecord(std::string& bitmap, std::uint32_t ordinal) {
  if (bitmap.size() <= ordinal / 8) bitmap.resize(ordinal / 8 + 1);
  bitmap[ordinal / 8] = static_cast<char>(bitmap[ordinal / 8] | 1 << ordinal % 8);
}

inline void RemoveRecord(std::string& bitmap, std::uint32_t ordinal) {
  if (!HasRecord(bitmap, ordinal)) return;
  bitmap[ordinal / 8] = static_cast<char>(bitmap[ordinal / 8] & ~(1 << ordinal % 8));
  while (!bitmap.empty() && bitmap.back() == '\0') bitmap.pop_back();
}

}  // namespace ckpt::storage
