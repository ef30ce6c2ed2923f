#include "storage/save_stream.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/status.h"
#include "base/utf8.h"
#include "storage/limits.h"
#include "storage/names.h"
#include "storage/part_merge.h"
#include "storage/reference.h"

namespace ckpt::storage {
namespace {

// A batch on its way to disk. Large enough that a sync is cheap beside it; larger while the disk is behind, as a sync
// may take long; and smaller where many streams have three each: their payload in memory stays below kPayloadBytes, up
// to that many streams as have room for the smallest.
constexpr std::uint64_t kBatchBytes = 4U << 20;
constexpr std::uint64_t kLargestBatch = 16U << 20;
constexpr std::uint64_t kSmallestBatch = 1U << 20;
constexpr std::uint64_t kPayloadBytes = 192U << 20;
constexpr std::size_t kBatchItems = 8192;

absl::Status OutOfOrder(std::string_view what) {
  return MakeError(absl::StatusCode::kFailedPrecondition, "OUT_OF_ORDER", what);
}

absl::Status CheckPrimaryMetric(std::string_view text) {
  constexpr std::size_t kMaxSize = 204;  // a metric's name and ":min"
  if (text.empty() || (text.size() <= kMaxSize && IsPrintableUtf8(text) && ParseRanking(text).has_value()))
    return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kInvalidArgument, "BAD_NAME",
      absl::StrCat("'", PrintableUtf8(text.substr(0, 80)), "' is no primary metric: use NAME, NAME:min or NAME:max"));
}

absl::Status CheckAttemptKey(std::string_view key) {
  if (key.size() == 16) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_ATTEMPT_KEY", "the attempt key must be 16 random bytes");
}

absl::StatusOr<v1::SessionRow> WantedSession(v1::SaveBegin begin) {
  if (begin.domain().empty()) begin.set_domain("default");
  CKPT_RETURN_IF_ERROR(CheckDomain(begin.domain()));
  CKPT_RETURN_IF_ERROR(CheckRunName(begin.run()));
  CKPT_RETURN_IF_ERROR(CheckAndSort(*begin.mutable_metrics()));
  CKPT_RETURN_IF_ERROR(CheckAndSort(*begin.mutable_labels()));
  CKPT_RETURN_IF_ERROR(CheckAttemptKey(begin.attempt_key()));
  if (begin.world_size() == 0) begin.set_world_size(1);
  if (begin.world_size() > kMaxWorldSize)
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_RANK",
                     absl::StrCat("a checkpoint is saved by ", kMaxWorldSize, " trainers at most"));
  CKPT_RETURN_IF_ERROR(CheckPrimaryMetric(begin.primary_metric()));
  v1::SessionRow row;
  row.set_domain(std::move(*begin.mutable_domain()));
  row.set_run(std::move(*begin.mutable_run()));
  row.set_epoch(begin.epoch());
  if (begin.has_step()) row.set_step(begin.step());
  *row.mutable_metrics() = std::move(*begin.mutable_metrics());
  *row.mutable_labels() = std::move(*begin.mutable_labels());
  row.set_attempt_key(std::move(*begin.mutable_attempt_key()));
  row.set_world_size(begin.world_size());
  row.set_coordinated(begin.coordinated());
  if (begin.rank() >= PartCount(row))
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_RANK",
                     absl::StrCat("rank ", begin.rank(), " is none of the ", begin.world_size(),
                                  begin.coordinated() ? " trainers and no coordinator" : " trainers"));
  row.set_primary_metric(std::move(*begin.mutable_primary_metric()));
  return row;
}

