// numpy's element types, which are named by dtype.str: "<f4", "|S3", "<M8[25s]".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "ckpt/v1/state.pb.h"

namespace ckpt::formats {

struct NumpyDType {
  char order = '|';         // '<', '>' or '|'
  char kind = 'u';          // numpy's dtype.kind
  std::uint64_t count = 1;  // the number after it: bytes, or characters of a 'U'
  std::string unit;         // of 'm' and 'M': "s"; "" if it has none
  std::uint64_t unit_count = 1;

  [[nodiscard]] std::uint64_t ItemSize() const { return kind == 'U' ? 4 * count : count; }

  // Bytes of each of the numbers or characters that an element consists of.
  [[nodiscard]] std::uint64_t NumberSize() const { return kind == 'U' ? 4 : kind == 'c' ? count / 2 : count; }

  // dtype.str.
  [[nodiscard]] std::string ToString() const;

  // The element type of a tensor with the same bytes, if there is one.
  [[nodiscard]] std::optional<v1::DType> ToTensor() const;
};

// Parses dtype.str, or ("f4") what is in it without the byte order. Nothing for what is no number, text, raw bytes or
// time: objects, and records with fields.
std::optional<NumpyDType> ParseNumpyDType(std::string_view text);

// True for numpy's units of time: "D", "ns".
bool IsTimeUnit(std::string_view unit);

}  // namespace ckpt::formats
