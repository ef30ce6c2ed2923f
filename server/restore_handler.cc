#include "server/restore_handler.h"

#include <grpcpp/support/proto_buffer_reader.h>

#include <memory>
#include <optional>
#include <utility>

#include "base/status.h"
#include "server/chunk_message.h"
#include "storage/restore_reader.h"

namespace ckpt::server {
namespace {

using storage::RestoreReader;

// Who says nothing at first holds no place.
constexpr std::chrono::minutes kFirstMessage{1};
// How often a client that is sent nothing is told that the server is at work.
constexpr std::chrono::seconds kStillHere{5};

absl::Status Gone() {
  return MakeError(absl::StatusCode::kCancelled, "STREAM_ENDED", "the stream ended before all was sent; restore again");
}

// The next request; nullopt when the client has half-closed.
absl::StatusOr<std::optional<v1::RestoreRequest>> ReadRequest(
    RawStream& stream, std::chrono::milliseconds limit = std::chrono::milliseconds::max()) {
  grpc::ByteBuffer buffer;
  CKPT_ASSIGN_OR_RETURN(const bool more, stream.Next(buffer, limit));
  if (!more) return std::optional<v1::RestoreRequest>();
  v1::RestoreRequest request;
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok() || !request.ParseFromZeroCopyStream(&reader))
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_MESSAGE", "a received message is no RestoreRequest");
  return std::optional(std::move(request));
}

// The queue of the stream is the read-ahead: while the client takes one chunk the next are read. After the first
// damaged chunk nothing more is sent, but the rest is checked: all that is damaged is then known, and one save can heal
// it.
absl::Status SendPlan(const RestoreReader& reader, RawStream& stream, bool check) {
  absl::Status damage;
  auto told = std::chrono::steady_clock::now();
  for (const storage::ChunkToRead& chunk : reader.plan()) {
    absl::StatusOr<grpc::ByteBuffer> message = ReadChunkMessage(reader, chunk, check || !damage.ok());
    if (absl::IsDataLoss(message.status())) {
      damage.Update(message.status());
    } else if (!message.ok()) {
      return message.status();
    }
    bool there = !stream.broken();
    if (damage.ok()) {
      there = stream.Write(*std::move(message));
    } else if (std::chrono::steady_clock::now() - told > kStillHere) {
      there = stream.Write(Serialize(v1::RestoreResponse()));
      told = std::chrono::steady_clock::now();
    }
    if (!there) return Gone();
  }
  return damage;
}

absl::Status SendManifest(RestoreReader& reader, RawStream& stream) {
  v1::RestoreResponse header;
  *header.mutable_header() = reader.header();
  stream.Write(Serialize(header));
  while (true) {
    CKPT_ASSIGN_OR_RETURN(const std::optional<v1::RestoreResponse> part, reader.NextPart());
    if (!part.has_value()) return absl::OkStatus();
    if (!stream.Write(Serialize(*part))) return Gone();
  }
}

absl::Status ServeWants(RestoreReader& reader, RawStream& stream) {
  while (true) {
    CKPT_ASSIGN_OR_RETURN(const std::optional<v1::RestoreRequest> request, ReadRequest(stream));
    if (!request.has_value()) return absl::OkStatus();
    if (!request->has_want())
      return MakeError(absl::StatusCode::kFailedPrecondition, "OUT_OF_ORDER", "after begin a restore takes only wants");
    CKPT_RETURN_IF_ERROR(reader.PlanWant(request->want()).status());
    CKPT_RETURN_IF_ERROR(SendPlan(reader, stream, request->want().check()));
  }
}

}  // namespace

absl::Status ServeRestore(storage::Store& store, RawStream& stream) {
  CKPT_ASSIGN_OR_RETURN(const std::optional<v1::RestoreRequest> first, ReadRequest(stream, kFirstMessage));
  if (!first.has_value()) return Gone();
  if (!first->has_begin())
    return MakeError(absl::StatusCode::kFailedPrecondition, "OUT_OF_ORDER", "a restore starts with begin");
  CKPT_ASSIGN_OR_RETURN(const std::unique_ptr<RestoreReader> reader,
                        RestoreReader::Open(store, first->begin(), [&] { return stream.broken(); }));
  CKPT_RETURN_IF_ERROR(SendManifest(*reader, stream));
  v1::RestoreResponse start;
  start.mutable_start();
  if (!first->begin().wait_for_want()) {
    CKPT_ASSIGN_OR_RETURN(const std::uint64_t bytes, reader->PlanSelected());
    start.mutable_start()->set_payload_bytes(bytes);
  }
  stream.Write(Serialize(start));
  return first->begin().wait_for_want() ? ServeWants(*reader, stream) : SendPlan(*reader, stream, true);
}

}  // namespace ckpt::server