absl::StatusOr<std::vector<Digest>> SplitDigests(std::string_view list) {
  if (list.size() % Digest::kSize != 0 || list.size() > kMaxPerQuestion * Digest::kSize)
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_DIGESTS",
                     absl::StrCat("a list of digests takes 32 bytes for each, ", kMaxPerQuestion, " at most"));
  std::vector<Digest> out(list.size() / Digest::kSize);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = Digest::At(list, i);
  return out;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SaveStream>> SaveStream::Begin(Store& store, v1::SaveBegin begin, OnAck on_ack,
                                                              OnWork on_work) {
  if (begin.client().size() > 16)
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_ATTEMPT_KEY", "a client's name has 16 bytes at most");
  const std::uint32_t rank = begin.rank();
  const StreamNumber number{begin.client(), begin.stream()};
  CKPT_ASSIGN_OR_RETURN(const v1::SessionRow wanted, WantedSession(std::move(begin)));
  CKPT_RETURN_IF_ERROR(store.reserve().Admit(0));
  CKPT_ASSIGN_OR_RETURN(const std::uint32_t chunk_size, store.OpenDomain(wanted.domain()));
  CKPT_ASSIGN_OR_RETURN(BegunSession begun, store.sessions().Begin(wanted, rank, number));
  absl::Cleanup end = [&store, id = begun.ref.id] { store.sessions().End(id); };  // if there is no thread to be had
  auto stream = std::unique_ptr<SaveStream>(
      new SaveStream(store, chunk_size, std::move(begun), std::move(on_ack), std::move(on_work)));
  std::move(end).Cancel();
  if (stream->again_) {
    CKPT_ASSIGN_OR_RETURN(stream->committed_, store.versions().CommittedBy(stream->row_));
  }
  return stream;
}

SaveStream::SaveStream(Store& store, std::uint32_t chunk_size, BegunSession begun, OnAck on_ack, OnWork on_work)
    : store_(store),
      chunk_size_(chunk_size),
      session_(std::move(begun.ref)),
      row_(std::move(begun.row)),
      in_parts_(PartCount(row_) > 1),
      again_(row_.state() == v1::SessionRow::COMMITTED),
      on_ack_(std::move(on_ack)),
      on_work_(std::move(on_work)),
      progress_(std::move(begun.progress)),
      tensors_(chunk_size, in_parts_ ? TensorIntake::Take::kBoxes : TensorIntake::Take::kWhole),
      manifest_(chunk_size, RecordSink()) {
  for (const v1::ProgressRow& row : progress_) {
    earlier_new_bytes_ += row.new_bytes();
    acked_earlier_ += static_cast<std::uint64_t>(row.chunks_size());
    for (const v1::ProgressRow::Chunk& chunk : row.chunks()) {
      const auto digest = Digest::From(chunk.digest());
      const auto fingerprint = Fingerprint::From(chunk.fingerprint());
      if (digest.has_value() && fingerprint.has_value())
        promised_[*digest] = {*fingerprint, chunk.raw_length(), std::nullopt};
    }
  }
  if (!again_)
    writer_ = std::make_unique<BatchWriter>(store.committer(), store.chunks(), store.reserve(), session_, pins_,
                                            [this](const std::vector<BatchItem>& items) { OnDurable(items); });
  store_.CountSaveStream(1);  // last: where there was no thread to be had, no destructor takes it back
}

SaveStream::~SaveStream() {
  store_.CountSaveStream(-1);
  writer_.reset();
  store_.sessions().End(session_.id);
}

v1::Begun SaveStream::begun() const {
  v1::Begun begun;
  begun.set_session(std::string(session_.id.view()));
  begun.set_fence(session_.fence);
  begun.set_lease_ms(static_cast<std::uint64_t>(store_.sessions().lease().count()));
  begun.set_chunk_size(chunk_size_);
  begun.set_inline_limit(kInlineLimit);
  begun.set_acked_count(acked_earlier_);
  begun.set_takes_cited_digests(true);
  if (again_) *begun.mutable_committed() = committed_;
  return begun;
}

void SaveStream::OnDurable(const std::vector<BatchItem>& items) {
  std::string digests;
  {
    const MutexLock lock(mutex_);
    for (const BatchItem& item : items) {
      if (item.kind != RecordKind::kChunk) continue;
      digests.append(item.digest.view());
      if (!item.place.has_value()) continue;  // it has come before
      promised_[item.digest] = {item.fingerprint, item.raw_length, item.place};
    }
  }
  if (digests.empty()) return;
  acked_chunks_ += digests.size() / Digest::kSize;
  on_ack_(std::move(digests), acked_chunks_);
}

