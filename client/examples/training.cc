#include "client/examples/training.h"

#include <algorithm>
#include <vector>

namespace digits {

EpochResult TrainEpoch(const Dataset& dataset, Training& training) {
  const std::vector<std::size_t> order = training.random.Permutation(dataset.training.labels.size());
  const std::size_t batches = order.size() / kBatchSize;
  Matrix pixels(kBatchSize, kPixels);
  std::vector<std::uint8_t> labels(kBatchSize);
  double loss = 0;
  for (std::size_t batch = 0; batch < batches; ++batch) {
    for (std::size_t row = 0; row < kBatchSize; ++row) {
      const std::size_t image = order[batch * kBatchSize + row];
      std::copy_n(dataset.training.pixels[image], kPixels, pixels[row]);
      labels[row] = dataset.training.labels[image];
    }
    loss += training.network.Train(pixels, labels);
    training.adam.Step();
  }
  ++training.epoch;
  EpochResult result;
  result.train_loss = loss / static_cast<double>(batches);
  result.validation = training.network.Evaluate(dataset.validation.pixels, dataset.validation.labels);
  training.best_val_acc = std::max(training.best_val_acc, result.validation.accuracy);
  return result;
}

}  // namespace digits
