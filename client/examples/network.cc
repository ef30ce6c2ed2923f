#include "client/examples/network.h"

#include <algorithm>
#include <cmath>

namespace digits {
namespace {

// The mean cross-entropy of the softmax of `logits`, which become the loss's gradient by them.
double SoftmaxLoss(Matrix& logits, std::span<const std::uint8_t> labels) {
  const auto rows = static_cast<float>(logits.rows);
  double loss = 0;
  for (std::size_t row = 0; row < logits.rows; ++row) {
    const std::span<float> values(logits[row], logits.columns);
    const float largest = *std::max_element(values.begin(), values.end());  // so that exp does not overflow
    const float correct = values[labels[row]] - largest;
    float sum = 0;
    for (float& value : values) sum += value = std::exp(value - largest);
    loss += std::log(static_cast<double>(sum)) - static_cast<double>(correct);
    for (float& value : values) value /= sum * rows;
    values[labels[row]] -= 1 / rows;
  }
  return loss / static_cast<double>(logits.rows);
}

double Accuracy(const Matrix& logits, std::span<const std::uint8_t> labels) {
  std::size_t right = 0;
  for (std::size_t row = 0; row < logits.rows; ++row) {
    const float* values = logits[row];
    if (std::max_element(values, values + logits.columns) - values == labels[row]) ++right;
  }
  return static_cast<double>(right) / static_cast<double>(logits.rows);
}

}  // namespace

Network::Network(const NetworkSize& size, Random& random)
    : fc1(size.inputs, size.hidden, random), bn(size.hidden), fc2(size.hidden, size.classes, random) {}

double Network::Train(const Matrix& images, std::span<const std::uint8_t> labels) {
  Matrix hidden = bn.Train(fc1.Forward(images));
  Relu(hidden);
  Matrix gradient = fc2.Forward(hidden);
  const double loss = SoftmaxLoss(gradient, labels);

  fc2.Backward(hidden, gradient);
  gradient = fc2.InputGradient(gradient);
  ReluBackward(hidden, gradient);
  fc1.Backward(images, bn.Backward(gradient));
  return loss;
}

Score Network::Evaluate(const Matrix& images, std::span<const std::uint8_t> labels) const {
  Matrix hidden = bn.Apply(fc1.Forward(images));
  Relu(hidden);
  Matrix logits = fc2.Forward(hidden);
  const double accuracy = Accuracy(logits, labels);
  return {.loss = SoftmaxLoss(logits, labels), .accuracy = accuracy};
}

std::vector<Parameter*> Network::parameters() {
  return {&fc1.weight, &fc1.bias, &bn.weight, &bn.bias, &fc2.weight, &fc2.bias};
}

}  // namespace digits
