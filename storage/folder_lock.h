// One process at a time has a store.
#pragma once

#include <filesystem>

#include "absl/status/statusor.h"

namespace ckpt::storage {

// The folder is this one's as long as it lives; a process that dies lets go too.
class FolderLock {
 public:
  // Makes and locks DIR/lock. Errors: FailedPrecondition STORE_IN_USE, Internal CANNOT_OPEN_STORE.
  static absl::StatusOr<FolderLock> Take(const std::filesystem::path& dir);

  FolderLock(FolderLock&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  FolderLock& operator=(FolderLock&&) = delete;
  ~FolderLock();

 private:
  explicit FolderLock(int fd) : fd_(fd) {}

  int fd_;
};

}  // namespace ckpt::storage
