#include <gtest/gtest.h>

#include <bit>
#include <limits>
#include <string>

#include "base/state_node_fixture.h"
#include "base/state_walk.h"

namespace ckpt {
namespace {

TEST(KeyText, ShowsEachKindOfKey) {
  v1::Scalar big;
  big.set_big_int(std::string("\x00\x01\xff", 3));
  v1::Scalar complex;
  complex.mutable_complex_value()->set_real_bits(std::bit_cast<std::uint64_t>(0.5));
  complex.mutable_complex_value()->set_imag_bits(std::bit_cast<std::uint64_t>(-2.0));
  EXPECT_EQ(KeyText(Str("fc.weight")), "fc.weight");
  EXPECT_EQ(KeyText(Int(std::numeric_limits<std::int64_t>::min())), "-9223372036854775808");
  EXPECT_EQ(KeyText(Bool(false)), "False");
  EXPECT_EQ(KeyText(Float(0.1)), "0.10000000000000001");
  EXPECT_EQ(KeyText(complex), "(0.5,-2)");
  EXPECT_EQ(KeyText(big), "int:0001ff");
  EXPECT_EQ(KeyText({}), "?");
}

TEST(KeyText, EscapesWhatIsNotPrintable) {
  EXPECT_EQ(KeyText(Str(std::string("a\0b\x1f\x7f", 5))), "a\\x00b\\x1f\\x7f");
  EXPECT_EQ(KeyText(Str("caf\xc3\xa9")), "caf\xc3\xa9");
  EXPECT_EQ(KeyText(Str("\xc3")), "\\xc3");
  EXPECT_EQ(KeyText(Str("\xed\xa0\x80")), "\\xed\\xa0\\x80") << "a lone surrogate";
}

}  // namespace
}  // namespace ckpt
