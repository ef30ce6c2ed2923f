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
#include "storage/reference.h"

namespace ckpt::storage {

// Counts a new checkpoint, whose row is written, into its run's row. `primary_metric`: as its save named it; empty: as
// before.
absl::Status AddToSummary(Transaction& txn, const v1::Checkpoint& checkpoint, const std::string& primary_metric,
                          v1::RunRow& run);

// The best checkpoint by a metric among the newest versions of the epochs. NaN is never best; ties go to the earlier
// epoch. nullopt if none has the metric as a number.
absl::StatusOr<std::optional<v1::Best>> FindBest(Transaction& txn, std::uint64_t run_id, const Ranking& ranking);

// The checkpoint that a commit made, unless it was deleted.
absl::StatusOr<std::optional<v1::Checkpoint>> CheckpointBySequence(Transaction& txn, const VersionId& version);

// What the run's checkpoints are ranked by when nobody says: what a save named, else the only metric that they have.
// nullopt if there is none or more than one.
std::optional<Ranking> PrimaryMetric(const v1::RunRow& run);

}  // namespace ckpt::storage
