// Group commit: makes the batches of several streams durable together. While so many are on their way to disk as can be
// side by side, the others wait, and the next one takes those that wait along: one write into one pack with one sync,
// and one catalog write.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "storage/chunk_index.h"
#include "storage/pack_store.h"

namespace ckpt::storage {

// What a stream wants to have in a pack and in the index.
struct Batch {
  // Not empty: those of the index's entries that have `written`, in their order, and then what has no row.
  std::vector<Record> records;
  IndexBatch index;  // its entries' `written` and its own are filled in
  std::optional<PackId> prefer;
};

struct CommittedBatch {
  IndexResult result;
  PackId pack;
  std::vector<RecordLocation> locations;  // of the records
};

// Thread-safe.
class BatchCommitter {
 public:
  // Both outlive it. `at_once`: groups of one domain that are on their way to disk side by side, as many as the store
  // has packs open.
  BatchCommitter(PackStore& packs, ChunkIndex& index, std::size_t at_once)
      : packs_(packs), index_(index), at_once_(at_once) {}

  // Returns when the batch is durable; or, as ChunkIndex::Index, with what is gone: then nothing of it was indexed, and
  // it is to be committed again with those written, too. Errors: PackStore::Write's, ChunkIndex::Index's. What is in
  // the way of one batch alone, a fence or a record that is gone, is in the way of no other that went with it.
  absl::StatusOr<CommittedBatch> Commit(Batch batch);

  // Batches of the domain that nobody commits yet.
  std::size_t waiting(const std::string& domain);

 private:
  struct Waiting {
    Batch batch;
    std::uint64_t bytes = 0;
    absl::Status status;
    CommittedBatch outcome;
    bool taken = false;  // by a thread that commits it
    bool done = false;
    CondVar changed;
  };
  struct Queue {
    std::deque<Waiting*> waiting;
    std::size_t at_work = 0;
  };

  static std::vector<Waiting*> TakeGroup(Queue& queue);
  void CallNext(const Queue& queue) const;
  void CommitGroup(const std::string& domain, const std::vector<Waiting*>& group);
  void IndexGroup(const WrittenBatch& written, const std::vector<Waiting*>& group);

  PackStore& packs_;
  ChunkIndex& index_;
  const std::size_t at_once_;

  Mutex mutex_;
  std::map<std::string, Queue> queues_ CKPT_GUARDED_BY(mutex_);  // by domain
};

}  // namespace ckpt::storage
