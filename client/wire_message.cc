#include "client/wire_message.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

#include "base/status.h"

namespace ckpt::client {
namespace {

constexpr std::uint32_t kVarint = 0;
constexpr std::uint32_t kFixed64 = 1;
constexpr std::uint32_t kLengthDelimited = 2;
constexpr std::uint32_t kFixed32 = 5;
constexpr std::uint32_t kMaxTag = std::numeric_limits<std::uint32_t>::max();

// Reads the protobuf encoding of a message that lies in pieces. Every read says whether it succeeded; after a failure
// the reader is not used again.
class WireReader {
 public:
  explicit WireReader(std::span<const Bytes> pieces) : pieces_(pieces) {
    for (const Bytes piece : pieces) left_ += piece.size();
  }

  [[nodiscard]] bool AtEnd() const { return left_ == 0; }

  bool Varint(std::uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (left_ == 0) return false;
      const auto byte = static_cast<std::uint8_t>(Run(1)[0]);
      if (shift == 63 && byte > 1) return false;
      value |= static_cast<std::uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  // The next field's number and wire type.
  bool Tag(std::uint32_t& field, std::uint32_t& type) {
    std::uint64_t tag;
    if (!Varint(tag) || tag > kMaxTag) return false;
    field = static_cast<std::uint32_t>(tag >> 3);
    type = static_cast<std::uint32_t>(tag & 7);
    return field != 0;
  }

  // Narrows the reader to a length-delimited field's content; Leave widens it again, past what was not read.
  bool Enter(std::uint64_t& outer_left) {
    std::uint64_t size;
    if (!Varint(size) || size > left_) return false;
    outer_left = left_ - size;
    left_ = size;
    return true;
  }
  void Leave(std::uint64_t outer_left) {
    Skip(left_);
    left_ = outer_left;
  }

  // A length-delimited field's content, in pieces.
  bool Content(std::vector<Bytes>& out) {
    std::uint64_t size;
    if (!Varint(size) || size > left_) return false;
    out.clear();
    while (size != 0) {
      out.push_back(Run(size));
      size -= out.back().size();
    }
    return true;
  }

  // Passes over a field of this wire type. Groups, which no version of these messages has, are refused.
  bool SkipField(std::uint32_t type) {
    std::uint64_t size = 0;
    switch (type) {
      case kVarint: return Varint(size);
      case kFixed64: size = 8; break;
      case kFixed32: size = 4; break;
      case kLengthDelimited:
        if (!Varint(size)) return false;
        break;
      default: return false;
    }
    if (size > left_) return false;
    Skip(size);
    return true;
  }

 private:
  // The next bytes that lie together: at least one, at most `size`, which must be left.
  Bytes Run(std::uint64_t size) {
    while (offset_ == pieces_.front().size()) {
      pieces_ = pieces_.subspan(1);
      offset_ = 0;
    }
    const Bytes run = pieces_.front().subspan(offset_, std::min<std::uint64_t>(size, pieces_.front().size() - offset_));
    offset_ += run.size();
    left_ -= run.size();
    return run;
  }
  void Skip(std::uint64_t size) {
    while (size != 0) size -= Run(size).size();
  }

  std::span<const Bytes> pieces_;
  std::size_t offset_ = 0;  // in the first piece
  std::uint64_t left_ = 0;
};

absl::Status Malformed() {
  return MakeError(absl::StatusCode::kInternal, "BAD_MESSAGE",
                   "the server sent a message that cannot be read; is it a ckptd of this version?");
}

bool ReadChunk(WireReader& reader, ChunkPieces& chunk) {
  while (!reader.AtEnd()) {
    std::uint32_t field;
    std::uint32_t type;
    if (!reader.Tag(field, type)) return false;
    bool read;
    if (field == v1::ChunkDownload::kTensorFieldNumber && type == kVarint) {
      read = reader.Varint(chunk.tensor);
    } else if (field == v1::ChunkDownload::kIndexFieldNumber && type == kVarint) {
      read = reader.Varint(chunk.index);
    } else if (field == v1::ChunkDownload::kPayloadFieldNumber && type == kLengthDelimited) {
      read = reader.Content(chunk.payload);
    } else {
      read = reader.SkipField(type);
    }
    if (!read) return false;
  }
  return true;
}

char* PutVarint(char* out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) *out++ = static_cast<char>(value | 0x80);
  *out++ = static_cast<char>(value);
  return out;
}

constexpr char TagByte(int field) { return static_cast<char>(field << 3 | static_cast<int>(kLengthDelimited)); }

}  // namespace

grpc::Slice LentMemory::Lend(Bytes bytes) {
  {
    const MutexLock lock(mutex_);
    ++lent_;
  }
  // gRPC only reads it.
  return {const_cast<std::byte*>(bytes.data()), bytes.size(),
          [](void* lender) { static_cast<LentMemory*>(lender)->GiveBack(); }, this};
}

void LentMemory::GiveBack() {
  const MutexLock lock(mutex_);
  if (--lent_ == 0) none_lent_.NotifyAll();
}

void LentMemory::WaitForAll() {
  const MutexLock lock(mutex_);
  while (lent_ != 0) none_lent_.Wait(mutex_);
}

grpc::ByteBuffer EncodeMessage(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.ByteSizeLong());
  message.SerializeWithCachedSizesToArray(const_cast<std::uint8_t*>(slice.begin()));
  return {&slice, 1};
}

