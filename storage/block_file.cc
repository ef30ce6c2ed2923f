#include "storage/block_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/status.h"
#include "storage/file_system.h"

namespace ckpt::storage {

BlockBuffer::BlockBuffer() : data_(static_cast<std::byte*>(std::aligned_alloc(BlockFile::kBlock, kSize))) {
  CKPT_CHECK(data_ != nullptr);
}

BlockFile::~BlockFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status BlockFile::Create(std::filesystem::path path) {
  path_ = std::move(path);
  constexpr int kFlags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
  fd_ = open(path_.c_str(), kFlags | O_DIRECT, 0644);
  if (fd_ < 0 && errno == EINVAL) {
    unlink(path_.c_str());  // Linux has made the file before it looks whether it can be written directly
    fd_ = open(path_.c_str(), kFlags, 0644);
  }
  return fd_ < 0 ? SystemError("cannot make", path_, errno) : absl::OkStatus();
}

absl::Status BlockFile::Append(std::span<const Bytes> pieces, const BlockBuffer& buffer) {
  const std::span<std::byte> out = buffer.bytes();
  std::uint64_t offset = size_bytes_ - tail_.size();  // of the buffer's first byte in the file
  std::size_t used = tail_.size();
  std::memcpy(out.data(), tail_.data(), used);
  for (Bytes piece : pieces) {
    while (!piece.empty()) {
      const std::size_t part = std::min(piece.size(), out.size() - used);
      std::memcpy(out.data() + used, piece.data(), part);
      piece = piece.subspan(part);
      used += part;
      if (used < out.size()) break;
      CKPT_RETURN_IF_ERROR(WriteBlocks(out, offset));
      offset += used;
      used = 0;
    }
  }
  const std::size_t last = used / kBlock * kBlock;  // where the last block begins
  tail_.assign(reinterpret_cast<const char*>(out.data()) + last, used - last);
  size_bytes_ = offset + used;
  if (used == 0) return absl::OkStatus();
  const std::size_t end = last + (tail_.empty() ? 0 : kBlock);
  std::fill(out.begin() + static_cast<std::ptrdiff_t>(used), out.begin() + static_cast<std::ptrdiff_t>(end),
            std::byte{0});
  return WriteBlocks(out.first(end), offset);
}

absl::Status BlockFile::WriteBlocks(std::span<const std::byte> blocks, std::uint64_t offset) {
  while (!blocks.empty()) {
    const ssize_t written = pwrite(fd_, blocks.data(), blocks.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EINVAL) {
      // Direct I/O in blocks of another size.
      const int flags = fcntl(fd_, F_GETFL);
      if ((flags & O_DIRECT) != 0 && fcntl(fd_, F_SETFL, flags & ~O_DIRECT) == 0) continue;
      errno = EINVAL;
    }
    if (written < 0) return SystemError("cannot write", path_, errno);
    const std::size_t whole = static_cast<std::size_t>(written) / kBlock * kBlock;
    if (whole == 0) return SystemError("cannot write", path_, EIO);
    blocks = blocks.subspan(whole);
    offset += whole;
  }
  return absl::OkStatus();
}

absl::Status BlockFile::Sync() {
  return fdatasync(fd_) == 0 ? absl::OkStatus() : SystemError("cannot write", path_, errno);
}

}  // namespace ckpt::storage
