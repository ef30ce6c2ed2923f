// One stream of a save: what the client sends, in order, becomes records, a manifest, and at last a version.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "base/state_walk.h"
#include "ckpt/v1/service.pb.h"
#include "storage/batch_writer.h"
#include "storage/manifest_draft.h"
#include "storage/part_table.h"
#include "storage/payload.h"
#include "storage/session_table.h"
#include "storage/store.h"
#include "storage/tensor_intake.h"

namespace ckpt::storage {

// Used by one thread. Any error ends the stream; its session stays for a later one to resume. Destroying it lets the
// session's lease run.
class SaveStream {
 public:
  // Gets the digests, one after the other, of chunks that have become durable, in the order in which they came, and how
  // many of the stream are by now. From another thread.
  using OnAck = std::function<void(std::string digests, std::uint64_t total)>;

  // Called now and then from Commit, when it takes long.
  using OnWork = std::function<void()>;

  // Errors: InvalidArgument (names, metrics, key), AlreadyExists ATTEMPT_REUSED, ResourceExhausted DISK_FULL.
  static absl::StatusOr<std::unique_ptr<SaveStream>> Begin(
      Store& store, v1::SaveBegin begin, OnAck on_ack, OnWork on_work = [] {});
  ~SaveStream();

  // What the client is to know.
  [[nodiscard]] v1::Begun begun() const;
  // The chunks that earlier streams of the session got acked. Once: they are given away.
  [[nodiscard]] std::vector<v1::ProgressRow> TakeAcked() { return std::move(progress_); }

  // Pins what is there of these chunks; the answer is HaveAnswer::missing.
  absl::StatusOr<std::string> Have(std::string_view digests);

  // Errors: TensorIntake's; for what it cites, Cite's.
  absl::Status AddTensors(v1::TensorBatch batch);

  // Errors: InvalidArgument (size), DataLoss WRONG_FINGERPRINT (the bytes changed on their way).
  absl::Status AddChunk(Payload payload, std::string_view fingerprint);

  // Errors: FailedPrecondition CHUNK_NOT_PINNED (neither acked nor answered by have), InvalidArgument (size).
  absl::Status Cite(std::string_view digests);

  absl::Status AddState(const v1::StatePart& part);

  // True when all that was taken is durable. The first error of what was on its way to disk: then the stream is over.
  absl::StatusOr<bool> Settled();

  // Sends what was taken on its way to disk. Without `wait` only if the writer has nothing to do,
  // or takes a batch of its size.
  absl::Status Flush(bool wait);

  // Waits until what was flushed is durable.
  absl::Status Settle();

  // Completes the version: visible and durable when it returns committed. Of a save by several ranks it completes this
  // rank's part, durably; the last rank's completes the version, the others wait.
  absl::StatusOr<v1::GetSaveResponse> Commit(v1::SaveCommit commit);

 private:
  SaveStream(Store& store, std::uint32_t chunk_size, BegunSession begun, OnAck on_ack, OnWork on_work);

  void OnDurable(const std::vector<BatchItem>& items);
  absl::Status CiteOne(const Digest& digest);
  absl::Status TakeChunk(BatchItem& item);
  absl::Status Hash();
  absl::Status AddHashed(BatchItem item);
  absl::Status AddPending(BatchItem item);
  absl::Status Submit();
  [[nodiscard]] std::uint64_t LargestBatch() const;
  absl::Status AddRecord(RecordKind kind, const Digest& digest, std::string record);
  ManifestDraft::Sink RecordSink();
  absl::Status CheckState() const;

  // A commit's steps.
  using Metrics = google::protobuf::RepeatedPtrField<v1::Metric>;
  absl::StatusOr<v1::Checkpoint> CommitWhole(Metrics metrics);
  absl::StatusOr<v1::GetSaveResponse> CommitPart(Metrics metrics);
  absl::StatusOr<v1::Checkpoint> CommitParts(const Parts& parts);
  absl::StatusOr<v1::Checkpoint> CommitAgain(const v1::Checkpoint& draft);
  absl::StatusOr<v1::Checkpoint> Describe(ManifestDraft& manifest, const std::vector<std::string>& components,
                                          Metrics metrics) const;
  absl::StatusOr<v1::Checkpoint> Publish(v1::Checkpoint checkpoint, ManifestDraft& manifest,
                                         std::vector<v1::PartRow> parts, std::uint64_t others_new_bytes);
  void NotePlaces(std::vector<UsedRecord>& used);

  Store& store_;
  const std::uint32_t chunk_size_;
  const SessionRef session_;
  const v1::SessionRow row_;
  const bool in_parts_;  // others save other parts of it
  const bool again_;     // the attempt had committed: nothing is written, only compared
  const OnAck on_ack_;
  const OnWork on_work_;
  v1::Checkpoint committed_;
  std::vector<v1::ProgressRow> progress_;  // until TakeAcked
  std::uint64_t acked_earlier_ = 0;        // chunks in it
  std::uint64_t earlier_new_bytes_ = 0;
  std::uint64_t haves_ = 0;
  std::uint64_t chunks_ = 0;

  StreamPins pins_;

  TensorIntake tensors_;
  StateWalk walk_;
  ManifestDraft manifest_;
  bool has_state_ = false;

  Mutex mutex_;
  // Chunks that this session may cite.
  absl::flat_hash_map<Digest, Promise> promised_ CKPT_GUARDED_BY(mutex_);
  std::uint64_t acked_chunks_ = 0;  // the writer's thread's own

  std::vector<BatchItem> unhashed_;  // the last chunk, which waits for the next, to be hashed with it
  std::vector<BatchItem> pending_;
  std::uint64_t pending_bytes_ = 0;
  std::unique_ptr<BatchWriter> writer_;  // last: its thread uses the rest
};

// What became of a save by several ranks. Its session's lease runs anew. Errors: InvalidArgument (key, domain),
// NotFound (SAVE_NOT_FOUND, CHECKPOINT_NOT_FOUND), FailedPrecondition SESSION_ENDED.
absl::StatusOr<v1::GetSaveResponse> GetSave(Store& store, const v1::GetSaveRequest& request);

}  // namespace ckpt::storage
