// The network that reads digits: Linear, BatchNorm, ReLU, Linear.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "client/examples/layers.h"
#include "client/examples/random.h"

namespace digits {

struct NetworkSize {
  std::size_t inputs;
  std::size_t hidden;
  std::size_t classes;
};

// How well a network does on some images.
struct Score {
  double loss = 0;      // mean cross-entropy
  double accuracy = 0;  // the part that it reads rightly
};

// As the PyTorch module with these members. Not thread-safe.
struct Network {
  Network(const NetworkSize& size, Random& random);

  // In training: the mean loss of a batch. Leaves its gradient in the parameters, and the running statistics follow.
  double Train(const Matrix& images, std::span<const std::uint8_t> labels);

  // Changes nothing.
  [[nodiscard]] Score Evaluate(const Matrix& images, std::span<const std::uint8_t> labels) const;

  // In the order of PyTorch's parameters(): the optimizer's state goes by it. Valid as long as this is.
  std::vector<Parameter*> parameters();

  Linear fc1;
  BatchNorm bn;
  Linear fc2;
};

}  // namespace digits
