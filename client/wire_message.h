// Messages of the two streams as raw buffers, so that payload is never copied into or out of a protobuf message.
#pragma once

#include <google/protobuf/message_lite.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/digest.h"
#include "base/mutex.h"
#include "ckpt/v1/service.pb.h"

namespace ckpt::client {

// Counts the slices that lend the caller's memory to gRPC. Must outlive them. Thread-safe.
class LentMemory {
 public:
  // Waits for all to have come back.
  ~LentMemory() { WaitForAll(); }

  // A slice over the bytes, which stay where they are and as they are until it has come back.
  grpc::Slice Lend(Bytes bytes) CKPT_EXCLUDES(mutex_);

  void WaitForAll() CKPT_EXCLUDES(mutex_);

 private:
  void GiveBack() CKPT_EXCLUDES(mutex_);

  Mutex mutex_;
  CondVar none_lent_;
  std::uint64_t lent_ CKPT_GUARDED_BY(mutex_) = 0;
};

grpc::ByteBuffer EncodeMessage(const google::protobuf::MessageLite& message);

// Internal (BAD_MESSAGE) if the buffer is no such message.
absl::Status DecodeMessage(const grpc::ByteBuffer& buffer, google::protobuf::MessageLite& message);

// A SaveRequest with a ChunkUpload.
grpc::ByteBuffer EncodeChunkUpload(const Fingerprint& fingerprint, grpc::Slice payload);

// A ChunkDownload whose payload is still where gRPC put it: valid as long as the buffer it was found in.
struct ChunkPieces {
  std::uint64_t tensor = 0;
  std::uint64_t index = 0;
  std::vector<Bytes> payload;
};

// The ChunkDownload in an encoded RestoreResponse given in pieces; nullopt if it holds another message. Takes fields in
// any order and skips unknown ones. Internal (BAD_MESSAGE) if it is malformed.
absl::StatusOr<std::optional<ChunkPieces>> FindChunkDownload(std::span<const Bytes> encoded);

// One received RestoreResponse: a chunk in pieces, or another message.
class RestoreMessage {
 public:
  // Internal (BAD_MESSAGE) if the buffer is no RestoreResponse.
  static absl::StatusOr<RestoreMessage> Parse(const grpc::ByteBuffer& buffer);

  // Null unless it is a chunk.
  [[nodiscard]] const ChunkPieces* chunk() const { return chunk_.has_value() ? &*chunk_ : nullptr; }
  // When it is no chunk.
  [[nodiscard]] v1::RestoreResponse& message() { return message_; }

 private:
  std::vector<grpc::Slice> slices_;  // what the pieces point into
  std::optional<ChunkPieces> chunk_;
  v1::RestoreResponse message_;
};

}  // namespace ckpt::client
