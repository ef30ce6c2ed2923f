// Keeps the catalog from meeting a full disk.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"

namespace ckpt::storage {

struct DiskReserveOptions {
  // Disk space held in a file: what the catalog may still write while saves are refused (logs, write buffers, one
  // compaction). 0: none.
  std::uint64_t reserve_bytes = std::uint64_t{256} << 20;

  // Free space besides it under which saves are refused and the file is given up: what the catalog may write at one go,
  // before anybody looks again.
  std::uint64_t margin_bytes = std::uint64_t{64} << 20;
};

// While there is room, a preallocated file holds the reserve. When free space falls under the margin the file goes, so
// that the catalog has its space whatever else fills the disk, and saves are refused until there is room for both
// again. Other programs fill the disk too, whether anybody saves or not: somebody has to look all the time.
// Thread-safe.
class DiskReserve {
 public:
  // Space that a write has been promised, until it is destroyed: then the write's bytes are counted by the disk.
  class Admission {
   public:
    Admission(Admission&& other) noexcept : reserve_(other.reserve_), bytes_(std::exchange(other.bytes_, 0)) {}
    Admission& operator=(Admission&&) = delete;
    ~Admission() {
      if (bytes_ != 0) reserve_->Release(bytes_);  // one that was moved from is destroyed with the lock held
    }

   private:
    friend class DiskReserve;
    Admission(DiskReserve* reserve, std::uint64_t bytes) : reserve_(reserve), bytes_(bytes) {}

    DiskReserve* const reserve_;
    std::uint64_t bytes_;
  };

  // Makes the file if there is room; on a full disk it opens all the same and refuses saves. Internal if the folder
  // cannot be used.
  static absl::StatusOr<std::unique_ptr<DiskReserve>> Open(const std::filesystem::path& dir,
                                                           DiskReserveOptions options);

  // OK when so many more bytes may be written, besides those that others were promised. ResourceExhausted DISK_FULL
  // otherwise: nothing is lost. Takes the reserve again when there is room. Internal if that fails for another reason.
  absl::Status Admit(std::uint64_t bytes);

  // The same, and promises them. The admission does not outlive this.
  absl::StatusOr<Admission> AdmitWrite(std::uint64_t bytes);

  // OK when so much is free, if need be once the reserve is given up. ResourceExhausted DISK_FULL otherwise.
  absl::Status NeedToStart(std::uint64_t bytes);

  // Gives the reserve up if there is less space than the margin: cheap enough for before each write to the catalog.
  void Watch();

  // Gives it up: the disk has refused a write, whatever it says of its free space.
  void GiveUp();

 private:
  DiskReserve(std::filesystem::path dir, DiskReserveOptions options) : dir_(std::move(dir)), options_(options) {}

  absl::StatusOr<std::uint64_t> FreeBytes() const;
  absl::Status Full(std::uint64_t free, std::uint64_t wanted) const;
  [[nodiscard]] std::uint64_t Kept() const;
  absl::StatusOr<bool> Hold() CKPT_REQUIRES(mutex_);
  absl::Status Look(std::uint64_t bytes) CKPT_REQUIRES(mutex_);
  void Drop() CKPT_REQUIRES(mutex_);
  void Release(std::uint64_t bytes);

  const std::filesystem::path dir_;
  const DiskReserveOptions options_;
  Mutex mutex_;
  bool held_ CKPT_GUARDED_BY(mutex_) = false;
  std::uint64_t promised_bytes_ CKPT_GUARDED_BY(mutex_) = 0;
};

}  // namespace ckpt::storage
