// One Restore call, driven from one thread.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/v1/service.pb.h"
#include "client/connection.h"
#include "client/raw_stream.h"
#include "client/wire_message.h"

namespace ckpt::client {

class RestoreStream {
 public:
  // Opens the call and gives each message of the description, PayloadStart the last, to `take`, whose error ends it.
  static absl::StatusOr<std::unique_ptr<RestoreStream>> Open(
      Connection& connection, v1::RestoreBegin begin, const std::function<absl::Status(v1::RestoreResponse)>& take);

  // Sends the wants that `next_want` gives, until it gives an empty one, and each chunk that comes to `take`, until
  // all have come. After an error the stream is of no more use.
  absl::Status Fetch(const std::function<v1::Want()>& next_want,
                     const std::function<absl::Status(const ChunkPieces&)>& take);

 private:
  explicit RestoreStream(Connection& connection)
      : stream_(connection.raw, "/ckpt.v1.CheckpointService/Restore", connection.options) {}

  RawStream stream_;
};

}  // namespace ckpt::client