absl::StatusOr<std::string> SaveStream::Have(std::string_view list) {
  CKPT_ASSIGN_OR_RETURN(const std::vector<Digest> digests, SplitDigests(list));
  if (++haves_ > kMaxHaves)
    return MakeError(
        absl::StatusCode::kInvalidArgument, "BAD_DIGESTS",
        absl::StrCat("more than ", kMaxHaves, " haves in one stream; ask for ", kMaxPerQuestion, " chunks at once"));
  std::string missing((digests.size() + 7) / 8, '\0');
  std::vector<std::optional<Promise>> promises(digests.size());
  if (!again_) {
    std::vector<RecordName> names;
    names.reserve(digests.size());
    for (const Digest& digest : digests) names.push_back({false, digest});
    CKPT_ASSIGN_OR_RETURN(promises, store_.chunks().Pin(session_, names, pins_));
  }
  const MutexLock lock(mutex_);
  for (std::size_t i = 0; i < digests.size(); ++i) {
    if (promises[i].has_value()) {
      promised_[digests[i]] = *promises[i];
    } else {
      missing[i / 8] = static_cast<char>(missing[i / 8] | 1 << i % 8);
    }
  }
  return missing;
}

absl::Status SaveStream::AddTensors(v1::TensorBatch batch) {
  if (has_state_) return OutOfOrder("a tensor comes after the state tree");
  CKPT_ASSIGN_OR_RETURN(const std::vector<Digest> cited, SplitDigests(batch.cited_digests()));
  auto next = cited.begin();
  for (v1::Tensor& tensor : *batch.mutable_tensors()) {
    CKPT_RETURN_IF_ERROR(tensors_.Begin(std::move(tensor)));
    if (tensors_.Complete()) CKPT_RETURN_IF_ERROR(manifest_.AddTensor(tensors_.tensor(), tensors_.size_bytes()));
    while (!tensors_.Complete() && next != cited.end()) CKPT_RETURN_IF_ERROR(CiteOne(*next++));
  }
  if (next == cited.end()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "WRONG_SIZE",
                   absl::StrCat("a batch of tensors cites ", cited.end() - next, " chunks more than they have"));
}

absl::Status SaveStream::AddChunk(Payload payload, std::string_view fingerprint) {
  const std::uint64_t size = payload.size();
  if (size > kMaxChunkSize)
    return MakeError(absl::StatusCode::kInvalidArgument, "WRONG_SIZE", "a chunk is larger than a chunk may be");
  BatchItem item;
  item.fingerprint = Xxh3(payload.pieces);
  if (!fingerprint.empty() && fingerprint != item.fingerprint.view())
    return MakeError(
        absl::StatusCode::kDataLoss, "WRONG_FINGERPRINT",
        absl::StrCat("chunk ", tensors_.next_chunk(), " of tensor ", tensors_.tensor().path(),
                     " does not have the fingerprint that came with it: its bytes changed on the way, or while "
                     "they were read; send it again"));
  item.raw_length = static_cast<std::uint32_t>(size);
  item.payload = std::move(payload);
  CKPT_RETURN_IF_ERROR(TakeChunk(item));
  unhashed_.push_back(std::move(item));
  return unhashed_.size() == 2 || tensors_.Complete() ? Hash() : absl::OkStatus();
}

// Hashes the chunks that wait for that, two of them at once.
absl::Status SaveStream::Hash() {
  std::vector<BatchItem> items = std::exchange(unhashed_, {});
  if (items.size() == 2) {
    const auto digests = Sha256Pair(items[0].payload->pieces, items[1].payload->pieces);
    items[0].digest = digests[0];
    items[1].digest = digests[1];
  } else if (items.size() == 1) {
    items[0].digest = Sha256(items[0].payload->pieces);
  }
  for (BatchItem& item : items) CKPT_RETURN_IF_ERROR(AddHashed(std::move(item)));
  return absl::OkStatus();
}

