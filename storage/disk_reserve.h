// Keeps the catalog from meeting a full disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"

namespace ckpt::storage {

struct DiskReserveOptions {
  // Disk space held in a file: what the catalog may still write while saves are refused (logs, write buffers, one
  // compaction). 0: none.
  std::uint64_t reserve_bytes = std::uint64_t{256} << 20;

  // Free space besides it under which saves are refused and the file is given up.
  std::uint64_t margin_bytes = std::uint64_t{16} << 20;
};

// While there is room, a preallocated file holds the reserve. When free space falls under the margin the file goes, so
// that the catalog has its space whatever else fills the disk, and saves are refused until there is room for both again.
// Thread-safe.
class DiskReserve {
 public:
  // Makes the file if there is room; on a full disk it opens all the same and refuses saves. Internal if the folder
  // cannot be used.
  static absl::StatusOr<std::unique_ptr<DiskReserve>> Open(const std::filesystem::path& dir, DiskReserveOptions options);

  // OK when so many more bytes may be written. ResourceExhausted DISK_FULL otherwise: nothing is lost.
  absl::Status Admit(std::uint64_t bytes);

 private:
  DiskReserve(std::filesystem::path dir, DiskReserveOptions options) : dir_(std::move(dir)), options_(options) {}

  absl::StatusOr<std::uint64_t> FreeBytes() const;
  absl::Status Full(std::uint64_t free, std::uint64_t wanted) const;
  [[nodiscard]] std::uint64_t Kept() const;
  absl::StatusOr<bool> Hold() CKPT_REQUIRES(mutex_);

  const std::filesystem::path dir_;
  const DiskReserveOptions options_;
  Mutex mutex_;
  bool held_ CKPT_GUARDED_BY(mutex_) = false;
};

}  // namespace ckpt::storage
