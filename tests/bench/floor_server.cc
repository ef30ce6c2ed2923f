// The floor: the least that any checkpoint server must do, and nothing else. A client streams 1 MiB messages over gRPC,
// a fingerprint of each beside it; the server hashes them once and writes them durably into new files, one for each
// stream. Restoring, the server reads the files and the client checks the fingerprints.
//
//   floor_server DIR ADDRESS_FILE     serves until its standard input ends
//
// It uses none of ckptd's code but the two hash functions. It has jemalloc, as ckptd does: that is the server's own
// choice. floor_client has glibc's malloc, because a client is a part of somebody's process, and keeps freed memory as
// ckptd's client does. To write on a thread of its own while the next messages are hashed made no difference.
#include <fcntl.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "tests/bench/floor.h"

namespace ckpt::bench {
namespace {

constexpr std::size_t kSyncBytes = 16 << 20;  // as much as a batch of ckptd has at most

class Call final : public Stream<grpc::ServerGenericBidiReactor> {
 public:
  Call() { StartReading(); }
  void Close() {
    Drain();
    Finish(grpc::Status::OK);
  }

 private:
  void OnDone() override { delete this; }
};

// A new file that is written past the page cache, which costs less, where its file system has that.
int Create(const std::string& file) {
  const int fd = open(file.c_str(), O_WRONLY | O_CREAT | O_EXCL, 0644);
  CKPT_CHECK(fd >= 0);
  (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_DIRECT);
  return fd;
}

// Writes a message from an aligned buffer of its size.
void Write(int fd, const std::vector<Bytes>& pieces, std::byte* buffer) {
  std::size_t size = 0;
  for (const Bytes piece : pieces) {
    CKPT_CHECK(piece.size() <= kMessage - size);
    std::copy(piece.begin(), piece.end(), buffer + size);
    size += piece.size();
  }
  CKPT_CHECK(size == kMessage && write(fd, buffer, size) == static_cast<ssize_t>(size));
}

// The payload of the next message; nullopt after the last.
std::optional<Received> NextPayload(Call& call) {
  grpc::ByteBuffer message;
  if (!call.Read(message)) return std::nullopt;
  Received received(message);
  for (std::size_t i = 0, skip = Fingerprint::kSize; skip != 0; ++i) {
    const std::size_t part = std::min(skip, received.pieces[i].size());
    received.pieces[i] = received.pieces[i].subspan(part);
    skip -= part;
  }
  return received;
}

// Hashes and writes what the client sends, two messages at a time.
void Receive(Call& call, const std::string& file) {
  const int fd = Create(file);
  const std::unique_ptr<std::byte, decltype(&std::free)> buffer(
      static_cast<std::byte*>(std::aligned_alloc(4096, kMessage)), &std::free);
  std::size_t unsynced = 0;
  while (const std::optional<Received> first = NextPayload(call)) {
    const std::optional<Received> second = NextPayload(call);
    [[maybe_unused]] const volatile std::uint8_t digest =
        second.has_value() ? Sha256Pair(first->pieces, second->pieces)[0].bytes[0] : Sha256(first->pieces).bytes[0];
    for (const auto* const received : {&first, &second}) {
      if (!received->has_value()) continue;
      Write(fd, (*received)->pieces, buffer.get());
      unsynced += kMessage;
    }
    if (unsynced >= kSyncBytes) CKPT_CHECK(fdatasync(fd) == 0);
    unsynced %= kSyncBytes;
  }
  CKPT_CHECK(fdatasync(fd) == 0);
  close(fd);
}

void Send(Call& call, const std::string& file) {
  const int fd = open(file.c_str(), O_RDONLY);
  CKPT_CHECK(fd >= 0);
  while (true) {
    grpc::Slice slice(grpc_slice_malloc(kMessage), grpc::Slice::STEAL_REF);
    const ssize_t got = read(fd, const_cast<std::uint8_t*>(slice.begin()), kMessage);
    CKPT_CHECK(got == 0 || got == static_cast<ssize_t>(kMessage));
    if (got == 0 || !call.Write(grpc::ByteBuffer(&slice, 1))) break;
  }
  close(fd);
}

class Service final : public grpc::CallbackGenericService {
 public:
  explicit Service(std::string dir) : dir_(std::move(dir)) {}

  // "/save/NAME" and "/restore/NAME".
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override {
    const std::string& method = context->method();
    const std::size_t slash = method.rfind('/');
    auto* const call = new Call;
    std::thread([call, save = method.substr(0, slash) == "/save", file = dir_ + method.substr(slash)] {
      save ? Receive(*call, file) : Send(*call, file);
      call->Close();
    }).detach();
    return call;
  }

 private:
  const std::string dir_;
};

int Serve(const std::string& dir, const std::string& address_file) {
  Service service(dir);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kFrame);
  builder.SetMaxReceiveMessageSize(8 << 20);
  builder.RegisterCallbackGenericService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  CKPT_CHECK(server != nullptr);
  std::ofstream(address_file + ".tmp") << "127.0.0.1:" << port;
  CKPT_CHECK(rename((address_file + ".tmp").c_str(), address_file.c_str()) == 0);
  std::cin.get();
  server->Shutdown();
  return 0;
}

}  // namespace
}  // namespace ckpt::bench

int main(int argc, char** argv) {
  if (argc == 3) return ckpt::bench::Serve(argv[1], argv[2]);
  std::fprintf(stderr, "usage: floor_server DIR ADDRESS_FILE\n");
  return 2;
}
