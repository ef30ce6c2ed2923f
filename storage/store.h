// A store: a folder that holds checkpoints. Opening it recovers whatever a crash left.
//
//   DIR/lock       held while a process has the store open
//   DIR/catalog/   RocksDB: everything that is not payload
//   DIR/packs/     DOMAIN/ID.pack: payload, manifests, facts
//   DIR/durable    how far the catalog's log was on disk
//   DIR/reserve    disk space kept back for the catalog
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "storage/batch_committer.h"
#include "storage/chunk_index.h"
#include "storage/disk_reserve.h"
#include "storage/folder_lock.h"
#include "storage/kv_engine.h"
#include "storage/limits.h"
#include "storage/pack_store.h"
#include "storage/pack_table.h"
#include "storage/part_table.h"
#include "storage/session_table.h"
#include "storage/version_table.h"

namespace ckpt::storage {

struct StoreOptions {
  // The folder; made if it is not there.
  std::filesystem::path dir;

  // Bytes of a chunk, for domains that are made from now on; at most kMaxChunkSize.
  std::uint32_t chunk_size = kMaxChunkSize;

  // A pack is sealed when it has grown to this size.
  std::uint64_t pack_target_bytes = std::uint64_t{256} << 20;

  // An open pack that nobody has written to for so long is sealed.
  std::chrono::milliseconds seal_idle_after = std::chrono::minutes(1);

  // How long an unfinished save can be resumed after its connection broke.
  std::chrono::milliseconds lease = std::chrono::minutes(15);

  // Disk space kept back so that the catalog never meets a full disk: its logs, write buffers and one compaction. Less
  // than 128 MiB is for tests; ckptd takes no less.
  std::uint64_t reserve_bytes = std::uint64_t{256} << 20;

  // Open a store whose catalog lost what was on disk: with what is left of it.
  bool accept_loss = false;

  const Clock* clock = &Clock::System();
};

// Thread-safe.
class Store {
 public:
  // Errors: FailedPrecondition STORE_IN_USE (another process has it), DataLoss (catalog damaged), Unimplemented
  // (written by a later version), ResourceExhausted, Internal.
  static absl::StatusOr<std::unique_ptr<Store>> Open(StoreOptions options);
  ~Store();

  // The domain's chunk size; makes the domain if it is new.
  absl::StatusOr<std::uint32_t> OpenDomain(const std::string& domain);

  // Something was committed: its marker is to be written soon.
  void MarkCommits();

  KvEngine& engine() { return *engine_; }
  PackStore& packs() { return *packs_; }
  PackTable& pack_table() { return pack_table_; }
  ChunkIndex& chunks() { return chunks_; }
  BatchCommitter& committer() { return *committer_; }
  SessionTable& sessions() { return sessions_; }
  PartTable& parts() { return parts_; }
  // Streams that save now.
  [[nodiscard]] int save_streams() const { return save_streams_; }
  void CountSaveStream(int change) { save_streams_ += change; }

  // A turn to merge parts, which takes memory: one at a time. `at_work` is called now and then while it is waited for.
  class MergeTurn {
   public:
    MergeTurn(Store& store, const std::function<void()>& at_work);
    ~MergeTurn();
    MergeTurn(const MergeTurn&) = delete;
    MergeTurn& operator=(const MergeTurn&) = delete;

   private:
    Store& store_;
  };

  VersionTable& versions() { return *versions_; }
  DiskReserve& reserve() { return *reserve_; }

 private:
  Store(StoreOptions options, FolderLock lock, std::unique_ptr<DiskReserve> reserve, std::unique_ptr<KvEngine> engine);
  absl::Status Recover();
  absl::Status CheckFormat();
  absl::Status WriteMarkers();
  void Maintain();

  const StoreOptions options_;
  const FolderLock lock_;  // before all that writes: it goes last
  const std::unique_ptr<DiskReserve> reserve_;
  const std::unique_ptr<KvEngine> engine_;
  PackTable pack_table_;
  std::unique_ptr<PackStore> packs_;
  ChunkIndex chunks_;
  std::unique_ptr<BatchCommitter> committer_;
  SessionTable sessions_;
  PartTable parts_;
  std::unique_ptr<VersionTable> versions_;

  std::atomic<int> save_streams_ = 0;

  Mutex merge_mutex_;
  CondVar merged_;
  bool is_merging_ CKPT_GUARDED_BY(merge_mutex_) = false;

  Mutex mutex_;
  CondVar wake_;
  bool stop_ CKPT_GUARDED_BY(mutex_) = false;
  bool marks_due_ CKPT_GUARDED_BY(mutex_) = false;
  std::thread maintenance_;
};

}  // namespace ckpt::storage
