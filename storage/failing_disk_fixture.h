// A disk that fails on request: for a test program that is linked with failing_disk_fixture.cc, which takes the place
// of the C library's calls.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace ckpt::storage {

// While one lives (one at a time), it sees what the whole process does to files whose path has `part` in it.
// Thread-safe.
class FailingDisk {
 public:
  explicit FailingDisk(std::string part);
  ~FailingDisk();
  FailingDisk(const FailingDisk&) = delete;
  FailingDisk& operator=(const FailingDisk&) = delete;

  // From now on "fsync", "fdatasync", "pwrite", "pread", "posix_fallocate" or "stat" fails with this errno; 0: no more.
  void Fail(std::string_view call, int error);

  // Runs `act` after each of these calls that does not fail; not of the last two.
  void After(std::string_view call, std::function<void()> act);

  // pwrite and pread take at most so many bytes at once.
  void LimitBytes(std::size_t bytes);

  // pwrite refuses files that are open for direct I/O, as it does where the disk's blocks are larger.
  void RefuseDirect();

  // What statvfs says is free, for any path.
  void SetFreeBytes(std::uint64_t bytes);

  // The calls so far: "fsync /path".
  std::vector<std::string> calls() const;

  // How many pwrites were to go past the page cache, and how many through it.
  struct Writes {
    int direct = 0;
    int cached = 0;
  };
  Writes writes() const;
};

}  // namespace ckpt::storage
