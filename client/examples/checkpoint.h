// The training as a checkpoint: what PyTorch's state dicts of the same model and optimizer would hold, under their
// names.
//
//   {"model": OrderedDict([("fc1.weight", tensor), …, ("bn.running_mean", tensor), …]),
//    "optimizer": {"state": {0: {"step": tensor, "exp_avg": tensor, "exp_avg_sq": tensor}, …},
//                  "param_groups": [{"lr": …, "betas": (…, …), "eps": …, "weight_decay": …, "amsgrad": False,
//                                    "params": [0, …]}]},
//    "rng": tensor, "epoch": 3, "best_val_acc": 0.97}
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/client.h"
#include "ckpt/state.h"
#include "client/examples/training.h"

namespace digits {

struct TrainingState {
  ckpt::State state;

  // memory[i] is where state.tensors[i] lies, for a restore to write to.
  std::vector<void*> memory;
};

// Describes the training; its tensors stay where they are, so it must outlive the result.
absl::StatusOr<TrainingState> Describe(Training& training);

// Saves the epoch that is just finished as a checkpoint of the run. When it returns OK the checkpoint survives a crash
// of either side. What the server has already is not sent again: the client remembers its last save.
absl::StatusOr<ckpt::SaveResult> SaveEpoch(ckpt::Client& client, const std::string& run, const EpochResult& result,
                                           Training& training);

// Makes the training what the opened checkpoint says. Before anything is written it is looked through: each tensor must
// be there with its dtype and shape, and no other. Errors: FailedPrecondition (names what differs; the training is as
// it was), and those of the reading (the training is then torn).
absl::Status RestoreTraining(ckpt::Restore& restore, Training& training);

}  // namespace digits
