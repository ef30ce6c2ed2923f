#include "storage/block_file.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "storage/file_system.h"

namespace ckpt::storage {
namespace {

bool SetDirect(int fd, bool direct) {
  const int flags = fcntl(fd, F_GETFL);
  return fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

bool IsDirect(int fd) { return (fcntl(fd, F_GETFL) & O_DIRECT) != 0; }

void TellIndirect(const std::filesystem::path& path) {
  static std::once_flag once;
  std::call_once(once, [&] {
    spdlog::warn(
        "{} cannot be written past the page cache, which takes more processor time: a matter of its file system",
        path.string());
  });
}

}  // namespace

BlockBuffer::BlockBuffer() : data_(static_cast<std::byte*>(std::aligned_alloc(BlockFile::kBlock, kSize))) {
  CKPT_CHECK(data_ != nullptr);
}

BlockFile::~BlockFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status BlockFile::Create(std::filesystem::path path) {
  path_ = std::move(path);
  fd_ = open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd_ < 0) return SystemError("cannot make", path_, errno);
  if (!SetDirect(fd_, true)) TellIndirect(path_);
  return absl::OkStatus();
}

absl::Status BlockFile::Append(std::span<const Bytes> pieces, BlockBuffer& buffer) {
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
  const std::size_t end = used == last ? last : last + kBlock;
  std::memset(out.data() + used, 0, end - used);
  CKPT_RETURN_IF_ERROR(WriteBlocks(out.first(end), offset));
  tail_.assign(reinterpret_cast<const char*>(out.data()) + last, used - last);
  size_bytes_ = offset + used;
  return absl::OkStatus();
}

absl::Status BlockFile::WriteBlocks(std::span<const std::byte> blocks, std::uint64_t offset) {
  while (!blocks.empty()) {
    struct stat file = {};
    if (fstat(fd_, &file) != 0) return SystemError("cannot write", path_, errno);
    is_whole_ &= static_cast<std::uint64_t>(file.st_size) >= offset;
    if (!is_whole_)  // and stays short, so that everybody sees it
      return MakeError(absl::StatusCode::kInternal, "IO_ERROR", absl::StrCat(path_.string(), " has been cut"));
    const ssize_t written = pwrite(fd_, blocks.data(), blocks.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EINVAL && IsDirect(fd_) && SetDirect(fd_, false)) {  // the disk has larger blocks
      TellIndirect(path_);
      continue;
    }
    if (written < 0) return SystemError("cannot write", path_, errno);
    const std::size_t whole = static_cast<std::size_t>(written) / kBlock * kBlock;
    if (whole == 0) return SystemError("cannot write", path_, EIO);
    blocks = blocks.subspan(whole);
    offset += whole;
  }
  return absl::OkStatus();
}

bool BlockFile::IsWhole() {
  if (size_bytes_ == 0 || !is_whole_) return is_whole_;
  struct stat file = {};
  const bool is_short = fstat(fd_, &file) == 0 && static_cast<std::uint64_t>(file.st_size) < size_bytes_;
  is_whole_ = !is_short && HasName(fd_, path_).value_or(true);  // what cannot be looked at is not known to be lost
  return is_whole_;
}

absl::Status BlockFile::Sync() {
  return fdatasync(fd_) == 0 ? absl::OkStatus() : SystemError("cannot write", path_, errno);
}

}  // namespace ckpt::storage
