#include "client/save.h"

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "base/status.h"
#include "client/citation_plan.h"

namespace ckpt::client {
namespace {

void AddMetrics(std::span<const std::pair<std::string, double>> from,
                google::protobuf::RepeatedPtrField<v1::Metric>& to) {
  for (const auto& [name, value] : from) {
    v1::Metric& metric = *to.Add();
    metric.set_name(name);
    metric.set_value(value);
  }
}

v1::SaveBegin MakeBegin(const Connection& connection, const SaveOptions& options) {
  v1::SaveBegin begin;
  begin.set_domain(connection.options.domain);
  begin.set_run(options.run);
  begin.set_epoch(options.epoch);
  if (options.step.has_value()) begin.set_step(*options.step);
  AddMetrics(options.metrics, *begin.mutable_metrics());
  for (const auto& [key, value] : options.labels) {
    v1::Label& label = *begin.add_labels();
    label.set_key(key);
    label.set_value(value);
  }
  begin.set_attempt_key(options.part.has_value() ? options.part->attempt_key : RandomBytes(16));
  begin.set_rank(options.part.has_value() ? options.part->rank : 0);
  begin.set_world_size(options.part.has_value() ? options.part->world_size : 1);
  begin.set_coordinated(options.part.has_value() && options.part->coordinated);
  begin.set_primary_metric(options.primary_metric);
  begin.set_client(RandomBytes(16));
  return begin;
}

// The server does not have, any more, what it had promised.
bool IsLostChunk(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return absl::IsFailedPrecondition(status) && (reason == "CHUNK_NOT_PINNED" || reason == "CHUNK_MISSING");
}

}  // namespace

SaveJob::SaveJob(std::shared_ptr<Connection> connection, SaveOptions options, SaveChunks::Release release, Check check)
    : connection_(std::move(connection)),
      options_(std::move(options)),
      release_(std::move(release)),
      check_(check ? std::move(check) : [] { return absl::OkStatus(); }),
      begin_(MakeBegin(*connection_, options_)),
      tensors_(begin_.world_size() > 1 || begin_.coordinated() ? TensorSet::Of::kPart : TensorSet::Of::kState) {}

absl::StatusOr<std::unique_ptr<Save>> SaveJob::Begin(std::shared_ptr<Connection> connection, SaveOptions options,
                                                     SaveChunks::Release release, Check check) {
  auto job = std::unique_ptr<SaveJob>(
      new SaveJob(std::move(connection), std::move(options), std::move(release), std::move(check)));
  CKPT_RETURN_IF_ERROR(job->Retrying([](Backoff&) { return absl::OkStatus(); }));
  return std::unique_ptr<Save>(std::move(job));
}

absl::Status SaveJob::Retrying(const std::function<absl::Status(Backoff&)>& call) {
  Backoff backoff(connection_->options.retry_for, Backoff::Clock::now());
  const absl::Status status =
      Retry(backoff, connection_->options, [&] { return OnStream([&] { return call(backoff); }); });
  return Annotate(status, absl::StrCat("saving run ", options_.run, " epoch ", options_.epoch));
}

absl::Status SaveJob::OnStream(const std::function<absl::Status()>& call) {
  if (stream_ == nullptr) {
    begin_.set_stream(++streams_);
    CKPT_ASSIGN_OR_RETURN(stream_, SaveStream::Open(*connection_, begin_));
  }
  absl::Status status = call();
  if (!status.ok()) stream_.reset();
  if (!IsLostChunk(status) || send_all_) return status;
  send_all_ = true;
  return OnStream(call);
}

absl::StatusOr<std::uint64_t> SaveJob::AddTensor(const Tensor& tensor) {
  if (chunks_.has_value())
    return MakeError(absl::StatusCode::kFailedPrecondition, "OUT_OF_ORDER", "tensors are added before Commit");
  return tensors_.Add(tensor);
}

absl::StatusOr<SaveResult> SaveJob::Commit(std::span<const v1::StateNode> nodes,
                                           std::span<const std::pair<std::string, double>> metrics) {
  if (over_)  // the tensors may have changed: what was fingerprinted then is not what would be committed now
    return MakeError(absl::StatusCode::kFailedPrecondition, "OUT_OF_ORDER", "this save is over; begin another");
  CKPT_RETURN_IF_ERROR(tensors_.Place(nodes));
  over_ = true;
  v1::SaveCommit commit;
  AddMetrics(metrics, *commit.mutable_metrics());
  SaveStream::Outcome outcome;
  const absl::Status status = Retrying([&](Backoff& backoff) -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(outcome, CommitOnce(nodes, commit, backoff));
    return absl::OkStatus();
  });
  // gRPC may read the caller's memory for a while after a call, also after one that failed.
  stream_.reset();
  lent_.WaitForAll();
  if (absl::IsDataLoss(status)) CKPT_RETURN_IF_ERROR(check_());  // bytes that changed after they were fingerprinted
  CKPT_RETURN_IF_ERROR(status);
  connection_->memory.Learn(chunks_->Known());
  return Result(std::move(outcome));
}

