// Keeps book of the pieces in which something arrives.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

namespace ckpt::formats {

// The pieces of one range of bytes, in any order; one may come again. Not thread-safe.
class WrittenPieces {
 public:
  void Add(std::uint64_t offset_bytes, std::uint64_t size_bytes, std::uint32_t crc32);

  // True when every byte up to size_bytes has come.
  [[nodiscard]] bool Cover(std::uint64_t size_bytes) const;

  // The CRC-32 of all bytes, which Cover. Nothing when pieces overlap: then it cannot be told from theirs.
  [[nodiscard]] std::optional<std::uint32_t> Crc32() const;

 private:
  struct Piece {
    std::uint64_t size_bytes;
    std::uint32_t crc32;
  };
  std::map<std::uint64_t, Piece> pieces_;  // by offset
};

}  // namespace ckpt::formats
