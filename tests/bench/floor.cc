// The floor: the least that any checkpoint server must do, and nothing else. A client streams 1 MiB messages over gRPC,
// a fingerprint of each beside it; the server hashes them once and writes them durably into new files. Restoring, the
// server reads the files and the client checks the fingerprints.
//
//   floor serve DIR ADDRESS_FILE     until its standard input ends
//   floor save ADDRESS MIB           prints seconds
//   floor restore ADDRESS MIB        prints seconds
#include <fcntl.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/digest.h"
#include "base/status.h"
#include "server/raw_stream.h"
#include "tests/bench/bench_state.h"

namespace ckpt::bench {
namespace {

constexpr std::size_t kMessage = 1 << 20;
constexpr std::size_t kSyncBytes = 8 << 20;

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
  return arguments;
}

Bytes BytesOf(const grpc::Slice& slice) { return {reinterpret_cast<const std::byte*>(slice.begin()), slice.size()}; }

// Hashes and writes what the client sends, on a thread beside the one that receives.
void Receive(server::RawStream& stream, const std::string& dir) {
  static int number = 0;
  const int fd = open((dir + "/" + std::to_string(number++)).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  CKPT_CHECK(fd >= 0);
  std::size_t unsynced = 0;
  grpc::ByteBuffer message;
  while (stream.Read(message, std::chrono::minutes(1)) == server::RawStream::Event::kMessage) {
    std::vector<grpc::Slice> slices;
    CKPT_CHECK(message.Dump(&slices).ok());
    std::vector<Bytes> pieces;
    for (const grpc::Slice& slice : slices) pieces.push_back(BytesOf(slice));
    for (std::size_t i = 0, skip = Fingerprint::kSize; skip != 0; ++i) {
      const std::size_t part = std::min(skip, pieces[i].size());
      pieces[i] = pieces[i].subspan(part);
      skip -= part;
    }
    [[maybe_unused]] const volatile std::uint8_t digest = Sha256(pieces).bytes[0];
    for (const Bytes piece : pieces)
      CKPT_CHECK(write(fd, piece.data(), piece.size()) == static_cast<ssize_t>(piece.size()));
    unsynced += kMessage;
    if (unsynced >= kSyncBytes) CKPT_CHECK(fdatasync(fd) == 0);
    unsynced %= kSyncBytes;
  }
  CKPT_CHECK(fdatasync(fd) == 0);
  close(fd);
}

// Sends the first file.
void Send(server::RawStream& stream, const std::string& dir) {
  const int fd = open((dir + "/0").c_str(), O_RDONLY);
  CKPT_CHECK(fd >= 0);
  while (true) {
    const grpc::Slice slice(grpc_slice_malloc(kMessage), grpc::Slice::STEAL_REF);
    const ssize_t got = read(fd, const_cast<std::uint8_t*>(slice.begin()), kMessage);
    CKPT_CHECK(got >= 0);
    if (got == 0 || !stream.Write(grpc::ByteBuffer(&slice, 1))) break;
  }
  close(fd);
}

class Service final : public grpc::CallbackGenericService {
 public:
  explicit Service(std::string dir) : dir_(std::move(dir)) {}
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* context) override {
    const std::shared_ptr<server::RawStream> stream = server::RawStream::Start(context, patience_);
    std::thread([stream, save = context->method() == "/floor/save", dir = dir_] {
      save ? Receive(*stream, dir) : Send(*stream, dir);
      stream->Close(absl::OkStatus());
    }).detach();
    return stream.get();
  }

 private:
  const std::string dir_;
  const server::Patience patience_{std::chrono::hours(1)};
};

int Serve(const std::string& dir, const std::string& address_file) {
  Service service(dir);
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, 1 << 20);
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

// Waits for one event of the call.
bool Wait(grpc::CompletionQueue& queue) {
  void* tag = nullptr;
  bool ok = false;
  return queue.Next(&tag, &ok) && ok;
}

int Run(const std::string& address, const std::string& method, std::size_t mib) {
  const std::vector<std::string> data = method == "/floor/save" ? MakeTensors(mib) : std::vector<std::string>();
  grpc::GenericStub stub(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), Arguments()));
  const auto start = std::chrono::steady_clock::now();
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  const auto call = stub.PrepareCall(&context, method, &queue);
  call->StartCall(nullptr);
  CKPT_CHECK(Wait(queue));
  for (const std::string& tensor : data) {
    for (std::size_t at = 0; at < tensor.size(); at += kMessage) {
      const std::string_view chunk = std::string_view(tensor).substr(at, kMessage);
      const Fingerprint fingerprint = Xxh3(chunk);
      const grpc::Slice slices[] = {grpc::Slice(fingerprint.bytes.data(), Fingerprint::kSize),
                                    grpc::Slice(chunk.data(), chunk.size(), grpc::Slice::STATIC_SLICE)};
      if (at != 0 || &tensor != &data.front()) CKPT_CHECK(Wait(queue));
      call->Write(grpc::ByteBuffer(slices, 2), nullptr);
    }
  }
  if (!data.empty()) CKPT_CHECK(Wait(queue));
  call->WritesDone(nullptr);
  CKPT_CHECK(Wait(queue));
  std::size_t received = 0;
  while (true) {
    grpc::ByteBuffer message;
    call->Read(&message, nullptr);
    if (!Wait(queue)) break;
    std::vector<grpc::Slice> slices;
    CKPT_CHECK(message.Dump(&slices).ok());
    std::vector<Bytes> pieces;
    for (const grpc::Slice& slice : slices) pieces.push_back(BytesOf(slice));
    volatile std::uint8_t fingerprint = Xxh3(pieces).bytes[0];
    (void)fingerprint;
    for (const Bytes piece : pieces) received += piece.size();
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  CKPT_CHECK(Wait(queue) && status.ok());
  CKPT_CHECK(!data.empty() || received == mib << 20);
  std::printf("%.6f\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return 0;
}

}  // namespace
}  // namespace ckpt::bench

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 3 && words[0] == "serve") return ckpt::bench::Serve(words[1], words[2]);
  if (words.size() == 3 && (words[0] == "save" || words[0] == "restore"))
    return ckpt::bench::Run(words[1], "/floor/" + words[0], std::stoul(words[2]));
  std::fprintf(stderr, "usage: floor serve DIR ADDRESS_FILE | floor save|restore ADDRESS MIB\n");
  return 2;
}
