#include "storage/checkpoint_reads.h"

#include <algorithm>
#include <optional>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"
#include "storage/keys.h"
#include "storage/names.h"
#include "storage/reference.h"
#include "storage/rows.h"
#include "storage/run_summary.h"

namespace ckpt::storage {
namespace {

constexpr std::uint32_t kDefaultPage = 100;
constexpr std::uint32_t kMaxPage = 1000;
// Rows of many labels end a page earlier, so that it fits into a message.
constexpr std::size_t kPageBytes = std::size_t{1} << 20;
// Rows read at a time.
constexpr std::size_t kScan = 64;

std::string DomainOr(std::string_view domain) { return domain.empty() ? "default" : std::string(domain); }

absl::Status NoCheckpoint(std::string_view what) {
  return MakeError(absl::StatusCode::kNotFound, "CHECKPOINT_NOT_FOUND", what);
}

absl::StatusOr<v1::RunRow> ReadRun(Transaction& txn, const std::string& domain, std::string_view run) {
  CKPT_RETURN_IF_ERROR(CheckDomain(domain));
  CKPT_RETURN_IF_ERROR(CheckRunName(run));
  CKPT_ASSIGN_OR_RETURN(auto row, GetRow<v1::RunRow>(txn, keys::Run(domain, run), Hold::kNone));
  if (row.has_value()) return *std::move(row);
  return MakeError(absl::StatusCode::kNotFound, "RUN_NOT_FOUND",
                   absl::StrCat("there is no run ", absl::string_view(run.data(), run.size()),
                                domain == "default" ? "" : absl::StrCat(" in domain ", domain),
                                "; `ckptctl runs` lists those that there are"));
}

// One page of the rows below the prefix: calls add(row) for each and returns the token for the next page. A token is
// what follows the prefix in the last row's key.
template <typename Row, typename Add>
absl::StatusOr<std::string> ReadPage(Transaction& txn, const std::string& prefix, std::uint32_t page_size,
                                     const std::string& page_token, Add add) {
  const std::size_t size = page_size == 0 ? kDefaultPage : std::min(page_size, kMaxPage);
  std::string after;
  if (!page_token.empty()) {
    std::string suffix;
    if (!absl::WebSafeBase64Unescape(page_token, &suffix) || suffix.size() > 300)
      return MakeError(absl::StatusCode::kInvalidArgument, "BAD_PAGE_TOKEN",
                       "the page token is none of this server's; start with the first page");
    after = prefix + suffix;
  }
  std::size_t count = 0;
  std::size_t bytes = 0;
  while (true) {
    const std::size_t limit = std::min(size - count + 1, kScan);
    CKPT_ASSIGN_OR_RETURN(const auto rows, txn.Scan(prefix, after, limit));
    if (rows.empty()) return std::string();
    for (const auto& [key, value] : rows) {
      if (count == size || (count != 0 && bytes + value.size() > kPageBytes))
        return absl::WebSafeBase64Escape(after.substr(prefix.size()));
      CKPT_ASSIGN_OR_RETURN(Row row, ParseRow<Row>(key, value));
      add(std::move(row));
      ++count;
      bytes += value.size();
      after = key;
    }
  }
}

absl::StatusOr<v1::Checkpoint> ReadCheckpoint(Transaction& txn, const v1::RunRow& run, std::int64_t epoch,
                                              std::uint64_t version) {
  CKPT_ASSIGN_OR_RETURN(auto row,
                        GetRow<v1::CheckpointRow>(txn, keys::Checkpoint(run.id(), epoch, version), Hold::kNone));
  if (row.has_value()) return std::move(*row->mutable_checkpoint());
  return NoCheckpoint(absl::StrCat("run ", run.run().name(), " has no version ", version, " of epoch ", epoch));
}

absl::StatusOr<v1::Checkpoint> ReadEpoch(Transaction& txn, const v1::RunRow& run, const Reference& reference) {
  if (reference.version.has_value()) return ReadCheckpoint(txn, run, reference.epoch, *reference.version);
  std::optional<v1::Checkpoint> newest;
  CKPT_RETURN_IF_ERROR(ForEachRow(txn, keys::CheckpointsOfEpoch(run.id(), reference.epoch),
                                  [&](const std::string& key, const std::string& value) -> absl::Status {
                                    CKPT_ASSIGN_OR_RETURN(auto row, ParseRow<v1::CheckpointRow>(key, value));
                                    newest = std::move(*row.mutable_checkpoint());
                                    return absl::OkStatus();
                                  }));
  if (newest.has_value()) return *std::move(newest);
  return NoCheckpoint(absl::StrCat("run ", run.run().name(), " has no checkpoint of epoch ", reference.epoch,
                                   "; `ckptctl list ", run.run().name(), "` lists those that it has"));
}

absl::StatusOr<v1::Checkpoint> ReadLatest(Transaction& txn, const v1::RunRow& run) {
  CKPT_ASSIGN_OR_RETURN(auto latest, CheckpointBySequence(txn, {run.id(), run.last_sequence()}));
  if (latest.has_value()) return *std::move(latest);
  return NoCheckpoint(absl::StrCat("run ", run.run().name(), " has no checkpoint"));
}

absl::StatusOr<v1::Checkpoint> ReadBest(Transaction& txn, const v1::RunRow& run, const Reference& reference) {
  std::optional<Ranking> ranking = PrimaryMetric(run);
  const bool by_primary = reference.metric.empty() || (ranking.has_value() && ranking->metric == reference.metric);
  if (!by_primary || reference.lower_is_better.has_value())
    ranking = Ranking{reference.metric, reference.lower_is_better};
  if (!ranking.has_value())
    return NoCheckpoint(
        run.metrics().empty()
            ? absl::StrCat("run ", run.run().name(), " has no metric to be best by")
            : absl::StrCat("run ", run.run().name(), " has more than one metric; say which: ", run.run().name(),
                           ":best:", absl::StrJoin(run.metrics(), absl::StrCat(", ", run.run().name(), ":best:"))));
  CKPT_ASSIGN_OR_RETURN(const auto best, FindBest(txn, run.id(), *ranking));
  if (best.has_value()) return ReadCheckpoint(txn, run, best->epoch(), best->version());
  return NoCheckpoint(absl::StrCat("no checkpoint of run ", run.run().name(),
                                   " that is its epoch's newest version has a number for metric ", ranking->metric,
                                   "; the run's metrics are: ", absl::StrJoin(run.metrics(), ", "), "; `ckptctl list ",
                                   run.run().name(), "` shows every version, and RUN@EPOCH#VERSION restores one"));
}

// Runs the body, which writes nothing, and returns what it made.
template <typename T, typename Body>
absl::StatusOr<T> ReadTransaction(KvEngine& engine, Body body) {
  absl::StatusOr<T> out = absl::UnknownError("not run");
  CKPT_RETURN_IF_ERROR(engine.Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) {
    out = body(txn);
    return out.status();
  }));
  return out;
}

}  // namespace

