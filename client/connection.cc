#include "client/connection.h"

#include <grpc/grpc.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <charconv>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::client {
namespace {

constexpr int kMiB = 1 << 20;

bool IsHostAndPort(std::string_view address) {
  const std::size_t colon = address.rfind(':');
  if (colon == address.npos || colon == 0) return false;
  const std::string_view host = address.substr(0, colon);
  const std::string_view port = address.substr(colon + 1);
  // Without brackets an IPv6 address's last group would be taken for the port; '/' starts a URI's path.
  if (host.find_first_of("/ ") != host.npos ||
      (host.find(':') != host.npos && (host.front() != '[' || host.back() != ']')))
    return false;
  unsigned number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  return error == std::errc() && end == port.data() + port.size() && number >= 1 && number <= 65535;
}

// What gRPC receives is allocated and freed, a few MiB at a time. glibc gives memory that becomes free at the end of a
// heap back to the kernel, and every page of it is then made anew, unless the process has once freed a block of some
// size: from then on it keeps up to twice as much. Any process that frees a tensor of 32 MiB has done so; see
// docs/adr/0012-freed-memory.md. Other allocators, and a host that has set glibc's thresholds itself, do not mind.
void FreeALargeBlock() {
  constexpr std::size_t kLargest = (std::size_t{32} << 20) - (std::size_t{64} << 10);  // that glibc takes notice of
  [[maybe_unused]] static const bool once = [] {
    void* volatile block = std::malloc(kLargest);  // volatile: else the compiler leaves both calls out
    std::free(block);
    return true;
  }();
}

// The last channel's end would shut gRPC down, which may wait 10 s for a thread of its own that polls.
void KeepGrpc() {
  [[maybe_unused]] static const bool once = [] {
    grpc_init();
    return true;
  }();
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address) {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kMiB);  // the default of 16 KiB costs 10 to 20 % of the throughput
  args.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 4 * kMiB);
  args.SetMaxReceiveMessageSize(8 * kMiB);
  args.SetMaxSendMessageSize(-1);                      // the server says what it takes
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a connection of its own
  // gRPC's own back-off would hold up ours.
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 5000);  // how long one attempt to connect may take
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // A peer that vanished without a word is noticed while a call is under way.
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20000);
  args.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 0);
  args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args);
}

}  // namespace

Connection::Connection(ConnectOptions connect_options)
    : options(std::move(connect_options)),
      channel(MakeChannel(options.address)),
      raw(channel),
      service(v1::CheckpointService::NewStub(channel)) {}

absl::StatusOr<std::shared_ptr<Connection>> Connection::Open(ConnectOptions options) {
  if (!IsHostAndPort(options.address))
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_ADDRESS",
                     absl::StrCat("the server's address must be HOST:PORT, not ", options.address));
  KeepGrpc();
  FreeALargeBlock();
  return std::make_shared<Connection>(std::move(options));
}

}  // namespace ckpt::client
