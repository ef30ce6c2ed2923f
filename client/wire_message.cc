#include "client/wire_message.h"

#include <array>
#include <limits>
#include <string>
#include <utility>

#include "base/status.h"
#include "base/wire_reader.h"

namespace ckpt::client {
namespace {

absl::Status Malformed() {
  return MakeError(absl::StatusCode::kInternal, "BAD_MESSAGE",
                   "the server sent a message that cannot be read; is it a ckptd of this version?");
}

// A ChunkDownload. False if it is malformed.
bool ReadChunk(std::span<const Bytes> encoded, ChunkPieces& chunk) {
  WireReader reader(encoded);
  while (auto field = reader.Next()) {
    if (field->number == v1::ChunkDownload::kTensorFieldNumber && field->type == WireField::Type::kVarint) {
      chunk.tensor = field->value;
    } else if (field->number == v1::ChunkDownload::kIndexFieldNumber && field->type == WireField::Type::kVarint) {
      chunk.index = field->value;
    } else if (field->number == v1::ChunkDownload::kPayloadFieldNumber && field->type == WireField::Type::kBytes) {
      chunk.payload = std::move(field->bytes);
    }
  }
  return reader.ok();
}

// Of a length-delimited field.
constexpr std::uint64_t Tag(int field) { return static_cast<std::uint64_t>(field) << 3 | 2; }

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
  std::string chunk;  // up to where the payload's bytes stand
  AppendVarint(chunk, Tag(v1::ChunkUpload::kFingerprintFieldNumber));
  AppendVarint(chunk, Fingerprint::kSize);
  chunk.append(fingerprint.view());
  AppendVarint(chunk, Tag(v1::ChunkUpload::kPayloadFieldNumber));
  AppendVarint(chunk, payload.size());

  std::string head;
  AppendVarint(head, Tag(v1::SaveRequest::kChunkFieldNumber));
  AppendVarint(head, chunk.size() + payload.size());
  head += chunk;
  const std::array<grpc::Slice, 2> slices = {grpc::Slice(head), std::move(payload)};
  return {slices.data(), slices.size()};
}

absl::StatusOr<std::optional<ChunkPieces>> FindChunkDownload(std::span<const Bytes> encoded) {
  WireReader reader(encoded);
  std::optional<ChunkPieces> chunk;
  bool other = false;
  while (const auto field = reader.Next()) {
    if (field->number != v1::RestoreResponse::kChunkFieldNumber || field->type != WireField::Type::kBytes) {
      other |= field->number < v1::RestoreResponse::kChunkFieldNumber;
      continue;
    }
    if (chunk.has_value()) return Malformed();  // protobuf would merge the two; no server sends that
    if (!ReadChunk(field->bytes, chunk.emplace())) return Malformed();
  }
  if (!reader.ok() || (chunk.has_value() && other)) return Malformed();
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
