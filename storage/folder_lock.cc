#include "storage/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::storage {

absl::StatusOr<FolderLock> FolderLock::Take(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / "lock";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0)
    return MakeError(absl::StatusCode::kInternal, "CANNOT_OPEN_STORE",
                     absl::StrCat("cannot open ", path.string(), ": ", std::system_category().message(errno)));
  FolderLock lock(fd);
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return lock;
  const int error = errno;
  if (error == EWOULDBLOCK)
    return MakeError(
        absl::StatusCode::kFailedPrecondition, "STORE_IN_USE",
        absl::StrCat(dir.string(), " is in use by another ckptd; stop that one, or give this one another folder"));
  return MakeError(absl::StatusCode::kInternal, "CANNOT_OPEN_STORE",
                   absl::StrCat("cannot lock ", path.string(), ": ", std::system_category().message(error)));
}

FolderLock::~FolderLock() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace ckpt::storage
