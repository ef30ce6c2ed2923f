#include "server/chunk_message.h"

#include <grpcpp/support/proto_buffer_reader.h>

#include <memory>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/wire_reader.h"
#include "storage/pack_record.h"

namespace ckpt::server {
namespace {

constexpr std::uint64_t kBytesType = 2;

constexpr std::uint64_t BytesTag(int field) { return static_cast<std::uint64_t>(field) << 3 | kBytesType; }

// A payload that is small, or a small part of its message, is copied out of what was received: else a client could make
// a batch of small chunks hold many times its size.
constexpr std::uint64_t kCopiedBytes = 64U << 10;

// The chunk in a message that has just that field. nullopt for any other message: the ordinary parser takes it.
std::optional<UploadedChunk> FindChunk(const std::shared_ptr<const std::vector<grpc::Slice>>& slices) {
  std::vector<Bytes> pieces;
  for (const grpc::Slice& slice : *slices)
    pieces.push_back({reinterpret_cast<const std::byte*>(slice.begin()), slice.size()});
  WireReader message(pieces);
  std::optional<WireField> chunk = message.Next();
  if (!chunk.has_value() || chunk->number != v1::SaveRequest::kChunkFieldNumber ||
      chunk->type != WireField::Type::kBytes || message.Next().has_value() || !message.ok())
    return std::nullopt;
  UploadedChunk out;
  WireReader fields(chunk->bytes);
  while (std::optional<WireField> field = fields.Next()) {
    if (field->type != WireField::Type::kBytes) continue;
    if (field->number == v1::ChunkUpload::kPayloadFieldNumber) out.payload.pieces = std::move(field->bytes);
    if (field->number == v1::ChunkUpload::kFingerprintFieldNumber) out.fingerprint = Join(field->bytes);
  }
  if (!fields.ok()) return std::nullopt;
  std::uint64_t received = 0;
  for (const Bytes piece : pieces) received += piece.size();
  const std::uint64_t size = out.payload.size();
  if (size < kCopiedBytes || size < received / 2) {
    out.payload = storage::Payload::Of(Join(out.payload.pieces));
  } else {
    out.payload.owner = slices;
  }
  return out;
}

}  // namespace

absl::StatusOr<ReceivedSave> ParseSave(const grpc::ByteBuffer& buffer) {
  auto slices = std::make_shared<std::vector<grpc::Slice>>();
  ReceivedSave out;
  if (!buffer.Dump(slices.get()).ok())
    return MakeError(absl::StatusCode::kInternal, "BAD_MESSAGE", "a received message cannot be read");
  out.chunk = FindChunk(slices);
  if (out.chunk.has_value()) return out;
  grpc::ByteBuffer copy = buffer;  // shares the slices
  grpc::ProtoBufferReader reader(&copy);
  if (!reader.status().ok() || !out.message.ParseFromZeroCopyStream(&reader))
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_MESSAGE", "a received message is no SaveRequest");
  return out;
}

absl::StatusOr<grpc::ByteBuffer> ReadChunkMessage(const storage::RestoreReader& reader,
                                                  const storage::ChunkToRead& chunk, bool check) {
  const std::size_t size = storage::kRecordHeaderSize + chunk.stored_length;
  const grpc::Slice record(grpc_slice_malloc(size), grpc::Slice::STEAL_REF);
  CKPT_RETURN_IF_ERROR(
      reader.Read(chunk, {reinterpret_cast<std::byte*>(const_cast<std::uint8_t*>(record.begin())), size}, check));
  std::string fields;
  AppendVarint(fields, v1::ChunkDownload::kTensorFieldNumber << 3);
  AppendVarint(fields, chunk.tensor);
  AppendVarint(fields, v1::ChunkDownload::kIndexFieldNumber << 3);
  AppendVarint(fields, chunk.index);
  AppendVarint(fields, BytesTag(v1::ChunkDownload::kPayloadFieldNumber));
  AppendVarint(fields, chunk.stored_length);
  std::string head;
  AppendVarint(head, BytesTag(v1::RestoreResponse::kChunkFieldNumber));
  AppendVarint(head, fields.size() + chunk.stored_length);
  head += fields;
  const grpc::Slice parts[] = {grpc::Slice(head), record.sub(storage::kRecordHeaderSize, size)};
  return grpc::ByteBuffer(parts, 2);
}

}  // namespace ckpt::server
