// The server: a store, served on an address.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/checkpoint_service.h"
#include "storage/store.h"

namespace ckpt::server {

struct ServerOptions {
  storage::StoreOptions store;

  // HOST:PORT; port 0 takes a free one.
  std::string listen = "127.0.0.1:7070";

  // Serve on other addresses than loopback, to anybody and unencrypted.
  bool insecure = false;

  // Saves and restores at once.
  int max_streams = 256;
};

class Server {
 public:
  // Opens the store and serves it. Errors: as Store::Open; InvalidArgument NOT_LOOPBACK; Unavailable ADDRESS_IN_USE.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const ServerOptions& options);

  // host:port that it listens on.
  [[nodiscard]] const std::string& address() const { return address_; }

  // Takes no new calls, lets those that run finish for so long, then cuts them off.
  void Shutdown(std::chrono::milliseconds grace);

 private:
  Server() = default;

  std::unique_ptr<storage::Store> store_;
  std::unique_ptr<CheckpointService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace ckpt::server
