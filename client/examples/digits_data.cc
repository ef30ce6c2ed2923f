#include "client/examples/digits_data.h"

#include <fstream>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace digits {
namespace {

constexpr int kMaxPixel = 16;
constexpr std::size_t kHoldBackEvery = 5;

// Adds an image. False if the line is not one.
bool AddImage(std::string_view line, Images& images) {
  const std::vector<absl::string_view> fields = absl::StrSplit(absl::string_view(line.data(), line.size()), ',');
  if (fields.size() != kPixels + 1) return false;
  for (std::size_t i = 0; i <= kPixels; ++i) {
    const int largest = i < kPixels ? kMaxPixel : static_cast<int>(kClasses) - 1;
    int number = 0;
    if (!absl::SimpleAtoi(fields[i], &number) || number < 0 || number > largest) return false;
    if (i < kPixels) {
      images.pixels.values.push_back(static_cast<float>(number) / static_cast<float>(kMaxPixel));
    } else {
      images.labels.push_back(static_cast<std::uint8_t>(number));
    }
  }
  ++images.pixels.rows;
  return true;
}

}  // namespace

absl::StatusOr<Dataset> ParseDigits(std::string_view csv) {
  Dataset dataset;
  for (std::size_t line = 1; !csv.empty(); ++line) {
    const std::size_t end = csv.find('\n');
    const std::string_view text = csv.substr(0, end);
    csv.remove_prefix(end == std::string_view::npos ? csv.size() : end + 1);
    if (!AddImage(text, line % kHoldBackEvery == 0 ? dataset.validation : dataset.training))
      return absl::InvalidArgumentError(absl::StrCat("line ", line, ": not 64 pixels (0 to 16) and a digit"));
  }
  return dataset;
}

absl::StatusOr<Dataset> ReadDigits(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat("cannot open ", path));
  const std::string csv{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  auto dataset = ParseDigits(csv);
  if (dataset.ok()) return dataset;
  return absl::Status(dataset.status().code(), absl::StrCat(path, ": ", dataset.status().message()));
}

}  // namespace digits
