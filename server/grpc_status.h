// The edge: errors on their way out.
#pragma once

#include <grpcpp/grpcpp.h>

#include "absl/status/status.h"

namespace ckpt::server {

// The same code and message; the reason (base/status.h) becomes the trailer `ckpt-reason`.
grpc::Status ToGrpc(const absl::Status& status, grpc::ServerContextBase& context);

}  // namespace ckpt::server
