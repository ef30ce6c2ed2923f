#include "client/grpc_status.h"

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::client {

absl::Status FromGrpc(const grpc::Status& status, const grpc::ClientContext& context) {
  if (status.ok()) return absl::OkStatus();
  const auto& trailers = context.GetServerTrailingMetadata();
  if (const auto it = trailers.find("ckpt-reason"); it != trailers.end())
    return MakeError(static_cast<absl::StatusCode>(status.error_code()), {it->second.data(), it->second.size()},
                     status.error_message());
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
    case grpc::StatusCode::CANCELLED:  // a server that is shut down ends its streams so
    case grpc::StatusCode::INTERNAL:   // reset streams
    case grpc::StatusCode::UNKNOWN:    // "Stream removed"
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return MakeError(absl::StatusCode::kUnavailable, "SERVER_UNREACHABLE", status.error_message());
    case grpc::StatusCode::UNIMPLEMENTED:
      return MakeError(absl::StatusCode::kUnimplemented, "PROTOCOL",
                       absl::StrCat("the server does not know this call: is it a ckptd of this version? (",
                                    status.error_message(), ")"));
    default: return MakeError(static_cast<absl::StatusCode>(status.error_code()), "PROTOCOL", status.error_message());
  }
}

}  // namespace ckpt::client
