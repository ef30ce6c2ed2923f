#include "server/grpc_status.h"

#include <string>
#include <string_view>

#include "base/status.h"

namespace ckpt::server {
namespace {

// The message travels in a trailer, three bytes for each that is no plain ASCII, and trailers of more than 8 KiB are
// dropped with all that is in them.
constexpr std::size_t kMaxMessage = 2048;

std::string Shortened(std::string_view message) {
  if (message.size() <= kMaxMessage) return std::string(message);
  std::size_t end = kMaxMessage;
  while (end != 0 && (static_cast<unsigned char>(message[end]) & 0xc0) == 0x80) --end;  // not within a character
  return std::string(message.substr(0, end)) + "…";
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status, grpc::ServerContextBase& context) {
  if (status.ok()) return grpc::Status::OK;
  const std::string reason = ReasonOf(status);
  if (!reason.empty()) context.AddTrailingMetadata("ckpt-reason", reason);
  // The codes are the same numbers: both are those of the gRPC protocol.
  return {static_cast<grpc::StatusCode>(status.raw_code()),
          Shortened({status.message().data(), status.message().size()})};
}

}  // namespace ckpt::server
