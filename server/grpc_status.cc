#include "server/grpc_status.h"

#include <string>

#include "base/status.h"

namespace ckpt::server {

grpc::Status ToGrpc(const absl::Status& status, grpc::ServerContextBase& context) {
  if (status.ok()) return grpc::Status::OK;
  const std::string reason = ReasonOf(status);
  if (!reason.empty()) context.AddTrailingMetadata("ckpt-reason", reason);
  // The codes are the same numbers: both are those of the gRPC protocol.
  return {static_cast<grpc::StatusCode>(status.raw_code()), std::string(status.message())};
}

}  // namespace ckpt::server