absl::Status SaveStream::Cite(std::string_view list) {
  CKPT_ASSIGN_OR_RETURN(const std::vector<Digest> digests, SplitDigests(list));
  CKPT_RETURN_IF_ERROR(Hash());
  for (const Digest& digest : digests) CKPT_RETURN_IF_ERROR(CiteOne(digest));
  return absl::OkStatus();
}

// Nothing may wait to be hashed.
absl::Status SaveStream::CiteOne(const Digest& digest) {
  BatchItem item;
  item.digest = digest;
  {
    const MutexLock lock(mutex_);
    const auto promise = promised_.find(digest);
    if (promise == promised_.end())
      return MakeError(absl::StatusCode::kFailedPrecondition, "CHUNK_NOT_PINNED",
                       absl::StrCat("chunk ", digest.ToHex(),
                                    " is cited, but this session neither uploaded it nor was "
                                    "told that the server has it; ask with have, or send it"));
    item.fingerprint = promise->second.fingerprint;
    item.raw_length = promise->second.raw_length;
  }
  CKPT_RETURN_IF_ERROR(TakeChunk(item));
  return AddHashed(std::move(item));
}

// Takes the next chunk of the tensor at hand, but for its digest.
absl::Status SaveStream::TakeChunk(BatchItem& item) {
  if (has_state_) return OutOfOrder("a chunk comes after the state tree");
  item.tensor = tensors_.count() == 0 ? 0 : tensors_.number();
  item.index = tensors_.next_chunk();
  CKPT_RETURN_IF_ERROR(tensors_.AddChunk(item.fingerprint, item.raw_length));
  if (++chunks_ > kMaxChunks)
    return MakeError(absl::StatusCode::kInvalidArgument, "TOO_LARGE",
                     absl::StrCat("a state may have ", kMaxChunks, " chunks at most"));
  return absl::OkStatus();
}

// Goes on with the first chunk that was taken and had no digest.
absl::Status SaveStream::AddHashed(BatchItem item) {
  const bool is_last = tensors_.Complete() && item.index + 1 == tensors_.next_chunk();
  tensors_.AddDigest(item.digest);
  CKPT_RETURN_IF_ERROR(AddPending(std::move(item)));
  return is_last ? manifest_.AddTensor(tensors_.tensor(), tensors_.size_bytes()) : absl::OkStatus();
}

// Adds a chunk, or a record of the manifest, to the batch.
absl::Status SaveStream::AddPending(BatchItem item) {
  if (again_) return absl::OkStatus();
  if (item.payload.has_value()) pending_bytes_ += item.raw_length;
  pending_.push_back(std::move(item));
  const bool full = pending_bytes_ >= LargestBatch() || pending_.size() >= kBatchItems;
  return full || (pending_bytes_ >= kBatchBytes && writer_->HasRoom()) ? Submit() : absl::OkStatus();
}

std::uint64_t SaveStream::LargestBatch() const {
  const std::uint64_t streams = static_cast<std::uint64_t>(std::max(1, store_.save_streams()));
  return std::clamp(kPayloadBytes / 3 / streams, kSmallestBatch, kLargestBatch);
}

absl::Status SaveStream::AddRecord(RecordKind kind, const Digest& digest, std::string record) {
  const Fingerprint fingerprint = Xxh3(record);
  const auto size = static_cast<std::uint32_t>(record.size());
  return AddPending({kind, digest, fingerprint, size, Payload::Of(std::move(record)), 0, 0});
}

ManifestDraft::Sink SaveStream::RecordSink() {
  return [this](RecordKind kind, const Digest& digest, std::string record) {
    return AddRecord(kind, digest, std::move(record));
  };
}

