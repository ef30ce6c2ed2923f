// Makes a stream's records durable, in batches, on a thread of its own: while one batch is written and synced, the
// stream receives and hashes the next.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "storage/batch_committer.h"
#include "storage/chunk_index.h"
#include "storage/disk_reserve.h"
#include "storage/pack_store.h"
#include "storage/payload.h"
#include "storage/session_table.h"

namespace ckpt::storage {

// A record of a batch; or, without a payload, a chunk that is there already and is acked in its place.
struct BatchItem {
  RecordKind kind = RecordKind::kChunk;
  Digest digest;
  Fingerprint fingerprint;
  std::uint32_t raw_length = 0;
  std::optional<Payload> payload;
  std::uint64_t tensor = 0;  // of a chunk: the tensor's number and the chunk's index in it
  std::uint64_t index = 0;
  // Once it is durable: of the first in its batch that has this name and a payload.
  std::optional<RecordPlace> place = {};
};

// Used by one thread, but for its own.
class BatchWriter {
 public:
  // Called from the writer's thread, in order, with the items of each batch once they are durable.
  using OnDurable = std::function<void(const std::vector<BatchItem>& items)>;

  BatchWriter(BatchCommitter& committer, ChunkIndex& index, DiskReserve& reserve, SessionRef session, StreamPins& pins,
              OnDurable on_durable);
  ~BatchWriter();  // waits for the batch at hand, drops the next

  // Hands a batch over; waits while one is being written and another waits. Returns the first error of any batch: then
  // the stream is over.
  absl::Status Submit(std::vector<BatchItem> items);

  // True when Submit would not wait.
  bool HasRoom();

  // True when nothing is being written or waits. The first error of any batch.
  absl::StatusOr<bool> Idle();

  // Waits until all is durable; the first error of any batch.
  absl::Status Drain();

  // Of all batches: bytes that were new to the store; where the version fact is. After Drain.
  [[nodiscard]] std::uint64_t new_bytes() const { return new_bytes_; }
  [[nodiscard]] const RecordLocation& fact() const { return fact_; }

 private:
  void Run();
  absl::Status WriteBatch(std::vector<BatchItem>& items);
  absl::StatusOr<IndexResult> Commit(Batch batch, bool has_fact);

  BatchCommitter& committer_;
  ChunkIndex& index_;
  DiskReserve& reserve_;
  const SessionRef session_;
  StreamPins& pins_;
  const OnDurable on_durable_;

  // The writer's thread's own.
  std::uint64_t batch_number_ = 0;
  std::optional<PackId> last_pack_;
  std::uint64_t new_bytes_ = 0;
  RecordLocation fact_;

  Mutex mutex_;
  CondVar changed_;
  std::vector<BatchItem> next_ CKPT_GUARDED_BY(mutex_);
  bool writing_ CKPT_GUARDED_BY(mutex_) = false;
  bool stop_ CKPT_GUARDED_BY(mutex_) = false;
  absl::Status status_ CKPT_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace ckpt::storage
