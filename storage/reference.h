// How people name a checkpoint: RUN@EPOCH, RUN@EPOCH#VERSION, RUN:latest, RUN:TAG, RUN:best, RUN:best:METRIC,
// RUN:best:METRIC:min or :max.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace ckpt::storage {

struct Reference {
  enum class Kind { kEpoch, kLatest, kBest, kTag };
  std::string run;
  Kind kind = Kind::kLatest;
  std::int64_t epoch = 0;                // kEpoch
  std::optional<std::uint64_t> version;  // kEpoch; absent: the newest
  std::string metric;                    // kBest; empty: the run's primary
  std::optional<bool> lower_is_better;   // kBest; absent: by the metric's name
  std::string tag;                       // kTag
};

// InvalidArgument for anything else: BAD_NAME when the run's name is none, else BAD_REFERENCE, which shows the forms.
absl::StatusOr<Reference> ParseReference(std::string_view text);

// What checkpoints are ranked by: METRIC, METRIC:min or METRIC:max.
struct Ranking {
  std::string metric;
  std::optional<bool> lower_is_better;  // absent: by the metric's name

  bool operator==(const Ranking&) const = default;
};

// nullopt for anything else.
std::optional<Ranking> ParseRanking(std::string_view text);

// True when less of this metric is better, by its name: the ones that end in "loss".
bool LowerIsBetter(std::string_view metric);

}  // namespace ckpt::storage
