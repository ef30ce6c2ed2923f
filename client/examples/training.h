// A training in progress: all that an epoch changes.
#pragma once

#include <cstdint>

#include "client/examples/adam.h"
#include "client/examples/digits_data.h"
#include "client/examples/network.h"
#include "client/examples/random.h"

namespace digits {

// What a checkpoint must hold, so that the next epoch is the same as without the interruption.
struct Training {
  explicit Training(std::uint64_t seed)
      : random(seed),
        network({.inputs = kPixels, .hidden = 512, .classes = kClasses}, random),
        adam(network.parameters(), {}) {}

  // The optimizer points to the network.
  Training(const Training&) = delete;
  Training& operator=(const Training&) = delete;

  Random random;
  Network network;
  Adam adam;
  std::int64_t epoch = 0;  // how many are finished
  double best_val_acc = 0;
};

struct EpochResult {
  double train_loss = 0;
  Score validation;
};

inline constexpr std::size_t kBatchSize = 32;

// Trains for one epoch on batches drawn in random order (what fills no batch is left out this time), then looks how
// well the network does on images that it never learns from. The dataset must have at least one batch, and one image
// held back.
EpochResult TrainEpoch(const Dataset& dataset, Training& training);

}  // namespace digits
