#include "client/cli/text.h"

#include <gtest/gtest.h>

#include <cmath>

#include "client/cli/commands.h"

namespace ckpt::cli {
namespace {

TEST(ExitCode, SaysWhatKindOfErrorItWas) {
  const auto code = [](absl::StatusCode kind) { return ExitCode(absl::Status(kind, "x")); };
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
  EXPECT_EQ(code(absl::StatusCode::kInvalidArgument), 1);
  EXPECT_EQ(code(absl::StatusCode::kResourceExhausted), 1);
  EXPECT_EQ(code(absl::StatusCode::kInternal), 1);
  EXPECT_EQ(code(absl::StatusCode::kNotFound), 3);
  EXPECT_EQ(code(absl::StatusCode::kAlreadyExists), 4);
  EXPECT_EQ(code(absl::StatusCode::kAborted), 4);
  EXPECT_EQ(code(absl::StatusCode::kFailedPrecondition), 4);
  EXPECT_EQ(code(absl::StatusCode::kPermissionDenied), 5);
  EXPECT_EQ(code(absl::StatusCode::kUnauthenticated), 5);
  EXPECT_EQ(code(absl::StatusCode::kUnavailable), 6);
  EXPECT_EQ(code(absl::StatusCode::kDataLoss), 7);
}

TEST(Text, IsSafeForATerminal) {
  EXPECT_EQ(Printable("a\x1b[31mb\n\x7f"), "a\\x1b[31mb\\x0a\\x7f");
  EXPECT_EQ(Printable("caf\xc3\xa9"), "caf\xc3\xa9");
  EXPECT_EQ(Printable("\xc2\x9b\xc2\xa0"), "\\xc2\\x9b\xc2\xa0");  // CSI as one character
}

TEST(Text, BytesAreCountedInPowersOf1024) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(1536), "1.5 KiB");
  EXPECT_EQ(HumanBytes(std::uint64_t{5} << 40), "5.0 TiB");
  EXPECT_EQ(HumanBytes(~std::uint64_t{0}), "16.0 EiB");
}

TEST(Text, NumbersAreShort) {
  EXPECT_EQ(Number(0.1), "0.1");
  EXPECT_EQ(Number(2.0 / 3), "0.666667");
  EXPECT_EQ(Number(1e300), "1e+300");
  EXPECT_EQ(Number(-0.0), "-0");
  EXPECT_EQ(Number(std::nan("")), "nan");
}

TEST(Text, ColumnsLineUpWhateverTheirLetters) {
  Table table({{"NAME", Table::Align::kLeft}, {"N", Table::Align::kRight}});
  table.Add({"caf\xc3\xa9\n", "7"});
  table.Add({"b", "10"});
  EXPECT_EQ(table.Text(), "NAME       N\ncaf\xc3\xa9\\x0a   7\nb         10\n");
}

}  // namespace
}  // namespace ckpt::cli
