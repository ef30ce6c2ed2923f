#include "client/examples/random.h"

#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "gtest/gtest.h"

namespace digits {
namespace {

TEST(Random, IsSeededBySplitMix64) {
  // What the authors' splitmix64.c gives for this seed.
  const Random::State expected = {6457827717110365317U, 3203168211198807973U, 9817491932198370423U,
                                  4593380528125082431U};
  EXPECT_EQ(Random(1234567).state(), expected);
}

TEST(Random, IsXoshiro256StarStar) {
  // What the authors' xoshiro256starstar.c gives from this state.
  Random random(0);
  random.state() = {1, 2, 3, 4};
  for (const std::uint64_t expected : {11520U, 0U, 1509978240U}) EXPECT_EQ(random.Next(), expected);
  EXPECT_EQ(random.Next(), 1215971899390074240U);
}

TEST(Random, ItsStateIsAllOfIt) {
  Random random(7);
  for (int i = 0; i < 10; ++i) random.Next();
  Random resumed(8);
  resumed.state() = random.state();
  for (int i = 0; i < 10; ++i) EXPECT_EQ(resumed.Next(), random.Next());
}

TEST(Random, BelowIsEvenAndInRange) {
  Random random(1);
  constexpr int kDraws = 60000;
  std::array<int, 6> seen{};
  for (int i = 0; i < kDraws; ++i) ++seen.at(random.Below(seen.size()));
  // 10,000 each; the standard deviation is 91.
  for (const int count : seen) EXPECT_NEAR(count, kDraws / 6.0, 500);
}

TEST(Random, BelowDrawsAgainWhatWouldBeUneven) {
  // The bound is 3/4 of 2^64: a plain remainder would give the lowest third twice as often as the others.
  Random random(2);
  constexpr std::uint64_t kQuarter = std::uint64_t{1} << 62;
  constexpr int kDraws = 30000;
  int lowest_third = 0;
  for (int i = 0; i < kDraws; ++i) lowest_third += random.Below(3 * kQuarter) < kQuarter ? 1 : 0;
  EXPECT_NEAR(lowest_third, kDraws / 3.0, 500);
}

TEST(Random, UniformFillsItsRange) {
  Random random(3);
  float smallest = 1;
  float largest = -1;
  for (int i = 0; i < 10000; ++i) {
    const float value = random.Uniform(-0.5F, 0.25F);
    smallest = std::min(smallest, value);
    largest = std::max(largest, value);
  }
  EXPECT_GE(smallest, -0.5F);
  EXPECT_LT(smallest, -0.49F);
  EXPECT_LT(largest, 0.25F);
  EXPECT_GT(largest, 0.24F);
}

TEST(Random, EachOrderIsAsLikely) {
  Random random(4);
  constexpr int kDraws = 12000;
  std::map<std::vector<std::size_t>, int> seen;
  for (int i = 0; i < kDraws; ++i) ++seen[random.Permutation(3)];
  ASSERT_EQ(seen.size(), 6U);
  for (const auto& [order, count] : seen) {
    EXPECT_TRUE(std::is_permutation(order.begin(), order.end(), std::vector<std::size_t>{0, 1, 2}.begin()));
    EXPECT_NEAR(count, kDraws / 6.0, 250);  // the standard deviation is 41
  }
}

}  // namespace
}  // namespace digits
