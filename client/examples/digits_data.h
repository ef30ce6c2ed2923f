// The images: 8×8 pixels and the digit that each shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "client/examples/layers.h"

namespace digits {

inline constexpr std::size_t kPixels = 64;
inline constexpr std::size_t kClasses = 10;

// digits/digits.csv, compiled in.
std::string_view EmbeddedCsv();

struct Images {
  Matrix pixels{0, kPixels};         // a row per image, from 0 to 1
  std::vector<std::uint8_t> labels;  // the digit of each
};

// What is learnt from, and what is held back to see what was learnt.
struct Dataset {
  Images training;
  Images validation;
};

// The images of a text like digits/digits.csv: a line has 64 pixels (0 to 16) and the digit. Every fifth is held back.
// Errors: InvalidArgument (names the line).
absl::StatusOr<Dataset> ParseDigits(std::string_view csv);

// The same from a file. Errors: NotFound, InvalidArgument.
absl::StatusOr<Dataset> ReadDigits(const std::string& path);

}  // namespace digits
