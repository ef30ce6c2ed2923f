#include "base/wire_reader.h"

#include <algorithm>

namespace ckpt {
namespace {

// How long a number may be drawn out. Of tags and lengths protobuf takes no more than 32 bits need.
constexpr int kMaxTagBytes = 5;
constexpr int kMaxVarintBytes = 10;

}  // namespace

WireReader::WireReader(std::span<const Bytes> pieces) {
  for (const Bytes piece : pieces) {
    if (piece.empty()) continue;
    pieces_.push_back(piece);
    left_ += piece.size();
  }
}

std::optional<std::uint64_t> WireReader::Varint(int max_bytes) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 7 * max_bytes && left_ != 0; shift += 7) {
    Bytes& piece = pieces_[piece_];
    const auto byte = static_cast<std::uint8_t>(piece.front());
    piece = piece.subspan(1);
    --left_;
    if (piece.empty()) ++piece_;
    value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return value;
  }
  return std::nullopt;
}

std::optional<std::vector<Bytes>> WireReader::Take(std::uint64_t size) {
  if (size > left_) return std::nullopt;
  left_ -= size;
  std::vector<Bytes> out;
  while (size != 0) {
    Bytes& piece = pieces_[piece_];
    const std::size_t part = std::min<std::uint64_t>(size, piece.size());
    out.push_back(piece.first(part));
    piece = piece.subspan(part);
    size -= part;
    if (piece.empty()) ++piece_;
  }
  return out;
}

std::optional<WireField> WireReader::Next() {
  if (left_ == 0 || !ok_) return std::nullopt;
  ok_ = false;
  const auto tag = Varint(kMaxTagBytes);
  if (!tag.has_value()) return std::nullopt;
  WireField field;
  field.number = static_cast<std::uint32_t>(*tag) >> 3;  // protobuf, too, drops what is beyond 32 bits
  if (field.number == 0) return std::nullopt;
  std::uint64_t size = 0;
  switch (*tag & 7) {
    case 0: {
      const auto value = Varint(kMaxVarintBytes);
      if (!value.has_value()) return std::nullopt;
      field.value = *value;
      ok_ = true;
      return field;
    }
    case 1:
      field.type = WireField::Type::kFixed64;
      size = 8;
      break;
    case 2: {
      const auto length = Varint(kMaxTagBytes);
      if (!length.has_value()) return std::nullopt;
      field.type = WireField::Type::kBytes;
      size = *length;
      break;
    }
    case 5:
      field.type = WireField::Type::kFixed32;
      size = 4;
      break;
    default: return std::nullopt;
  }
  auto bytes = Take(size);
  if (!bytes.has_value()) return std::nullopt;
  field.bytes = *std::move(bytes);
  ok_ = true;
  return field;
}

std::string Join(std::span<const Bytes> pieces) {
  std::string out;
  for (const Bytes piece : pieces) out.append(AsChars(piece));
  return out;
}

void AppendVarint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

}  // namespace ckpt
