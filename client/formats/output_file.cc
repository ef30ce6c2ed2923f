// How a file becomes durable: 1. its bytes go to a file without a name in the same folder, which a program that is
// killed leaves no trace of, 2. fsync of that file, 3. link to its name, or to a temporary one that is renamed over the
// file that it replaces, 4. fsync of the folder. Where the file system has no files without a name, it has the
// temporary one from the beginning.
#include "client/formats/output_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "client/formats/file_error.h"

namespace ckpt::formats {
namespace {

std::string FolderOf(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

absl::Status Exists(const std::string& path) {
  return MakeError(absl::StatusCode::kAlreadyExists, "FILE_EXISTS",
                   absl::StrCat(path, " exists; choose another name, or overwrite it explicitly"));
}

// What is to be replaced: behind links the file itself. Only a file is, never a device, a pipe or a folder.
absl::StatusOr<std::string> Replaced(const std::string& path) {
  struct stat facts {};
  if (stat(path.c_str(), &facts) != 0) return path;  // there is none, or a link that leads nowhere
  if (!S_ISREG(facts.st_mode)) return BadFile(absl::StrCat(path, " is no regular file"));
  char* const real = realpath(path.c_str(), nullptr);
  if (real == nullptr) return SystemError(errno, "cannot find", path);
  const absl::Cleanup freer = [real] { free(real); };
  return std::string(real);
}

absl::Status SyncFolder(const std::string& path) {
  const std::string folder = FolderOf(path);
  const int fd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return SystemError(errno, "cannot open", folder);
  const absl::Cleanup closer = [fd] { close(fd); };
  // Some file systems have no folders to sync.
  if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) return SystemError(errno, "cannot sync", folder);
  return absl::OkStatus();
}

// Gives the open file the permission bits of the one that it is to replace, and its owner and group where that is
// allowed: with others the same bits may shut out whom they let in.
int TakeRights(const struct stat& old, int fd) {
  constexpr mode_t kRights = S_IRWXU | S_IRWXG | S_IRWXO;
  struct stat now {};
  if (fstat(fd, &now) != 0) return -1;
  if ((now.st_uid != old.st_uid || now.st_gid != old.st_gid) && fchown(fd, old.st_uid, old.st_gid) != 0)
    (void)!fchown(fd, now.st_uid, old.st_gid);
  // Some file systems give all files the same rights, and cannot change them.
  return (now.st_mode & kRights) == (old.st_mode & kRights) ? 0 : fchmod(fd, old.st_mode & kRights);
}

// A name for the open file that link takes. It is not there where /proc is not mounted.
std::string NameOf(int fd) { return absl::StrCat("/proc/self/fd/", fd); }

// A file without a name in the folder; -1 where there are none.
int OpenNameless(const std::string& folder) {
  const int fd = open(folder.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0666);
  if (fd < 0 || faccessat(AT_FDCWD, NameOf(fd).c_str(), F_OK, 0) == 0) return fd;
  close(fd);
  return -1;
}

// Calls `make` with one temporary name next to `path` after another, while it says that there is such a file. Returns
// the name that it made, or "" with errno.
template <typename Make>
std::string MakeTemporary(const std::string& path, Make make) {
  std::random_device random;
  for (int attempt = 0; attempt < 100; ++attempt) {
    std::string name = absl::StrCat(FolderOf(path), "/.ckpt-", absl::Hex(random()), absl::Hex(random()), ".tmp");
    if (make(name.c_str())) return name;
    if (errno != EEXIST) break;
  }
  return {};
}

// Renames without replacing an existing file, atomically.
int RenameToNewName(const char* from, const char* to) {
  if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  // A file system without that flag: a hard link does the same in two steps.
  if (link(from, to) != 0) return -1;
  unlink(from);
  return 0;
}

}  // namespace

absl::StatusOr<std::unique_ptr<OutputFile>> OutputFile::Create(const std::string& given, const Options& options) {
  if (given.empty() || given.back() == '/')
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_NAME", absl::StrCat("'", given, "' names no file"));
  std::string path = given;
  if (options.overwrite) {
    CKPT_ASSIGN_OR_RETURN(path, Replaced(given));
  }
  if (!options.overwrite && faccessat(AT_FDCWD, path.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0) return Exists(path);
  int fd = options.nameless ? OpenNameless(FolderOf(path)) : -1;
  std::string temporary;
  if (fd < 0) {
    temporary = MakeTemporary(path, [&](const char* name) {
      fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      return fd >= 0;
    });
    if (fd < 0) return SystemError(errno, "cannot write", path);
  }
  auto file = std::unique_ptr<OutputFile>(new OutputFile(path, std::move(temporary), options, fd));
  struct stat old {};
  if (options.overwrite && stat(path.c_str(), &old) == 0 && TakeRights(old, fd) != 0)
    return SystemError(errno, "cannot set the rights of", path);
  return file;
}

OutputFile::~OutputFile() {
  close(fd_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

absl::Status OutputFile::Reserve(std::uint64_t size_bytes) {
  if (size_bytes == 0 || fallocate(fd_, 0, 0, static_cast<off_t>(size_bytes)) == 0) return absl::OkStatus();
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) return SystemError(errno, "cannot write", path_);
  return absl::OkStatus();  // the file system cannot say beforehand
}

absl::Status OutputFile::WriteAt(std::uint64_t offset_bytes, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset_bytes));
    if (written < 0) {
      if (errno == EINTR) continue;
      return SystemError(errno, "cannot write", path_);
    }
    bytes.remove_prefix(static_cast<std::size_t>(written));
    offset_bytes += static_cast<std::uint64_t>(written);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> OutputFile::ReadAt(std::uint64_t offset_bytes, std::size_t size_bytes) const {
  std::string bytes(size_bytes, '\0');
  std::size_t done = 0;
  while (done < size_bytes) {
    const ssize_t count = pread(fd_, bytes.data() + done, size_bytes - done, static_cast<off_t>(offset_bytes + done));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return SystemError(count < 0 ? errno : EIO, "cannot read back", path_);
    done += static_cast<std::size_t>(count);
  }
  return bytes;
}

void OutputFile::Discard(std::uint64_t offset_bytes, std::uint64_t size_bytes) {
  if (size_bytes == 0) return;
  (void)fallocate(fd_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset_bytes),
                  static_cast<off_t>(size_bytes));
}

absl::Status OutputFile::Finish(std::uint64_t size_bytes) {
  if (ftruncate(fd_, static_cast<off_t>(size_bytes)) != 0) return SystemError(errno, "cannot write", path_);
  if (fsync(fd_) != 0) return SystemError(errno, "cannot sync", path_);
  CKPT_RETURN_IF_ERROR(TakeName());
  return SyncFolder(path_);
}

absl::Status OutputFile::TakeName() {
  const auto link_to = [this](const char* name) {
    return linkat(AT_FDCWD, NameOf(fd_).c_str(), AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0;
  };
  bool named = false;
  if (!temporary_.empty() && !options_.overwrite) {
    named = RenameToNewName(temporary_.c_str(), path_.c_str()) == 0;
  } else if (!options_.overwrite) {
    named = link_to(path_.c_str());
  } else {
    if (temporary_.empty()) temporary_ = MakeTemporary(path_, link_to);  // only a rename replaces a file
    named = !temporary_.empty() && rename(temporary_.c_str(), path_.c_str()) == 0;
  }
  if (!named) return errno == EEXIST ? Exists(path_) : SystemError(errno, "cannot rename to", path_);
  temporary_.clear();
  return absl::OkStatus();
}

}  // namespace ckpt::formats