absl::Status DecodeMessage(const grpc::ByteBuffer& buffer, google::protobuf::MessageLite& message) {
  grpc::Slice slice;
  if (!buffer.DumpToSingleSlice(&slice).ok() || slice.size() > std::numeric_limits<int>::max() ||
      !message.ParseFromArray(slice.begin(), static_cast<int>(slice.size())))
    return Malformed();
  return absl::OkStatus();
}

grpc::ByteBuffer EncodeChunkUpload(const Fingerprint& fingerprint, grpc::Slice payload) {
  std::array<char, 16> size;
  const auto size_bytes = static_cast<std::size_t>(PutVarint(size.data(), payload.size()) - size.data());
  const std::size_t chunk_bytes = 2 + Fingerprint::kSize + 1 + size_bytes + payload.size();

  std::array<char, 64> head;
  char* out = head.data();
  *out++ = TagByte(v1::SaveRequest::kChunkFieldNumber);
  out = PutVarint(out, chunk_bytes);
  *out++ = TagByte(v1::ChunkUpload::kFingerprintFieldNumber);
  *out++ = static_cast<char>(Fingerprint::kSize);
  out = std::copy_n(fingerprint.view().data(), Fingerprint::kSize, out);
  *out++ = TagByte(v1::ChunkUpload::kPayloadFieldNumber);
  out = std::copy_n(size.data(), size_bytes, out);
  const std::array<grpc::Slice, 2> slices = {
      grpc::Slice(head.data(), static_cast<std::size_t>(out - head.data())), std::move(payload)};
  return {slices.data(), slices.size()};
}

absl::StatusOr<std::optional<ChunkPieces>> FindChunkDownload(std::span<const Bytes> encoded) {
  WireReader reader(encoded);
  std::optional<ChunkPieces> chunk;
  bool other = false;
  while (!reader.AtEnd()) {
    std::uint32_t field;
    std::uint32_t type;
    if (!reader.Tag(field, type)) return Malformed();
    if (field == v1::RestoreResponse::kChunkFieldNumber && type == kLengthDelimited) {
      if (chunk.has_value()) return Malformed();  // protobuf would merge the two; no server sends that
      std::uint64_t outer_left;
      if (!reader.Enter(outer_left) || !ReadChunk(reader, chunk.emplace())) return Malformed();
      reader.Leave(outer_left);
    } else {
      other |= field < v1::RestoreResponse::kChunkFieldNumber;
      if (!reader.SkipField(type)) return Malformed();
    }
  }
  if (chunk.has_value() && other) return Malformed();  // two messages of a oneof
  return chunk;
}

absl::StatusOr<RestoreMessage> RestoreMessage::Parse(const grpc::ByteBuffer& buffer) {
  RestoreMessage out;
  if (!buffer.Dump(&out.slices_).ok()) return Malformed();
  std::vector<Bytes> pieces;
  pieces.reserve(out.slices_.size());
  for (const grpc::Slice& slice : out.slices_) pieces.push_back(std::as_bytes(std::span(slice.begin(), slice.size())));
  CKPT_ASSIGN_OR_RETURN(out.chunk_, FindChunkDownload(pieces));
  if (!out.chunk_.has_value()) CKPT_RETURN_IF_ERROR(DecodeMessage(buffer, out.message_));
  return out;
}

}  // namespace ckpt::client
