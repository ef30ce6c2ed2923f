// The one place where gRPC's errors become ours.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace ckpt::client {

// The outcome of a finished call, with the server's reason (the trailer `ckpt-reason`) where it gave one. What the
// transport says of itself (reset streams, closed sockets, a peer that is no ckptd) has none: what may be a connection
// that broke becomes Unavailable.
absl::Status FromGrpc(const grpc::Status& status, const grpc::ClientContext& context);

}  // namespace ckpt::client
