#include "client/formats/written_pieces.h"

#include <zlib.h>

#include <algorithm>

namespace ckpt::formats {

void WrittenPieces::Add(std::uint64_t offset_bytes, std::uint64_t size_bytes, std::uint32_t crc32) {
  if (size_bytes == 0) return;
  const auto [it, added] = pieces_.try_emplace(offset_bytes, Piece{size_bytes, crc32});
  if (!added && it->second.size_bytes <= size_bytes) it->second = {size_bytes, crc32};
}

bool WrittenPieces::Cover(std::uint64_t size_bytes) const {
  std::uint64_t end = 0;
  for (const auto& [offset, piece] : pieces_) {
    if (offset > end) return false;
    end = std::max(end, offset + piece.size_bytes);
  }
  return end >= size_bytes;
}

std::optional<std::uint32_t> WrittenPieces::Crc32() const {
  std::uint64_t end = 0;
  uLong crc = 0;
  for (const auto& [offset, piece] : pieces_) {
    if (offset != end) return std::nullopt;
    crc = crc32_combine64(crc, piece.crc32, static_cast<z_off64_t>(piece.size_bytes));
    end = offset + piece.size_bytes;
  }
  return static_cast<std::uint32_t>(crc);
}

}  // namespace ckpt::formats