absl::Status SaveStream::Flush(bool wait) {
  if (!again_ && !wait) {
    CKPT_ASSIGN_OR_RETURN(const bool idle, writer_->Idle());
    if (!idle && (pending_bytes_ < kBatchBytes || !writer_->HasRoom())) return absl::OkStatus();
  }
  CKPT_RETURN_IF_ERROR(Hash());
  return Submit();
}

absl::Status SaveStream::Submit() {
  if (again_ || pending_.empty()) return absl::OkStatus();
  pending_bytes_ = 0;
  return writer_->Submit(std::exchange(pending_, {}));
}

absl::StatusOr<bool> SaveStream::Settled() {
  if (again_) return unhashed_.empty();
  CKPT_ASSIGN_OR_RETURN(const bool idle, writer_->Idle());
  return idle && pending_.empty() && unhashed_.empty();
}

absl::Status SaveStream::Settle() { return again_ ? absl::OkStatus() : writer_->Drain(); }

absl::Status SaveStream::AddState(const v1::StatePart& part) {
  if (!tensors_.Complete()) return OutOfOrder("the state tree comes while a tensor lacks chunks");
  has_state_ = true;
  for (const v1::StateNode& node : part.nodes()) {
    if (node.ByteSizeLong() > kMaxNodeBytes)
      return MakeError(absl::StatusCode::kInvalidArgument, "TOO_LARGE",
                       absl::StrCat("a value after ", walk_.path(), " has more than ", kMaxNodeBytes,
                                    " bytes; keep data of this size in a tensor"));
    if (manifest_.node_count() >= kMaxNodes)
      return MakeError(absl::StatusCode::kInvalidArgument, "TOO_MANY_NODES",
                       absl::StrCat("a state may have ", kMaxNodes, " values at most"));
    CKPT_RETURN_IF_ERROR(walk_.Next(node));
    if (HasTensor(node.kind())) CKPT_RETURN_IF_ERROR(tensors_.Place(node.tensor(), walk_.path(), walk_.component()));
    CKPT_RETURN_IF_ERROR(manifest_.AddNode(node));
  }
  return absl::OkStatus();
}

absl::Status SaveStream::CheckState() const {
  if (!tensors_.Complete()) return OutOfOrder("commit comes while a tensor lacks chunks");
  const bool empty = in_parts_ && manifest_.node_count() == 0;
  if (!walk_.Complete() && !empty) return OutOfOrder("commit comes before the state tree is complete");
  return tensors_.CheckAllPlaced();
}

absl::StatusOr<v1::GetSaveResponse> SaveStream::Commit(v1::SaveCommit commit) {
  CKPT_RETURN_IF_ERROR(CheckState());
  CKPT_RETURN_IF_ERROR(CheckAndSort(*commit.mutable_metrics()));
  if (in_parts_) return CommitPart(std::move(*commit.mutable_metrics()));
  v1::GetSaveResponse outcome;
  CKPT_ASSIGN_OR_RETURN(*outcome.mutable_committed()->mutable_checkpoint(),
                        CommitWhole(std::move(*commit.mutable_metrics())));
  return outcome;
}

absl::StatusOr<v1::Checkpoint> SaveStream::CommitWhole(Metrics metrics) {
  CKPT_ASSIGN_OR_RETURN(v1::Checkpoint checkpoint, Describe(manifest_, walk_.components(), std::move(metrics)));
  if (again_) return CommitAgain(checkpoint);
  return Publish(std::move(checkpoint), manifest_, {}, 0);
}

