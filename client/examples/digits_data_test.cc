#include "client/examples/digits_data.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace digits {
namespace {

// A line of 64 equal pixels and a digit.
std::string Line(int pixel, int digit) {
  std::string line;
  for (std::size_t i = 0; i < kPixels; ++i) absl::StrAppend(&line, pixel, ",");
  return absl::StrCat(line, digit, "\n");
}

TEST(DigitsData, TheImagesBuiltInAreWhole) {
  const auto dataset = ParseDigits(EmbeddedCsv());
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ(dataset->training.labels.size(), 1438U);
  EXPECT_EQ(dataset->validation.labels.size(), 359U);
  EXPECT_EQ(dataset->training.pixels.values.size(), 1438 * kPixels);
  // The first line begins 0,0,5,13,9,1 and shows a 0.
  EXPECT_EQ(dataset->training.pixels[0][3], 13.0F / 16);
  EXPECT_EQ(dataset->training.labels[0], 0);
}

TEST(DigitsData, EveryFifthIsHeldBack) {
  std::string csv;
  for (int digit = 0; digit < 10; ++digit) csv += Line(16, digit);
  const auto dataset = ParseDigits(csv);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ(dataset->validation.labels, (std::vector<std::uint8_t>{4, 9}));
  EXPECT_EQ(dataset->training.labels, (std::vector<std::uint8_t>{0, 1, 2, 3, 5, 6, 7, 8}));
  EXPECT_EQ(dataset->validation.pixels[1][63], 1.0F);
}

TEST(DigitsData, RefusesWhatIsNoImageAndNamesItsLine) {
  for (const std::string& bad : {Line(17, 0), Line(-1, 0), Line(0, 10), std::string("1,2,3\n"), std::string("\n"),
                                 absl::StrCat("0,", Line(0, 0)), absl::StrCat("x", Line(0, 0))}) {
    const auto dataset = ParseDigits(Line(0, 0) + bad);
    EXPECT_EQ(dataset.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_NE(dataset.status().message().find("line 2"), absl::string_view::npos) << dataset.status();
  }
  EXPECT_EQ(ReadDigits("no/such/file.csv").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace digits
