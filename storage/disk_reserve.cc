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
                                (wanted >> 20) + 1, " MiB are needed; nothing is lost: make room there and try again"));
}

// What the file holds already.
std::uint64_t DiskReserve::Kept() const {
  struct stat facts {};
  const bool there = stat((dir_ / "reserve").c_str(), &facts) == 0 && S_ISREG(facts.st_mode);
  return there ? static_cast<std::uint64_t>(facts.st_size) : 0;
}

// Makes the file that holds the reserve, or makes it fit; false if there is no room.
absl::StatusOr<bool> DiskReserve::Hold() {
  const std::filesystem::path path = dir_ / "reserve";
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  int error = fd < 0 ? errno : 0;
  const auto size = static_cast<off_t>(options_.reserve_bytes);
  if (error == 0 && size != 0) error = posix_fallocate(fd, 0, size);
  if (error == 0 && ftruncate(fd, size) != 0) error = errno;
  if (fd >= 0) close(fd);
  if (error == 0) return true;
  unlink(path.c_str());
  if (error == ENOSPC || error == EDQUOT) return false;
  return MakeError(
      absl::StatusCode::kInternal, "CANNOT_OPEN_STORE",
      absl::StrCat("cannot keep disk space back in ", path.string(), ": ", std::system_category().message(error)));
}

void DiskReserve::Drop() {
  unlink((dir_ / "reserve").c_str());
  if (std::exchange(held_, false))
    spdlog::warn("the disk under {} is full: what was kept back there is the catalog's now, and saves are refused",
                 dir_.string());
}

absl::Status DiskReserve::Look(std::uint64_t bytes) {
  CKPT_ASSIGN_OR_RETURN(std::uint64_t free, FreeBytes());
  const std::uint64_t wanted = options_.margin_bytes + promised_bytes_ + bytes;
  if (!held_) {
    const std::uint64_t kept = Kept();
    const std::uint64_t missing = options_.reserve_bytes > kept ? options_.reserve_bytes - kept : 0;
    if (free >= wanted + missing) {
      CKPT_ASSIGN_OR_RETURN(held_, Hold());
    } else if (kept != 0 && free < options_.margin_bytes) {
      Drop();
    }
    if (!held_) return Full(free, wanted + missing);
    CKPT_ASSIGN_OR_RETURN(free, FreeBytes());
  }
  if (free >= wanted) return absl::OkStatus();
  if (free < options_.margin_bytes) Drop();
  return Full(free, wanted);
}

absl::Status DiskReserve::Admit(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  return Look(bytes);
}

absl::StatusOr<DiskReserve::Admission> DiskReserve::AdmitWrite(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  CKPT_RETURN_IF_ERROR(Look(bytes));
  promised_bytes_ += bytes;
  return Admission(this, bytes);
}

absl::Status DiskReserve::NeedToStart(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  CKPT_ASSIGN_OR_RETURN(std::uint64_t free, FreeBytes());
  if (free < bytes) {
    Drop();
    CKPT_ASSIGN_OR_RETURN(free, FreeBytes());
  }
  return free < bytes ? Full(free, bytes) : absl::OkStatus();
}

void DiskReserve::Release(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  promised_bytes_ -= bytes;
}

void DiskReserve::Watch() {
  const MutexLock lock(mutex_);
  const absl::StatusOr<std::uint64_t> free = FreeBytes();
  if (held_ && free.ok() && *free < options_.margin_bytes) Drop();
}

void DiskReserve::GiveUp() {
  const MutexLock lock(mutex_);
  Drop();
}

}  // namespace ckpt::storage
