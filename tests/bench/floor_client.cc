// The client of the floor (floor_server.cc says what that is). Prints seconds.
//
//   floor_client save ADDRESS MIB STREAMS       sends so many MiB, split over the streams
//   floor_client restore ADDRESS MIB STREAMS    brings them back into memory that is there already
#include <grpc/grpc.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/client_callback.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "tests/bench/bench_state.h"
#include "tests/bench/floor.h"

namespace ckpt::bench {
namespace {

constexpr std::size_t kTensorBytes = std::size_t{16} << 20;

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_FRAME_SIZE, kFrame);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return arguments;
}

// A stream on a connection of its own.
class Call final : public Stream<grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>> {
 public:
  Call(const std::string& address, const std::string& method)
      : stub_(grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), Arguments())) {
    stub_.PrepareBidiStreamingCall(&context_, method, {}, this);
    StartReading();
    AddHold();  // reads and writes are begun by another thread than gRPC's
    StartCall();
  }

  void Send(const std::string& tensor) {
    for (std::size_t at = 0; at < tensor.size(); at += kMessage) {
      const std::string_view chunk = std::string_view(tensor).substr(at, kMessage);
      const Fingerprint fingerprint = Xxh3(chunk);
      const grpc::Slice slices[] = {grpc::Slice(fingerprint.bytes.data(), Fingerprint::kSize),
                                    grpc::Slice(chunk.data(), chunk.size(), grpc::Slice::STATIC_SLICE)};
      CKPT_CHECK(Write(grpc::ByteBuffer(slices, 2)));
    }
  }

  void Receive(std::string& tensor) {
    for (std::size_t at = 0; at < tensor.size(); at += kMessage) {
      grpc::ByteBuffer message;
      CKPT_CHECK(Read(message));
      const Received received(message);
      [[maybe_unused]] const volatile std::uint8_t fingerprint = Xxh3(received.pieces).bytes[0];
      std::size_t to = at;
      for (const Bytes piece : received.pieces) {
        CKPT_CHECK(piece.size() <= at + kMessage - to);
        std::memcpy(tensor.data() + to, piece.data(), piece.size());
        to += piece.size();
      }
      CKPT_CHECK(to == at + kMessage);
    }
  }

  void EndWrites() {
    Drain();
    StartWritesDone();
  }

  void Finish() {
    RemoveHold();
    CKPT_CHECK(done_.get_future().get().ok());
  }

 private:
  void OnDone(const grpc::Status& status) override { done_.set_value(status); }

  grpc::ClientContext context_;
  grpc::GenericStub stub_;
  std::promise<grpc::Status> done_;
};

void Run(const std::string& address, const std::string& method, std::vector<std::string>& tensors, bool save) {
  Call call(address, method);
  if (save)
    for (const std::string& tensor : tensors) call.Send(tensor);
  call.EndWrites();
  if (!save)
    for (std::string& tensor : tensors) call.Receive(tensor);
  call.Finish();
}

// glibc keeps some of what becomes free from now on, as in ckptd's client: docs/adr/0012-freed-memory.md.
void KeepFreedMemory() {
  void* volatile block = std::malloc((std::size_t{32} << 20) - (std::size_t{64} << 10));
  std::free(block);
}

int Measure(const std::string& what, const std::string& address, std::size_t mib, std::size_t streams) {
  const bool save = what == "save";
  std::vector<std::vector<std::string>> parts(streams);  // what each stream moves
  TensorMaker maker("floor", kTensorBytes);
  for (std::size_t i = 0; i < (mib << 20) / kTensorBytes; ++i)
    parts[i % streams].push_back(save ? maker.Next() : std::string(kTensorBytes, '\0'));
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < streams; ++i)
    threads.emplace_back([&, i] { Run(address, "/" + what + "/" + std::to_string(i), parts[i], save); });
  for (std::thread& thread : threads) thread.join();
  std::printf("%.6f\n", std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  return 0;
}

}  // namespace
}  // namespace ckpt::bench

int main(int argc, char** argv) {
  grpc_init();  // for ever: its shutdown may wait for a thread that polls for ten seconds
  ckpt::bench::KeepFreedMemory();
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() == 4 && (words[0] == "save" || words[0] == "restore"))
    return ckpt::bench::Measure(words[0], words[1], std::stoul(words[2]), std::stoul(words[3]));
  std::fprintf(stderr, "usage: floor_client save|restore ADDRESS MIB STREAMS\n");
  return 2;
}
