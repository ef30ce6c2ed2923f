#include "client/examples/adam.h"

#include <cmath>

#include "gtest/gtest.h"

namespace digits {
namespace {

TEST(Adam, FirstStepIsTheLearningRateAgainstTheGradientsSign) {
  Parameter parameter({2});
  parameter.value = {1, 1};
  parameter.gradient = {0.25F, -8};
  Adam adam({&parameter}, {.learning_rate = 0.1});
  adam.Step();
  // Both means, corrected, are the gradient's own: g / √g² is its sign.
  EXPECT_NEAR(parameter.value[0], 0.9, 1e-6);
  EXPECT_NEAR(parameter.value[1], 1.1, 1e-6);
  EXPECT_EQ(adam.slots()[0].step, 1);
  EXPECT_NEAR(adam.slots()[0].exp_avg[1], -0.8, 1e-6);
  EXPECT_NEAR(adam.slots()[0].exp_avg_sq[1], 0.064, 1e-6);
}

TEST(Adam, IsThePapersAlgorithm) {
  // Algorithm 1 of the paper, in doubles, and the weight decay of PyTorch's.
  const AdamOptions options = {
      .learning_rate = 0.01, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-3, .weight_decay = 0.1};
  Parameter parameter({1}, 0.5F);
  Adam adam({&parameter}, options);
  double value = 0.5;
  double mean = 0;
  double square = 0;
  for (int step = 1; step <= 20; ++step) {
    const double gradient = std::sin(step);
    parameter.gradient[0] = static_cast<float>(gradient);
    adam.Step();

    const double decayed = gradient + 0.1 * value;
    mean = 0.8 * mean + 0.2 * decayed;
    square = 0.95 * square + 0.05 * decayed * decayed;
    value -= 0.01 * (mean / (1 - std::pow(0.8, step))) / (std::sqrt(square / (1 - std::pow(0.95, step))) + 1e-3);
    ASSERT_NEAR(parameter.value[0], value, 1e-6) << "step " << step;
  }
}

}  // namespace
}  // namespace digits
