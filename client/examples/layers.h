// The layers of the network: what they compute, and how a loss changes with their parameters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "client/examples/random.h"

namespace digits {

// A row-major matrix. In a batch of images, each row belongs to one image.
struct Matrix {
  Matrix(std::size_t row_count, std::size_t column_count)
      : rows(row_count), columns(column_count), values(row_count * column_count) {}

  float* operator[](std::size_t row) { return values.data() + row * columns; }
  const float* operator[](std::size_t row) const { return values.data() + row * columns; }

  std::size_t rows;
  std::size_t columns;
  std::vector<float> values;
};

// A tensor that is trained. Row-major; a vector has one dimension.
struct Parameter {
  explicit Parameter(std::vector<std::uint64_t> dimensions, float fill = 0);

  std::vector<std::uint64_t> shape;
  std::vector<float> value;
  std::vector<float> gradient;
};

// output = input · weightᵀ + bias; as torch.nn.Linear, and begun like it: uniform within ± 1 / √inputs.
struct Linear {
  Linear(std::size_t inputs, std::size_t outputs, Random& random);

  [[nodiscard]] Matrix Forward(const Matrix& input) const;

  // Sets the parameters' gradients from the loss's gradient by this layer's last output.
  void Backward(const Matrix& input, const Matrix& output_gradient);

  // The loss's gradient by this layer's input.
  [[nodiscard]] Matrix InputGradient(const Matrix& output_gradient) const;

  Parameter weight;  // [outputs, inputs]
  Parameter bias;    // [outputs]
};

// Brings each column to mean 0 and variance 1, then scales and shifts it; as torch.nn.BatchNorm1d. In training by the
// batch's own statistics, while the running ones follow; afterwards by the running ones.
struct BatchNorm {
  explicit BatchNorm(std::size_t columns);

  // In training, with at least two rows. Keeps what Backward needs.
  Matrix Train(const Matrix& input);

  // With the running statistics.
  [[nodiscard]] Matrix Apply(const Matrix& input) const;

  // Sets the parameters' gradients, after Train, and returns the loss's gradient by the input.
  Matrix Backward(const Matrix& output_gradient);

  static constexpr float kEpsilon = 1e-5F;
  static constexpr float kMomentum = 0.1F;

  Parameter weight;
  Parameter bias;

  // Not trained, but as much a part of the model: a checkpoint without them restores another model.
  std::vector<float> running_mean;
  std::vector<float> running_var;
  std::int64_t num_batches_tracked = 0;

 private:
  Matrix normalized_{0, 0};
  std::vector<float> inverse_deviation_;
};

// max(0, x), in place.
void Relu(Matrix& values);

// Sets the gradient to 0 where Relu's output is 0.
void ReluBackward(const Matrix& output, Matrix& gradient);

}  // namespace digits
