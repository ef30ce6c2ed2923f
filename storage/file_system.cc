#include "storage/file_system.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::storage {
namespace {

// 0, or errno.
int Sync(const std::filesystem::path& folder) {
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  const int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error;
}

}  // namespace

absl::Status SystemError(std::string_view what, const std::filesystem::path& path, int error) {
  const std::string text = absl::StrCat(absl::string_view(what.data(), what.size()), " ", path.string(), ": ",
                                        std::system_category().message(error));
  if (error == ENOSPC || error == EDQUOT)
    return MakeError(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                     absl::StrCat(text, "; nothing is lost: make room there and save again"));
  return MakeError(absl::StatusCode::kInternal, "IO_ERROR", text);
}

absl::StatusOr<bool> HasName(int fd, const std::filesystem::path& path) {
  struct stat file = {};
  struct stat named = {};
  if (fstat(fd, &file) != 0) return SystemError("cannot look at", path, errno);
  if (stat(path.c_str(), &named) == 0) return named.st_dev == file.st_dev && named.st_ino == file.st_ino;
  if (errno == ENOENT || errno == ENOTDIR) return false;
  return SystemError("cannot look at", path, errno);
}

absl::Status SyncFolder(const std::filesystem::path& path) {
  const int error = Sync(path);
  return error == 0 ? absl::OkStatus() : SystemError("cannot sync", path, error);
}

absl::Status MakeFolder(const std::filesystem::path& path) {
  std::filesystem::path folder = std::filesystem::absolute(path);
  if (!folder.has_filename()) folder = folder.parent_path();  // it ended with a slash
  const std::filesystem::path parent = folder.parent_path();
  std::error_code error;
  if (parent != folder && !std::filesystem::exists(parent, error)) CKPT_RETURN_IF_ERROR(MakeFolder(parent));
  const bool made = std::filesystem::create_directory(folder, error);
  if (error) return SystemError("cannot make", folder, error.value());
  const int failed = Sync(parent);
  if (failed == 0 || (failed == EACCES && !made)) return absl::OkStatus();
  return SystemError("cannot sync", parent, failed);
}

}  // namespace ckpt::storage