absl::StatusOr<v1::Run> GetRun(KvEngine& engine, std::string_view domain, std::string_view run) {
  return ReadTransaction<v1::Run>(engine, [&](Transaction& txn) -> absl::StatusOr<v1::Run> {
    CKPT_ASSIGN_OR_RETURN(v1::RunRow row, ReadRun(txn, DomainOr(domain), run));
    return std::move(*row.mutable_run());
  });
}

absl::StatusOr<v1::ListRunsResponse> ListRuns(KvEngine& engine, const v1::ListRunsRequest& request) {
  const std::string domain = DomainOr(request.domain());
  CKPT_RETURN_IF_ERROR(CheckDomain(domain));
  return ReadTransaction<v1::ListRunsResponse>(engine, [&](Transaction& txn) -> absl::StatusOr<v1::ListRunsResponse> {
    v1::ListRunsResponse out;
    CKPT_ASSIGN_OR_RETURN(
        *out.mutable_next_page_token(),
        ReadPage<v1::RunRow>(txn, keys::Runs(domain), request.page_size(), request.page_token(),
                             [&](v1::RunRow row) { *out.add_runs() = std::move(*row.mutable_run()); }));
    return out;
  });
}

absl::StatusOr<v1::ListCheckpointsResponse> ListCheckpoints(KvEngine& engine,
                                                            const v1::ListCheckpointsRequest& request) {
  return ReadTransaction<v1::ListCheckpointsResponse>(
      engine, [&](Transaction& txn) -> absl::StatusOr<v1::ListCheckpointsResponse> {
        v1::ListCheckpointsResponse out;
        CKPT_ASSIGN_OR_RETURN(const v1::RunRow run, ReadRun(txn, DomainOr(request.domain()), request.run()));
        CKPT_ASSIGN_OR_RETURN(
            *out.mutable_next_page_token(),
            ReadPage<v1::CheckpointRow>(
                txn, keys::CheckpointsOf(run.id()), request.page_size(), request.page_token(),
                [&](v1::CheckpointRow row) { *out.add_checkpoints() = std::move(*row.mutable_checkpoint()); }));
        return out;
      });
}

absl::StatusOr<v1::Checkpoint> Resolve(KvEngine& engine, std::string_view domain, std::string_view text) {
  CKPT_ASSIGN_OR_RETURN(const Reference reference, ParseReference(text));
  return ReadTransaction<v1::Checkpoint>(engine, [&](Transaction& txn) -> absl::StatusOr<v1::Checkpoint> {
    CKPT_ASSIGN_OR_RETURN(const v1::RunRow run, ReadRun(txn, DomainOr(domain), reference.run));
    switch (reference.kind) {
      case Reference::Kind::kEpoch: return ReadEpoch(txn, run, reference);
      case Reference::Kind::kLatest: return ReadLatest(txn, run);
      case Reference::Kind::kBest: return ReadBest(txn, run, reference);
      case Reference::Kind::kTag: break;
    }
    return NoCheckpoint(absl::StrCat("run ", run.run().name(), " has no tag ", reference.tag));
  });
}

}  // namespace ckpt::storage
