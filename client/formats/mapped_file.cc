#include "client/formats/mapped_file.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "client/formats/file_error.h"

namespace ckpt::formats {
namespace {

bool Same(const timespec& a, const timespec& b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

// The path by which the system knows the open file now; "" where it does not say.
std::string NameOf(int fd) {
  std::string name(PATH_MAX, '\0');
  const ssize_t size = readlink(absl::StrCat("/proc/self/fd/", fd).c_str(), name.data(), name.size());
  name.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
  return name;
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a FIFO must not block
  if (fd < 0) return SystemError(errno, "cannot open", path);
  absl::Cleanup closer = [fd] { close(fd); };
  struct stat info {};
  if (fstat(fd, &info) != 0) return SystemError(errno, "cannot read", path);
  if (!S_ISREG(info.st_mode)) return BadFile(absl::StrCat(path, " is no regular file"));
  const auto size = static_cast<std::size_t>(info.st_size);
  void* const data = size == 0 ? nullptr : mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) return SystemError(errno, "cannot map", path);
  std::move(closer).Cancel();
  return std::unique_ptr<MappedFile>(new MappedFile(path, fd, info, {static_cast<const char*>(data), size}));
}

MappedFile::MappedFile(const std::string& path, int fd, const struct stat& opened, std::string_view bytes)
    : path_(path), fd_(fd), opened_(opened), name_(NameOf(fd)), bytes_(bytes) {}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<char*>(bytes_.data()), bytes_.size());
  close(fd_);
}

absl::Status MappedFile::CheckUnchanged() const {
  struct stat now {};
  if (fstat(fd_, &now) != 0) return SystemError(errno, "cannot read", path_);
  // Who puts the time of the last write back changes that of the last change; but so does who takes or gives a name.
  const bool changed = !Same(now.st_ctim, opened_.st_ctim) && now.st_nlink == opened_.st_nlink && NameOf(fd_) == name_;
  if (now.st_size == opened_.st_size && Same(now.st_mtim, opened_.st_mtim) && !changed) return absl::OkStatus();
  return MakeError(absl::StatusCode::kAborted, "FILE_CHANGED",
                   absl::StrCat(path_, " was written to while it was read; try again when it is complete"));
}

void MappedFile::Release(const void* data, std::size_t size) const {
  const auto base = reinterpret_cast<std::uintptr_t>(bytes_.data());
  auto begin = reinterpret_cast<std::uintptr_t>(data);
  if (size == 0 || begin < base || begin - base > bytes_.size() || size > bytes_.size() - (begin - base)) return;
  // Outwards to whole pages: the mapping is never written to, so giving a page too many back costs only a new fault.
  const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const std::uintptr_t end = begin + size;
  begin -= begin % page;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace ckpt::formats
