// A client's connection, which its open saves and restores share.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/generic/generic_stub.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "ckpt/client.h"
#include "ckpt/v1/service.grpc.pb.h"
#include "client/chunk_memory.h"

namespace ckpt::client {

// Thread-safe.
struct Connection {
  // InvalidArgument (BAD_ADDRESS).
  static absl::StatusOr<std::shared_ptr<Connection>> Open(ConnectOptions options);

  explicit Connection(ConnectOptions connect_options);

  const ConnectOptions options;
  const std::shared_ptr<grpc::Channel> channel;  // shared by the two below
  grpc::GenericStub raw;                         // for the streams with payload
  const std::unique_ptr<v1::CheckpointService::StubInterface> service;
  ChunkMemory memory;
};

}  // namespace ckpt::client
