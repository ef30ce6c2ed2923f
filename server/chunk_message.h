// The two messages that carry payload, read and written around it instead of through a message object.
#pragma once

#include <grpcpp/grpcpp.h>

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "ckpt/v1/service.pb.h"
#include "storage/payload.h"
#include "storage/restore_reader.h"

namespace ckpt::server {

// A ChunkUpload whose payload lies in the slices that were received.
struct UploadedChunk {
  storage::Payload payload;
  std::string fingerprint;
};

// A SaveRequest: the chunk, if it is one, else the message.
struct ReceivedSave {
  std::optional<UploadedChunk> chunk;
  v1::SaveRequest message;
};

// InvalidArgument BAD_MESSAGE when it is no SaveRequest. Fields may come in any order, unknown ones are skipped.
absl::StatusOr<ReceivedSave> ParseSave(const grpc::ByteBuffer& buffer);

// Reads a chunk of a restore, and makes its RestoreResponse without copying the payload. Errors, and `check`: as of
// RestoreReader::Read.
absl::StatusOr<grpc::ByteBuffer> ReadChunkMessage(const storage::RestoreReader& reader,
                                                  const storage::ChunkToRead& chunk, bool check);

}  // namespace ckpt::server
