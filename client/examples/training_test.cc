#include "client/examples/training.h"

#include "gtest/gtest.h"

namespace digits {
namespace {

TEST(Training, LearnsToReadDigits) {
  const auto dataset = ParseDigits(EmbeddedCsv());
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  Training training(0);
  EpochResult result;
  for (int epoch = 1; epoch <= 8; ++epoch) {
    result = TrainEpoch(*dataset, training);
    EXPECT_EQ(training.epoch, epoch);
  }
  EXPECT_GE(result.validation.accuracy, 0.95);
  EXPECT_GE(training.best_val_acc, result.validation.accuracy);
}

TEST(Training, IsTheSameFromTheSameSeedAndAnotherFromAnother) {
  const auto dataset = ParseDigits(EmbeddedCsv());
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  Training one(1);
  Training same(1);
  Training other(2);
  for (Training* training : {&one, &same, &other}) TrainEpoch(*dataset, *training);
  EXPECT_EQ(one.network.fc1.weight.value, same.network.fc1.weight.value);
  EXPECT_EQ(one.random.state(), same.random.state());
  EXPECT_NE(one.network.fc1.weight.value, other.network.fc1.weight.value);
}

}  // namespace
}  // namespace digits
