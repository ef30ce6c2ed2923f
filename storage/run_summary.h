// What a run's checkpoints come to: the newest, the best, the sums; and reading checkpoints' rows.
#pragma once

#include <optional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/v1/checkpoint.pb.h"
#include "ckpt/v1/storage.pb.h"
#include "storage/keys.h"
#include "storage/kv_engine.h"

namespace ckpt::storage {

// Counts a new checkpoint, whose row is written, into its run's row.
absl::Status AddToSummary(Transaction& txn, const v1::Checkpoint& checkpoint, v1::RunRow& run);

// The best checkpoint by a metric among the newest versions of the epochs. NaN is never best; ties go to the earlier
// epoch. nullopt if none has the metric as a number.
absl::StatusOr<std::optional<v1::Best>> FindBest(Transaction& txn, std::uint64_t run_id, std::string_view metric,
                                                 bool lower_is_better);

// The checkpoint that a commit made, unless it was deleted.
absl::StatusOr<std::optional<v1::Checkpoint>> CheckpointBySequence(Transaction& txn, const VersionId& version);

// The run's primary metric: the only one that its checkpoints have. "" if there is none or more than one.
std::string_view PrimaryMetric(const v1::RunRow& run);

}  // namespace ckpt::storage
