// The catalog's engine on RocksDB: pessimistic transactions, so that a conflict waits or is seen, never slips through.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/kv_engine.h"

namespace ckpt::storage {

// RocksDB keeps so much of what is written in memory before it writes a table, which it does in the background and at
// one go; it has two such buffers.
inline constexpr std::uint64_t kRocksDbWriteBufferBytes = std::uint64_t{32} << 20;

struct RocksDbOptions {
  // Called with what failed when a commit fails for another reason than a conflict; must not return. RocksDB 7.8 aborts
  // or stays read-only after such an error, while what is on disk is whole: the default says so and ends the process at
  // once, without closing the database. A restart recovers.
  std::function<void(const absl::Status&)> on_fatal = nullptr;

  // Called before each commit that writes, from any thread: the last moment to make room for it.
  std::function<void()> before_commit = nullptr;

  // A file outside the database's folder that says how far its log was on disk: 8 bytes, little-endian, RocksDB's
  // sequence number. RocksDB takes a log that was damaged or cut for one that ends there, as a crash leaves it; this
  // tells the two apart, where the last commits are gone and not some before them. Made if it is not there; none if
  // empty.
  std::filesystem::path durable_file = {};

  // Open a database that lost durable commits all the same.
  bool accept_loss = false;
};

class RocksDbEngine final : public KvEngine {
 public:
  // Opens the database in the folder, making it if it is not there. One process at a time has it: the store's lock sees
  // to that, and knows better than RocksDB's text why a folder cannot be opened. One that lost durable commits is left
  // as it is. Errors: DataLoss CATALOG_DAMAGED, ResourceExhausted DISK_FULL, Internal.
  static absl::StatusOr<std::unique_ptr<RocksDbEngine>> Open(const std::filesystem::path& dir, RocksDbOptions options);
  ~RocksDbEngine() override;

  absl::Status Transact(Durability durability, const std::function<absl::Status(Transaction&)>& body) override;

 private:
  struct Impl;
  explicit RocksDbEngine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ckpt::storage
