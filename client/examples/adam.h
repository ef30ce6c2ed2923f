// The optimizer: Adam (Kingma and Ba, 2015), as torch.optim.Adam computes it.
#pragma once

#include <vector>

#include "client/examples/layers.h"

namespace digits {

struct AdamOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;    // decay of the gradients' moving mean
  double beta2 = 0.999;  // decay of the squared gradients' moving mean
  double epsilon = 1e-8;
  double weight_decay = 0;  // this times the value is added to the gradient
};

class Adam {
 public:
  // What it remembers of one parameter.
  struct Slot {
    float step = 0;  // PyTorch counts in a float32, too
    std::vector<float> exp_avg;
    std::vector<float> exp_avg_sq;
  };

  // The parameters must outlive this. slots()[i] belongs to the i-th.
  Adam(std::vector<Parameter*> parameters, const AdamOptions& options);

  // Moves each parameter against its gradient.
  void Step();

  // What a checkpoint saves, and writes back on a restore.
  AdamOptions& options() { return options_; }
  std::vector<Slot>& slots() { return slots_; }
  [[nodiscard]] const std::vector<Parameter*>& parameters() const { return parameters_; }

 private:
  const std::vector<Parameter*> parameters_;
  AdamOptions options_;
  std::vector<Slot> slots_;
};

}  // namespace digits
