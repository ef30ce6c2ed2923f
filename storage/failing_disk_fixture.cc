#include "storage/failing_disk_fixture.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status.h"

namespace ckpt::storage {
namespace {

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

struct Disk {
  std::string part;
  std::map<std::string, int, std::less<>> errors;
  std::map<std::string, std::function<void()>, std::less<>> after;
  std::size_t limit = kUnlimited;
  bool refuse_direct = false;
  FailingDisk::Writes writes;
  std::optional<std::uint64_t> free_bytes;
  std::vector<std::string> calls;
};
// Not destroyed: other threads may still call when the process ends.
Mutex& DiskMutex() {
  static Mutex& mutex = *new Mutex;
  return mutex;
}
std::unique_ptr<Disk>& TheDisk() {
  static auto& disk = *new std::unique_ptr<Disk>;
  return disk;
}

std::string PathOf(int fd) {
  std::array<char, 4096> path;
  const ssize_t size = readlink(absl::StrCat("/proc/self/fd/", fd).c_str(), path.data(), path.size());
  return {path.data(), size < 0 ? 0 : static_cast<std::size_t>(size)};
}

bool IsDirect(int fd) { return (fcntl(fd, F_GETFL) & O_DIRECT) != 0; }

// What a call should do: fail with an error, or take so many bytes.
struct Order {
  int error = 0;
  std::size_t limit = kUnlimited;
  bool refuse_direct = false;
  std::function<void()> after;
};
// Null unless the call is to be looked at.
Disk* DiskOf(const std::string& path) CKPT_REQUIRES(DiskMutex()) {
  Disk* const disk = TheDisk().get();
  return disk == nullptr || path.find(disk->part) == path.npos ? nullptr : disk;
}

Order OrderFor(std::string_view call, int fd) {
  const MutexLock lock(DiskMutex());
  if (TheDisk() == nullptr) return {};
  const std::string path = PathOf(fd);
  Disk* const disk = DiskOf(path);
  if (disk == nullptr) return {};
  disk->calls.push_back(std::string(call) + " " + path);
  if (call == "pwrite") ++(IsDirect(fd) ? disk->writes.direct : disk->writes.cached);
  const auto error = disk->errors.find(call);
  const auto after = disk->after.find(call);
  return {error == disk->errors.end() ? 0 : error->second, disk->limit, disk->refuse_direct,
          after == disk->after.end() ? nullptr : after->second};
}

std::optional<std::uint64_t> FakeFreeBytes() {
  const MutexLock lock(DiskMutex());
  return TheDisk() == nullptr ? std::nullopt : TheDisk()->free_bytes;
}

}  // namespace

FailingDisk::FailingDisk(std::string part) {
  const MutexLock lock(DiskMutex());
  CKPT_CHECK(TheDisk() == nullptr);
  TheDisk() = std::make_unique<Disk>();
  TheDisk()->part = std::move(part);
}
FailingDisk::~FailingDisk() {
  const MutexLock lock(DiskMutex());
  TheDisk().reset();
}
void FailingDisk::Fail(std::string_view call, int error) {
  const MutexLock lock(DiskMutex());
  TheDisk()->errors[std::string(call)] = error;
}
void FailingDisk::After(std::string_view call, std::function<void()> act) {
  const MutexLock lock(DiskMutex());
  TheDisk()->after[std::string(call)] = std::move(act);
}
void FailingDisk::LimitBytes(std::size_t bytes) {
  const MutexLock lock(DiskMutex());
  TheDisk()->limit = bytes;
}
void FailingDisk::RefuseDirect() {
  const MutexLock lock(DiskMutex());
  TheDisk()->refuse_direct = true;
}
void FailingDisk::SetFreeBytes(std::uint64_t bytes) {
  const MutexLock lock(DiskMutex());
  TheDisk()->free_bytes = bytes;
}
FailingDisk::Writes FailingDisk::writes() const {
  const MutexLock lock(DiskMutex());
  return TheDisk()->writes;
}
std::vector<std::string> FailingDisk::calls() const {
  const MutexLock lock(DiskMutex());
  return TheDisk()->calls;
}

namespace {

template <typename Function>
Function* Real(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

int Fails(int error) {
  errno = error;
  return -1;
}

template <typename Result>
Result Done(Result result, const Order& order) {
  const int error = errno;
  if (result != -1 && order.after) order.after();
  errno = error;
  return result;
}

}  // namespace

extern "C" {

int fsync(int fd) {
  static auto* const real = Real<int(int)>("fsync");
  const Order order = OrderFor("fsync", fd);
  return order.error != 0 ? Fails(order.error) : Done(real(fd), order);
}

int fdatasync(int fd) {
  static auto* const real = Real<int(int)>("fdatasync");
  const Order order = OrderFor("fdatasync", fd);
  return order.error != 0 ? Fails(order.error) : Done(real(fd), order);
}

ssize_t pwrite(int fd, const void* data, size_t size, off_t offset) {
  static auto* const real = Real<ssize_t(int, const void*, size_t, off_t)>("pwrite");
  const Order order = OrderFor("pwrite", fd);
  if (order.refuse_direct && IsDirect(fd)) return Fails(EINVAL);
  return order.error != 0 ? Fails(order.error) : Done(real(fd, data, std::min(size, order.limit), offset), order);
}

ssize_t pread(int fd, void* out, size_t size, off_t offset) {
  static auto* const real = Real<ssize_t(int, void*, size_t, off_t)>("pread");
  const Order order = OrderFor("pread", fd);
  return order.error != 0 ? Fails(order.error) : Done(real(fd, out, std::min(size, order.limit), offset), order);
}

int posix_fallocate(int fd, off_t offset, off_t size) {
  static auto* const real = Real<int(int, off_t, off_t)>("posix_fallocate");
  const Order order = OrderFor("posix_fallocate", fd);
  return order.error != 0 ? order.error : real(fd, offset, size);
}

int stat(const char* path, struct stat* out) {
  static auto* const real = Real<int(const char*, struct stat*)>("stat");
  {
    const MutexLock lock(DiskMutex());
    Disk* const disk = DiskOf(path);
    const int error = disk == nullptr ? 0 : disk->errors["stat"];
    if (error != 0) return Fails(error);
  }
  return real(path, out);
}

int statvfs(const char* path, struct statvfs* out) {
  static auto* const real = Real<int(const char*, struct statvfs*)>("statvfs");
  const int result = real(path, out);
  if (const auto free_bytes = FakeFreeBytes(); result == 0 && free_bytes.has_value()) {
    out->f_frsize = 1;
    out->f_bavail = *free_bytes;
  }
  return result;
}

}  // extern "C"

}  // namespace ckpt::storage
