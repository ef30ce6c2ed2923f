#include "base/status.h"

#include <gtest/gtest.h>

#include <memory>

namespace ckpt {
namespace {

absl::Status Lost() { return MakeError(absl::StatusCode::kDataLoss, "DATA_DAMAGED", "chunk 3 is damaged"); }

TEST(Status, AnErrorCarriesItsReason) {
  EXPECT_EQ(ReasonOf(Lost()), "DATA_DAMAGED");
  EXPECT_EQ(Lost().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(Lost().message(), "chunk 3 is damaged");
  EXPECT_EQ(ReasonOf(absl::OkStatus()), "");
  EXPECT_EQ(ReasonOf(absl::InternalError("no reason")), "");
}

TEST(Status, ContextComesBeforeTheMessageAndTheReasonStays) {
  const absl::Status status = Annotate(Annotate(Lost(), "tensor fc.weight"), "run r epoch 3");
  EXPECT_EQ(status.message(), "run r epoch 3: tensor fc.weight: chunk 3 is damaged");
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReasonOf(status), "DATA_DAMAGED");
  EXPECT_TRUE(Annotate(absl::OkStatus(), "context").ok());
}

TEST(ReturnIfError, ReturnsErrorsOnlyAndEvaluatesOnce) {
  int calls = 0;
  const auto pass = [&](const absl::Status& status) -> absl::Status {
    const auto next = [&] {
      ++calls;
      return status;
    };
    if (calls == 0) CKPT_RETURN_IF_ERROR(next());  // a statement like any other
    return absl::CancelledError("went on");
  };
  EXPECT_EQ(pass(absl::OkStatus()), absl::CancelledError("went on"));
  EXPECT_EQ(calls, 1);
  calls = 0;
  EXPECT_EQ(pass(Lost()), Lost());
  EXPECT_EQ(calls, 1);
}

TEST(AssignOrReturn, TakesTheValueOrReturnsTheError) {
  using Owned = absl::StatusOr<std::unique_ptr<int>>;
  const auto sum = [](Owned a, Owned b) -> absl::StatusOr<int> {
    CKPT_ASSIGN_OR_RETURN(const std::unique_ptr<int> first, std::move(a));
    std::unique_ptr<int> second;
    CKPT_ASSIGN_OR_RETURN(second, std::move(b));
    return *first + *second;
  };
  EXPECT_EQ(sum(std::make_unique<int>(1), std::make_unique<int>(2)).value(), 3);
  EXPECT_EQ(sum(std::make_unique<int>(1), Lost()).status(), Lost());
  EXPECT_EQ(sum(Lost(), std::make_unique<int>(2)).status(), Lost());
}

TEST(CheckDeathTest, ABrokenInvariantAbortsAndSaysWhere) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  CKPT_CHECK(1 + 1 == 2);
  CKPT_CHECK_OK(absl::OkStatus());
  EXPECT_DEATH(CKPT_CHECK(1 + 1 == 3), "status_test.cc:[0-9]+: check failed: 1 \\+ 1 == 3");
  EXPECT_DEATH(CKPT_CHECK_OK(Lost()), "status_test.cc:[0-9]+: check failed: Lost\\(\\) DATA_LOSS: chunk 3 is damaged");
}

}  // namespace
}  // namespace ckpt
