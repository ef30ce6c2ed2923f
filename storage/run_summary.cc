#include "storage/run_summary.h"

#include <algorithm>
#include <cmath>

#include "base/status.h"
#include "storage/rows.h"

namespace ckpt::storage {
namespace {

std::optional<double> MetricOf(const v1::Checkpoint& checkpoint, std::string_view metric) {
  for (const v1::Metric& m : checkpoint.metrics())
    if (m.name() == metric && !std::isnan(m.value())) return m.value();
  return std::nullopt;
}

bool Lower(const Ranking& ranking) { return ranking.lower_is_better.value_or(LowerIsBetter(ranking.metric)); }

// True if the checkpoint comes before the best so far. Called with rising epochs or for any one against the rest.
bool Beats(double value, std::int64_t epoch, const std::optional<v1::Best>& best, bool lower_is_better) {
  if (!best.has_value()) return true;
  if (value == best->value()) return epoch < best->epoch();
  return lower_is_better ? value < best->value() : value > best->value();
}

v1::Best MakeBest(std::string_view metric, double value, const v1::Checkpoint& checkpoint) {
  v1::Best best;
  best.set_metric(std::string(metric));
  best.set_value(value);
  best.set_epoch(checkpoint.epoch());
  best.set_version(checkpoint.version());
  return best;
}

// `before`: what the best was found by until this checkpoint came.
absl::Status UpdateBest(Transaction& txn, const v1::Checkpoint& checkpoint, const std::optional<Ranking>& before,
                        v1::RunRow& row) {
  v1::Run& run = *row.mutable_run();
  const std::optional<Ranking> ranking = PrimaryMetric(row);
  std::optional<v1::Best> best;
  if (run.has_best()) best = run.best();
  run.clear_best();
  if (!ranking.has_value()) return absl::OkStatus();
  const bool other = before.has_value() ? before->metric != ranking->metric || Lower(*before) != Lower(*ranking)
                                        : run.checkpoint_count() > 1;
  if (other || (best.has_value() && best->epoch() == checkpoint.epoch())) {
    // Another metric, or the best one was superseded by a newer version of its epoch: only a look at all tells.
    CKPT_ASSIGN_OR_RETURN(best, FindBest(txn, row.id(), *ranking));
  } else if (const auto value = MetricOf(checkpoint, ranking->metric);
             value.has_value() && Beats(*value, checkpoint.epoch(), best, Lower(*ranking))) {
    best = MakeBest(ranking->metric, *value, checkpoint);
  }
  if (best.has_value()) *run.mutable_best() = *std::move(best);
  return absl::OkStatus();
}

}  // namespace

std::optional<Ranking> PrimaryMetric(const v1::RunRow& run) {
  if (!run.run().primary_metric().empty()) return ParseRanking(run.run().primary_metric());
  if (run.metrics_size() == 1) return Ranking{run.metrics(0), std::nullopt};
  return std::nullopt;
}

absl::Status AddToSummary(Transaction& txn, const v1::Checkpoint& checkpoint, const std::string& primary_metric,
                          v1::RunRow& row) {
  const std::optional<Ranking> before = PrimaryMetric(row);
  v1::Run& run = *row.mutable_run();
  run.set_checkpoint_count(run.checkpoint_count() + 1);
  run.set_latest_epoch(checkpoint.epoch());
  run.set_logical_bytes(run.logical_bytes() + checkpoint.logical_bytes());
  run.set_stored_bytes(run.stored_bytes() + checkpoint.new_bytes());
  *run.mutable_update_time() = checkpoint.create_time();
  if (!primary_metric.empty()) run.set_primary_metric(primary_metric);
  auto& names = *row.mutable_metrics();
  for (const v1::Metric& metric : checkpoint.metrics())
    if (std::find(names.begin(), names.end(), metric.name()) == names.end()) *names.Add() = metric.name();
  std::sort(names.begin(), names.end());
  return UpdateBest(txn, checkpoint, before, row);
}

absl::StatusOr<std::optional<v1::Best>> FindBest(Transaction& txn, std::uint64_t run_id, const Ranking& ranking) {
  std::optional<v1::Best> best;
  std::optional<v1::Checkpoint> newest;  // of the epoch that is being read
  const auto consider = [&] {
    if (!newest.has_value()) return;
    const auto value = MetricOf(*newest, ranking.metric);
    if (value.has_value() && Beats(*value, newest->epoch(), best, Lower(ranking)))
      best = MakeBest(ranking.metric, *value, *newest);
  };
  CKPT_RETURN_IF_ERROR(ForEachRow(
      txn, keys::CheckpointsOf(run_id), [&](const std::string& key, const std::string& value) -> absl::Status {
        CKPT_ASSIGN_OR_RETURN(v1::CheckpointRow row, ParseRow<v1::CheckpointRow>(key, value));
        if (newest.has_value() && newest->epoch() != row.checkpoint().epoch()) consider();
        newest = std::move(*row.mutable_checkpoint());
        return absl::OkStatus();
      }));
  consider();
  return best;
}

absl::StatusOr<std::optional<v1::Checkpoint>> CheckpointBySequence(Transaction& txn, const VersionId& version) {
  CKPT_ASSIGN_OR_RETURN(const auto sequence, GetRow<v1::SequenceRow>(txn, keys::Sequence(version), Hold::kNone));
  if (!sequence.has_value()) return std::optional<v1::Checkpoint>();
  CKPT_ASSIGN_OR_RETURN(
      auto row, GetRow<v1::CheckpointRow>(txn, keys::Checkpoint(version.run_id, sequence->epoch(), sequence->version()),
                                          Hold::kNone));
  if (!row.has_value()) return std::optional<v1::Checkpoint>();
  return std::optional<v1::Checkpoint>(std::move(*row->mutable_checkpoint()));
}

}  // namespace ckpt::storage
