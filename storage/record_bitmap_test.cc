#include "storage/record_bitmap.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>
#include <set>

namespace ckpt::storage {
namespace {

TEST(RecordBitmap, BitsCountFromTheLeastSignificant) {
  std::string bitmap;
  AddRecord(bitmap, 0);
  EXPECT_EQ(bitmap, "\x01");
  AddRecord(bitmap, 7);
  EXPECT_EQ(bitmap, "\x81");
  AddRecord(bitmap, 17);
  EXPECT_EQ(bitmap, std::string("\x81\x00\x02", 3));
}

TEST(RecordBitmap, HoldsNothingBeyondItsEnd) {
  EXPECT_FALSE(HasRecord("", 0));
  EXPECT_FALSE(HasRecord("\xff", 8));
  EXPECT_FALSE(HasRecord("\xff", UINT32_MAX));
  EXPECT_TRUE(HasRecord("\xff", 7));
}

TEST(RecordBitmap, EqualSetsAreEqualBytes) {
  std::string bitmap = "\x01";
  AddRecord(bitmap, 100);
  RemoveRecord(bitmap, 100);
  EXPECT_EQ(bitmap, "\x01");
  RemoveRecord(bitmap, 0);
  EXPECT_EQ(bitmap, "");
  RemoveRecord(bitmap, 5);
  EXPECT_EQ(bitmap, "");
}

TEST(RecordBitmap, IsTheSetThatItWasMadeOf) {
  const char* given = std::getenv("CKPT_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "CKPT_SEED=" << seed << std::endl;
  std::mt19937_64 random(seed);
  std::set<std::uint32_t> expected;
  std::string bitmap;
  for (int round = 0; round < 5000; ++round) {
    const auto ordinal = static_cast<std::uint32_t>(random() % 200);
    if (random() % 2 == 0) {
      AddRecord(bitmap, ordinal);
      expected.insert(ordinal);
    } else {
      RemoveRecord(bitmap, ordinal);
      expected.erase(ordinal);
    }
    ASSERT_EQ(bitmap.size(), expected.empty() ? 0 : *expected.rbegin() / 8 + 1);
    for (std::uint32_t i = 0; i < 210; ++i) ASSERT_EQ(HasRecord(bitmap, i), expected.contains(i)) << i;
  }
}

}  // namespace
}  // namespace ckpt::storage