// Finishes the manifest and says what a checkpoint of it is.
absl::StatusOr<v1::Checkpoint> SaveStream::Describe(ManifestDraft& manifest, const std::vector<std::string>& components,
                                                    Metrics metrics) const {
  v1::Checkpoint draft;
  draft.set_run(row_.run());
  draft.set_epoch(row_.epoch());
  if (row_.has_step()) draft.set_step(row_.step());
  *draft.mutable_metrics() = row_.metrics();
  for (v1::Metric& metric : metrics) {
    const std::string bytes = metric.SerializeAsString();
    const bool same = std::any_of(draft.metrics().begin(), draft.metrics().end(),
                                  [&](const v1::Metric& m) { return m.SerializeAsString() == bytes; });
    if (!same) *draft.add_metrics() = std::move(metric);
  }
  CKPT_RETURN_IF_ERROR(CheckAndSort(*draft.mutable_metrics()));
  *draft.mutable_labels() = row_.labels();
  CKPT_ASSIGN_OR_RETURN(const Digest digest, manifest.Finish(components));
  draft.set_logical_bytes(manifest.root().logical_bytes());
  draft.set_tensor_count(manifest.root().tensor_count());
  draft.set_world_size(row_.world_size());
  for (const std::string& component : components) draft.add_components(component);
  draft.set_manifest_digest(std::string(digest.view()));
  return draft;
}

// The attempt had committed: what came now must have been the same.
absl::StatusOr<v1::Checkpoint> SaveStream::CommitAgain(const v1::Checkpoint& draft) {
  v1::Checkpoint before = committed_;
  before.clear_version();
  before.clear_sequence();
  before.clear_new_bytes();
  before.clear_create_time();
  if (before.SerializeAsString() != draft.SerializeAsString())
    return MakeError(absl::StatusCode::kAlreadyExists, "ATTEMPT_REUSED",
                     absl::StrCat("this attempt committed ", committed_.run(), "@", committed_.epoch(), "#",
                                  committed_.version(), " with other content; draw a new key for each attempt"));
  return committed_;
}

absl::StatusOr<v1::GetSaveResponse> SaveStream::CommitPart(Metrics metrics) {
  v1::PartRow part;
  CKPT_ASSIGN_OR_RETURN(const Digest manifest, manifest_.Finish(walk_.components()));
  part.set_manifest(std::string(manifest.view()));
  *part.mutable_metrics() = std::move(metrics);
  v1::GetSaveResponse outcome;
  v1::Checkpoint& checkpoint = *outcome.mutable_committed()->mutable_checkpoint();
  if (again_) {
    CKPT_RETURN_IF_ERROR(store_.parts().CheckSame(session_, part));
    checkpoint = committed_;
    return outcome;
  }
  CKPT_RETURN_IF_ERROR(Flush(true));
  CKPT_RETURN_IF_ERROR(Settle());
  part.set_new_bytes(earlier_new_bytes_ + writer_->new_bytes());
  while (true) {
    CKPT_ASSIGN_OR_RETURN(const Parts parts, store_.parts().Finish(session_, part));
    if (const std::vector<std::uint32_t> ranks = WaitsFor(parts); !ranks.empty()) {
      outcome.mutable_waiting()->mutable_ranks()->Add(ranks.begin(), ranks.end());
      return outcome;
    }
    absl::StatusOr<v1::Checkpoint> committed = CommitParts(parts);
    if (ReasonOf(committed.status()) == "PARTS_CHANGED") continue;
    if (absl::IsInvalidArgument(committed.status()) || absl::IsDataLoss(committed.status()) ||
        ReasonOf(committed.status()) == "CHUNK_MISSING")  // it would be the same again
      CKPT_RETURN_IF_ERROR(store_.sessions().Fail(session_, std::string(committed.status().message())));
    CKPT_ASSIGN_OR_RETURN(checkpoint, std::move(committed));
    return outcome;
  }
}

