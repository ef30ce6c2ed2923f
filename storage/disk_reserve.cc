#include "storage/disk_reserve.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::storage {

absl::StatusOr<std::unique_ptr<DiskReserve>> DiskReserve::Open(const std::filesystem::path& dir,
                                                               DiskReserveOptions options) {
  auto reserve = std::unique_ptr<DiskReserve>(new DiskReserve(dir, options));
  if (const absl::Status status = reserve->Admit(0); !status.ok()) {
    if (!absl::IsResourceExhausted(status)) return status;
    spdlog::warn("{}", std::string(status.message()));
  }
  return reserve;
}

absl::StatusOr<std::uint64_t> DiskReserve::FreeBytes() const {
  struct statvfs facts {};
  if (statvfs(dir_.c_str(), &facts) == 0) return std::uint64_t{facts.f_bavail} * facts.f_frsize;
  return MakeError(absl::StatusCode::kInternal, "CANNOT_OPEN_STORE",
                   absl::StrCat("cannot ask how full ", dir_.string(), " is: ", std::system_category().message(errno)));
}

absl::Status DiskReserve::Full(std::uint64_t free, std::uint64_t wanted) const {
  return MakeError(absl::StatusCode::kResourceExhausted, "DISK_FULL",
                   absl::StrCat("the disk under ", dir_.string(), " is full: ", free >> 20, " MiB are free, ",
                                (wanted >> 20) + 1, " MiB are needed; nothing is lost: make room there and save again"));
}

// Makes the file that holds the reserve; false if there is no room.
bool DiskReserve::Hold() {
  const std::filesystem::path path = dir_ / "reserve";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  const int error = posix_fallocate(fd, 0, static_cast<off_t>(options_.reserve_bytes));
  const bool sized = error == 0 && ftruncate(fd, static_cast<off_t>(options_.reserve_bytes)) == 0;
  close(fd);
  if (!sized) unlink(path.c_str());
  return sized;
}

absl::Status DiskReserve::Admit(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  CKPT_ASSIGN_OR_RETURN(std::uint64_t free, FreeBytes());
  if (!held_) {
    struct stat facts {};
    const bool there = stat((dir_ / "reserve").c_str(), &facts) == 0 &&
                       static_cast<std::uint64_t>(facts.st_size) == options_.reserve_bytes;
    const std::uint64_t wanted = options_.margin_bytes + bytes + (there ? 0 : options_.reserve_bytes);
    if (free < wanted || !Hold()) {
      if (there && free < options_.margin_bytes) unlink((dir_ / "reserve").c_str());
      return Full(free, wanted);
    }
    held_ = true;
    CKPT_ASSIGN_OR_RETURN(free, FreeBytes());
  }
  if (free >= options_.margin_bytes + bytes) return absl::OkStatus();
  if (free < options_.margin_bytes) {
    unlink((dir_ / "reserve").c_str());
    held_ = false;
  }
  return Full(free, options_.margin_bytes + bytes);
}

}  // namespace ckpt::storage