absl::StatusOr<SaveStream::Outcome> SaveJob::CommitOnce(std::span<const v1::StateNode> nodes,
                                                        const v1::SaveCommit& commit, Backoff& backoff) {
  const v1::Begun& begun = stream_->begun();
  const SaveChunks::Limits limits{begun.chunk_size(), begun.inline_limit()};
  if (!chunks_.has_value()) chunks_.emplace(tensors_, limits, release_);
  // The answer to an earlier stream's commit was lost on its way.
  if (sent_ && begun.has_committed()) return SaveStream::Outcome{begun.committed(), {}};
  if (limits.chunk_size != chunks_->limits().chunk_size || limits.inline_limit != chunks_->limits().inline_limit)
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "SERVER_CHANGED",
        "the server at this address cuts tensors otherwise than before the connection was lost; save again");
  CKPT_ASSIGN_OR_RETURN(cited_, Plan());
  return stream_->Send(*chunks_, cited_, nodes, commit, lent_, Observe(backoff));
}

absl::StatusOr<std::vector<bool>> SaveJob::Plan() {
  if (send_all_) return std::vector<bool>(chunks_->layout().chunk_count());
  const AskServer ask = [this](std::span<const Digest> digests) { return stream_->Ask(digests); };
  Interrupts interrupts(connection_->options.interrupted);
  auto plan = PlanCitations(*chunks_, connection_->memory, stream_->acked(), !probed_, ask, interrupts);
  probed_ |= plan.ok();
  return plan;
}

SaveStream::Observer SaveJob::Observe(Backoff& backoff) {
  SaveStream::Observer observer;
  observer.sent = [this, &backoff](std::uint64_t done_bytes) {
    if (done_bytes <= most_done_bytes_) return;
    most_done_bytes_ = done_bytes;
    backoff.Progress(Backoff::Clock::now());
    if (options_.progress) options_.progress(done_bytes, tensors_.total_bytes());
  };
  observer.all_read = [this] {  // the commit comes next
    sent_ = true;
    return check_();
  };
  observer.acked = [this, &backoff](std::uint64_t acked_chunks) {
    if (acked_chunks <= most_acked_) return;
    most_acked_ = acked_chunks;
    backoff.Progress(Backoff::Clock::now());
  };
  return observer;
}

SaveResult SaveJob::Result(SaveStream::Outcome outcome) const {
  SaveResult result;
  result.checkpoint = std::move(outcome.checkpoint);
  result.waiting = std::move(outcome.waiting);
  result.sent_bytes = chunks_->sent_bytes();
  result.fingerprinted_bytes = chunks_->fingerprinted_bytes();
  result.hashed_bytes = chunks_->hashed_bytes();
  for (std::uint64_t chunk = 0; chunk < cited_.size(); ++chunk)
    if (cited_[chunk] && !chunks_->sent(chunk)) result.cited_bytes += chunks_->bytes(chunk).size();
  return result;
}

}  // namespace ckpt::client
