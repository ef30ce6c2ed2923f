#include "client/examples/layers.h"

#include <algorithm>
#include <cmath>

namespace digits {
namespace {

std::size_t ElementCount(const std::vector<std::uint64_t>& shape) {
  std::size_t count = 1;
  for (const std::uint64_t extent : shape) count *= extent;
  return count;
}

}  // namespace

Parameter::Parameter(std::vector<std::uint64_t> dimensions, float fill)
    : shape(std::move(dimensions)), value(ElementCount(shape), fill), gradient(value.size()) {}

Linear::Linear(std::size_t inputs, std::size_t outputs, Random& random) : weight({outputs, inputs}), bias({outputs}) {
  const float bound = 1 / std::sqrt(static_cast<float>(inputs));
  for (float& value : weight.value) value = random.Uniform(-bound, bound);
  for (float& value : bias.value) value = random.Uniform(-bound, bound);
}

Matrix Linear::Forward(const Matrix& input) const {
  const std::size_t outputs = bias.value.size();
  Matrix output(input.rows, outputs);
  for (std::size_t row = 0; row < input.rows; ++row) {
    for (std::size_t out = 0; out < outputs; ++out) {
      const float* weights = weight.value.data() + out * input.columns;
      float sum = bias.value[out];
      for (std::size_t in = 0; in < input.columns; ++in) sum += weights[in] * input[row][in];
      output[row][out] = sum;
    }
  }
  return output;
}

void Linear::Backward(const Matrix& input, const Matrix& output_gradient) {
  std::fill(weight.gradient.begin(), weight.gradient.end(), 0.0F);
  std::fill(bias.gradient.begin(), bias.gradient.end(), 0.0F);
  for (std::size_t row = 0; row < input.rows; ++row) {
    for (std::size_t out = 0; out < output_gradient.columns; ++out) {
      const float gradient = output_gradient[row][out];
      float* weights = weight.gradient.data() + out * input.columns;
      for (std::size_t in = 0; in < input.columns; ++in) weights[in] += gradient * input[row][in];
      bias.gradient[out] += gradient;
    }
  }
}

Matrix Linear::InputGradient(const Matrix& output_gradient) const {
  const std::size_t inputs = weight.value.size() / bias.value.size();
  Matrix input_gradient(output_gradient.rows, inputs);
  for (std::size_t row = 0; row < output_gradient.rows; ++row) {
    for (std::size_t out = 0; out < output_gradient.columns; ++out) {
      const float gradient = output_gradient[row][out];
      const float* weights = weight.value.data() + out * inputs;
      for (std::size_t in = 0; in < inputs; ++in) input_gradient[row][in] += gradient * weights[in];
    }
  }
  return input_gradient;
}

BatchNorm::BatchNorm(std::size_t columns)
    : weight({columns}, 1),
      bias({columns}),
      running_mean(columns, 0),
      running_var(columns, 1),
      inverse_deviation_(columns) {}

Matrix BatchNorm::Train(const Matrix& input) {
  const auto rows = static_cast<float>(input.rows);
  Matrix output(input.rows, input.columns);
  normalized_ = Matrix(input.rows, input.columns);
  for (std::size_t column = 0; column < input.columns; ++column) {
    float mean = 0;
    for (std::size_t row = 0; row < input.rows; ++row) mean += input[row][column];
    mean /= rows;
    float variance = 0;
    for (std::size_t row = 0; row < input.rows; ++row)
      variance += (input[row][column] - mean) * (input[row][column] - mean);
    variance /= rows;
    // The running variance follows the unbiased estimate.
    running_mean[column] += kMomentum * (mean - running_mean[column]);
    running_var[column] += kMomentum * (variance * rows / (rows - 1) - running_var[column]);

    inverse_deviation_[column] = 1 / std::sqrt(variance + kEpsilon);
    for (std::size_t row = 0; row < input.rows; ++row) {
      normalized_[row][column] = (input[row][column] - mean) * inverse_deviation_[column];
      output[row][column] = normalized_[row][column] * weight.value[column] + bias.value[column];
    }
  }
  ++num_batches_tracked;
  return output;
}

Matrix BatchNorm::Apply(const Matrix& input) const {
  Matrix output(input.rows, input.columns);
  for (std::size_t column = 0; column < input.columns; ++column) {
    const float scale = weight.value[column] / std::sqrt(running_var[column] + kEpsilon);
    for (std::size_t row = 0; row < input.rows; ++row)
      output[row][column] = (input[row][column] - running_mean[column]) * scale + bias.value[column];
  }
  return output;
}

Matrix BatchNorm::Backward(const Matrix& output_gradient) {
  const auto rows = static_cast<float>(output_gradient.rows);
  Matrix input_gradient(output_gradient.rows, output_gradient.columns);
  for (std::size_t column = 0; column < output_gradient.columns; ++column) {
    float sum = 0;
    float weighted_sum = 0;
    for (std::size_t row = 0; row < output_gradient.rows; ++row) {
      sum += output_gradient[row][column];
      weighted_sum += output_gradient[row][column] * normalized_[row][column];
    }
    bias.gradient[column] = sum;
    weight.gradient[column] = weighted_sum;
    // Each input moves the batch's mean and variance too.
    const float scale = weight.value[column] * inverse_deviation_[column];
    for (std::size_t row = 0; row < output_gradient.rows; ++row)
      input_gradient[row][column] =
          scale * (output_gradient[row][column] - (sum + normalized_[row][column] * weighted_sum) / rows);
  }
  return input_gradient;
}

void Relu(Matrix& values) {
  for (float& value : values.values) value = std::max(value, 0.0F);
}

void ReluBackward(const Matrix& output, Matrix& gradient) {
  for (std::size_t i = 0; i < gradient.values.size(); ++i)
    if (output.values[i] == 0) gradient.values[i] = 0;
}

}  // namespace digits
