#include "server/server.h"

#include <arpa/inet.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::server {
namespace {

// See docs/adr/0010-http2-frames.md.
constexpr int kFrameBytes = 1 << 20;
// What a client may send ahead of what its stream has taken. gRPC's own estimate grows with the time that messages wait
// here, to tens of MiB a stream when many send at once.
constexpr int kWindowBytes = 2 << 20;
// For reads that run when the server stops.
constexpr std::chrono::milliseconds kReadGrace{1000};
constexpr int kKeepaliveMs = 20'000;
constexpr int kKeepaliveTimeoutMs = 10'000;

// HOST and PORT of HOST:PORT, [HOST]:PORT.
absl::StatusOr<std::pair<std::string, std::string>> SplitAddress(const std::string& address) {
  const std::size_t colon = address.rfind(':');
  const std::string_view port =
      std::string_view(address).substr(colon == std::string::npos ? address.size() : colon + 1);
  std::uint16_t number = 0;  // gRPC would take a larger one modulo 65536
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (colon == 0 || error != std::errc() || end != port.data() + port.size())
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_ADDRESS",
                     absl::StrCat("'", address, "' is no HOST:PORT to listen on"));
  return std::pair(address.substr(0, colon), std::string(port));
}

// A name that only begins like an address is none: it may resolve to anything.
bool IsLoopback(const std::string& host) {
  in_addr address{};
  if (inet_pton(AF_INET, host.c_str(), &address) == 1) return ntohl(address.s_addr) >> 24 == 127;
  return host == "localhost" || host == "[::1]";
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerOptions& options) {
  CKPT_ASSIGN_OR_RETURN(const auto host_port, SplitAddress(options.listen));
  if (!IsLoopback(host_port.first) && !options.insecure)
    return MakeError(absl::StatusCode::kInvalidArgument, "NOT_LOOPBACK",
                     absl::StrCat(options.listen,
                                  " can be reached from outside, and nothing is encrypted or asks who calls; "
                                  "listen on 127.0.0.1, or say --insecure if the network is yours alone"));
  auto out = std::unique_ptr<Server>(new Server);
  CKPT_ASSIGN_OR_RETURN(out->store_, storage::Store::Open(options.store));
  out->service_ = std::make_unique<CheckpointService>(*out->store_, options.max_streams, options.store.lease);

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(options.listen, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(out->service_.get());
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kFrameBytes);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kWindowBytes);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, kKeepaliveMs / 4);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a second server on the address is an error
  out->server_ = builder.BuildAndStart();
  if (out->server_ == nullptr || port == 0)
    return MakeError(absl::StatusCode::kUnavailable, "ADDRESS_IN_USE",
                     absl::StrCat("cannot listen on ", options.listen,
                                  ": another server is there, the name is no address of this machine, or the port is "
                                  "not for this user"));
  out->server_->GetHealthCheckService()->SetServingStatus(v1::CheckpointService::service_full_name(), true);
  out->address_ = absl::StrCat(host_port.first, ":", port);
  return out;
}

void Server::Shutdown(std::chrono::milliseconds grace) {
  server_->GetHealthCheckService()->SetServingStatus(false);
  service_->Stop(grace);
  // gRPC would wait for connections, too, that a paused client does not close.
  server_->Shutdown(std::chrono::system_clock::now() + std::min(grace, kReadGrace));
  server_->Wait();
}

}  // namespace ckpt::server