absl::StatusOr<v1::Checkpoint> SaveStream::CommitParts(const Parts& parts) {
  CKPT_ASSIGN_OR_RETURN(const StateMerge::Merged merged, MergeParts(store_, row_, parts, on_work_));
  ManifestDraft manifest(chunk_size_, RecordSink());
  on_work_();
  for (const v1::Tensor& tensor : merged.tensors) {
    CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, SizeBytes(tensor));
    CKPT_RETURN_IF_ERROR(manifest.AddTensor(tensor, size));
  }
  for (const v1::StateNode& node : merged.nodes) CKPT_RETURN_IF_ERROR(manifest.AddNode(node));
  Metrics metrics;
  std::vector<v1::PartRow> merged_from;
  std::uint64_t others_new_bytes = 0;
  for (std::uint32_t rank = 0; rank < parts.size(); ++rank) {
    metrics.MergeFrom(parts[rank]->metrics());
    merged_from.push_back(*parts[rank]);
    if (rank != session_.rank) others_new_bytes += parts[rank]->new_bytes();
  }
  CKPT_ASSIGN_OR_RETURN(v1::Checkpoint checkpoint, Describe(manifest, merged.components, std::move(metrics)));
  return Publish(std::move(checkpoint), manifest, std::move(merged_from), others_new_bytes);
}

absl::StatusOr<v1::Checkpoint> SaveStream::Publish(v1::Checkpoint checkpoint, ManifestDraft& manifest,
                                                   std::vector<v1::PartRow> parts, std::uint64_t others_new_bytes) {
  v1::VersionFact fact;
  fact.set_domain(session_.domain);
  fact.set_session(std::string(session_.id.view()));
  *fact.mutable_checkpoint() = checkpoint;
  fact.set_attempt_key(row_.attempt_key());
  fact.set_primary_metric(row_.primary_metric());
  std::string record = fact.SerializeAsString();
  Draft draft;
  draft.fact_digest = Sha256(record);
  CKPT_RETURN_IF_ERROR(AddRecord(RecordKind::kVersionFact, draft.fact_digest, std::move(record)));
  CKPT_RETURN_IF_ERROR(Flush(true));
  CKPT_RETURN_IF_ERROR(Settle());
  checkpoint.set_new_bytes(others_new_bytes + earlier_new_bytes_ + writer_->new_bytes());
  draft.checkpoint = std::move(checkpoint);
  draft.components = manifest.TakeComponents();
  draft.used = manifest.TakeUsed();
  NotePlaces(draft.used);
  draft.parts = std::move(parts);
  draft.fact = writer_->fact();
  CKPT_ASSIGN_OR_RETURN(v1::Checkpoint committed, store_.versions().Commit(session_, draft));
  store_.MarkCommits();
  return committed;
}

// Says of the chunks where they were when this stream was told that it may rely on them.
void SaveStream::NotePlaces(std::vector<UsedRecord>& used) {
  const MutexLock lock(mutex_);
  for (UsedRecord& record : used) {
    if (record.name.manifest) continue;
    const auto promise = promised_.find(record.name.digest);
    if (promise != promised_.end()) record.place = promise->second.place;
  }
}

absl::StatusOr<v1::GetSaveResponse> GetSave(Store& store, const v1::GetSaveRequest& request) {
  const std::string domain = request.domain().empty() ? "default" : request.domain();
  CKPT_RETURN_IF_ERROR(CheckDomain(domain));
  CKPT_RETURN_IF_ERROR(CheckAttemptKey(request.attempt_key()));
  CKPT_ASSIGN_OR_RETURN(SessionTable::Found found, store.sessions().Find(domain, request.attempt_key()));
  // The last rank may have committed between the reads of the session and of its parts.
  if (found.row.state() == v1::SessionRow::OPEN && found.waiting.empty()) {
    CKPT_ASSIGN_OR_RETURN(found, store.sessions().Find(domain, request.attempt_key()));
  }
  v1::GetSaveResponse outcome;
  switch (found.row.state()) {
    case v1::SessionRow::OPEN:
      outcome.mutable_waiting()->mutable_ranks()->Add(found.waiting.begin(), found.waiting.end());
      return outcome;
    case v1::SessionRow::COMMITTED: {
      CKPT_ASSIGN_OR_RETURN(*outcome.mutable_committed()->mutable_checkpoint(),
                            store.versions().CommittedBy(found.row));
      return outcome;
    }
    default: return SessionEnded(found.row);
  }
}

}  // namespace ckpt::storage
