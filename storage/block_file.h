// A file that is appended to past the page cache; see docs/adr/0014-direct-writes.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "base/digest.h"

namespace ckpt::storage {

// Memory to write from. It stays in a core's cache while it is filled and written, over and over.
class BlockBuffer {
 public:
  BlockBuffer();
  [[nodiscard]] std::span<std::byte> bytes() const { return {data_.get(), kSize}; }

 private:
  static constexpr std::size_t kSize = std::size_t{1} << 20;
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  std::unique_ptr<std::byte, Free> data_;
};

// Not thread-safe. What it writes is a whole number of blocks: zeros fill the last one, until it is written again with
// what comes next. Where a file system has no direct I/O, it writes as any file does.
class BlockFile {
 public:
  static constexpr std::size_t kBlock = 4096;

  BlockFile() = default;
  ~BlockFile();
  BlockFile(const BlockFile&) = delete;
  BlockFile& operator=(const BlockFile&) = delete;

  // Makes the file, which must not be there. Errors, here and below: SystemError's; then the file is not to be written
  // any more.
  absl::Status Create(std::filesystem::path path);

  // Appends the pieces, one after the other. A reader sees them when it returns; Sync makes them durable.
  absl::Status Append(std::span<const Bytes> pieces, const BlockBuffer& buffer);

  absl::Status Sync();

  // How much was appended.
  [[nodiscard]] std::uint64_t size_bytes() const { return size_bytes_; }

 private:
  absl::Status WriteBlocks(std::span<const std::byte> blocks, std::uint64_t offset);

  std::filesystem::path path_;
  int fd_ = -1;
  std::uint64_t size_bytes_ = 0;
  std::string tail_;  // what is in the last block
};

}  // namespace ckpt::storage
