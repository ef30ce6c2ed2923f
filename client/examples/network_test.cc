#include "client/examples/network.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "gtest/gtest.h"

namespace digits {
namespace {

constexpr NetworkSize kSmall = {.inputs = 6, .hidden = 5, .classes = 3};
constexpr std::size_t kRows = 8;

struct Batch {
  explicit Batch(Random& random) {
    for (float& value : images.values) value = random.Uniform(-1, 1);
    for (std::uint8_t& label : labels) label = static_cast<std::uint8_t>(random.Below(kSmall.classes));
  }

  Matrix images{kRows, kSmall.inputs};
  std::vector<std::uint8_t> labels = std::vector<std::uint8_t>(kRows);
};

TEST(Network, ItsGradientIsHowTheLossChanges) {
  Random random(5);
  Network network(kSmall, random);
  // Away from where they begin, so that a gradient that leaves them out shows.
  for (float& value : network.bn.weight.value) value = random.Uniform(0.5F, 1.5F);
  for (float& value : network.bn.bias.value) value = random.Uniform(-0.5F, 0.5F);
  const Batch batch(random);
  network.Train(batch.images, batch.labels);
  std::vector<std::vector<float>> gradients;
  for (const Parameter* parameter : network.parameters()) gradients.push_back(parameter->gradient);

  constexpr float kStep = 1.0F / 512;
  for (std::size_t p = 0; p < gradients.size(); ++p) {
    double largest = 0;
    for (std::size_t i = 0; i < gradients[p].size(); ++i) {
      float& value = network.parameters()[p]->value[i];
      const float kept = value;
      value = kept + kStep;
      const double above = network.Train(batch.images, batch.labels);
      value = kept - kStep;
      const double below = network.Train(batch.images, batch.labels);
      value = kept;
      EXPECT_NEAR(gradients[p][i], (above - below) / (2 * static_cast<double>(kStep)), 1e-3)
          << "parameter " << p << " element " << i;
      largest = std::max(largest, std::abs(static_cast<double>(gradients[p][i])));
    }
    const bool bias_before_norm = p == 1;  // moves the mean that is taken off again
    EXPECT_TRUE(bias_before_norm || largest > 0.02) << "parameter " << p;
  }
}

TEST(Network, LossOfEvenGuessesIsTheLogOfTheirNumber) {
  Random random(5);
  Network network(kSmall, random);
  for (Parameter* parameter : network.parameters()) std::fill(parameter->value.begin(), parameter->value.end(), 0.0F);
  const Batch batch(random);
  EXPECT_NEAR(network.Train(batch.images, batch.labels), std::log(3.0), 1e-6);
  EXPECT_NEAR(network.Evaluate(batch.images, batch.labels).loss, std::log(3.0), 1e-6);
}

TEST(BatchNorm, NormalizesByTheBatchAndTracksItAsPyTorchDoes) {
  BatchNorm bn(1);
  Matrix input(4, 1);
  input.values = {1, 2, 3, 6};  // mean 3, variance 3.5, its unbiased estimate 14/3
  const Matrix output = bn.Train(input);
  EXPECT_NEAR(output.values[0], -2 / std::sqrt(3.5), 1e-5);
  EXPECT_NEAR(output.values[3], 3 / std::sqrt(3.5), 1e-5);
  EXPECT_NEAR(bn.running_mean[0], 0.1 * 3, 1e-6);
  EXPECT_NEAR(bn.running_var[0], 0.9 + 0.1 * 14 / 3, 1e-6);
  EXPECT_EQ(bn.num_batches_tracked, 1);
  EXPECT_NEAR(bn.Apply(input).values[3], (6 - bn.running_mean[0]) / std::sqrt(bn.running_var[0] + 1e-5), 1e-5);
}

}  // namespace
}  // namespace digits
