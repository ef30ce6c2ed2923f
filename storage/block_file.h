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

// Memory that blocks are gathered in, aligned as direct I/O wants it.
class BlockBuffer {
 public:
  BlockBuffer();
  [[nodiscard]] std::span<std::byte> bytes() { return {data_.get(), kSize}; }

 private:
  // A batch of save_stream.cc fits, so that the disk gets it as one write; one that grew, or a group, takes several.
  static constexpr std::size_t kSize = (std::size_t{4} << 20) + (std::size_t{64} << 10);
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  std::unique_ptr<std::byte, Free> data_;
};

// Not thread-safe. What it writes is a whole number of blocks: zeros fill the last one, until it is written again with
// what comes next behind the same bytes. So nothing that was synced ever changes, even if a write is torn. Where a file
// system has no direct I/O, the blocks go through the page cache.
class BlockFile {
 public:
  static constexpr std::size_t kBlock = 4096;

  BlockFile() = default;
  ~BlockFile();
  BlockFile(const BlockFile&) = delete;
  BlockFile& operator=(const BlockFile&) = delete;

  // Makes the file, which must not be there. Errors, here and below: SystemError's; then the file must not be written
  // any more.
  absl::Status Create(std::filesystem::path path);

  // Appends the pieces, one after the other. A reader sees them when it returns; Sync makes them durable.
  absl::Status Append(std::span<const Bytes> pieces, BlockBuffer& buffer);

  absl::Status Sync();

  // False from when it is seen that somebody else has cut, moved or removed the file: by this call, or by an Append,
  // which looks before each of its writes, as they would hide a cut. A file to which nothing was appended is whole.
  [[nodiscard]] bool IsWhole();

  // How much was appended by calls that returned OK.
  [[nodiscard]] std::uint64_t size_bytes() const { return size_bytes_; }

 private:
  absl::Status WriteBlocks(std::span<const std::byte> blocks, std::uint64_t offset);

  std::filesystem::path path_;
  int fd_ = -1;
  std::uint64_t size_bytes_ = 0;
  bool is_whole_ = true;
  std::string tail_;  // what is in the last block
};

}  // namespace ckpt::storage
