// A server that does not keep to the protocol: the client notices.
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "ckpt/status.h"
#include "ckpt/v1/service.grpc.pb.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/client_fixture.h"

namespace ckpt::testing {
namespace {

using ::testing::HasSubstr;

constexpr std::size_t kSize = 8192;

// Serves on a port of its own, for as long as it lives.
class Serving {
 public:
  explicit Serving(grpc::Service& service) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(&service);
    server_ = builder.BuildAndStart();
  }
  ~Serving() { server_->Shutdown(std::chrono::system_clock::now()); }
  Serving(const Serving&) = delete;
  Serving& operator=(const Serving&) = delete;

  [[nodiscard]] std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

// Takes what it is sent and never answers.
class SilentServer final : public v1::CheckpointService::Service {
 public:
  [[nodiscard]] std::string address() const { return serving_.address(); }
  [[nodiscard]] int calls() const { return calls_; }

  grpc::Status Save(grpc::ServerContext*,
                    grpc::ServerReaderWriter<v1::SaveResponse, v1::SaveRequest>* stream) override {
    ++calls_;
    for (v1::SaveRequest request; stream->Read(&request);) {
    }
    return grpc::Status::CANCELLED;
  }

  grpc::Status Restore(grpc::ServerContext*,
                       grpc::ServerReaderWriter<v1::RestoreResponse, v1::RestoreRequest>* stream) override {
    ++calls_;
    for (v1::RestoreRequest request; stream->Read(&request);) {
    }
    return grpc::Status::CANCELLED;
  }

  grpc::Status GetCheckpoint(grpc::ServerContext* context, const v1::GetCheckpointRequest*,
                             v1::GetCheckpointResponse*) override {
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return grpc::Status::CANCELLED;
  }

 private:
  std::atomic<int> calls_ = 0;
  Serving serving_{*this};  // last: goes first
};

absl::StatusOr<std::unique_ptr<Client>> ConnectWithoutPatience(const std::string& address) {
  ConnectOptions options;
  options.address = address;
  options.retry_for = std::chrono::milliseconds(100);
  options.answer_within = std::chrono::milliseconds(200);
  return Client::Connect(options);
}

TEST(WrongServer, OneThatNeverAnswersIsTriedAgainAndGivenUp) {
  const SilentServer server;
  const auto client = ConnectWithoutPatience(server.address());
  ASSERT_TRUE(client.ok()) << client.status();
  for (const bool save : {true, false}) {
    const int before = server.calls();
    const absl::Status status =
        save ? (*client)->BeginSave(At("r", 0)).status() : (*client)->OpenRestore(Of("r@0")).status();
    EXPECT_EQ(ReasonOf(status), "SERVER_SILENT") << status;
    EXPECT_TRUE(absl::IsUnavailable(status));
    EXPECT_EQ(server.calls() - before, 2);
  }
}

TEST(WrongServer, ACallerThatHasEnoughIsNotKept) {
  const SilentServer server;
  ConnectOptions options;
  options.address = server.address();
  std::atomic<bool> enough = false;
  options.interrupted = [&] { return enough.load(); };
  const auto client = Client::Connect(options);
  ASSERT_TRUE(client.ok()) << client.status();
  for (const bool stream : {true, false}) {
    enough = false;
    std::thread later([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(200));
      enough = true;
    });
    const absl::Status status =
        stream ? (*client)->BeginSave(At("r", 0)).status() : (*client)->GetCheckpoint("r@0").status();
    later.join();
    EXPECT_EQ(ReasonOf(status), "INTERRUPTED") << status;
    EXPECT_TRUE(absl::IsCancelled(status));
  }
}

// Has one checkpoint of one tensor.
class RestoreServer final : public v1::CheckpointService::Service {
 public:
  // Answers each want with a chunk of each of these bytes, so many wants of all streams and no more; one with `check`
  // with the end.
  explicit RestoreServer(std::string chunks, int answers = 1 << 20) : chunks_(std::move(chunks)), answers_(answers) {}

  [[nodiscard]] std::string address() const { return serving_.address(); }
  [[nodiscard]] int calls() const { return calls_; }
  [[nodiscard]] int checks() const { return checks_; }

  grpc::Status Restore(grpc::ServerContext*,
                       grpc::ServerReaderWriter<v1::RestoreResponse, v1::RestoreRequest>* stream) override {
    ++calls_;
    v1::RestoreRequest request;
    if (!stream->Read(&request)) return grpc::Status::OK;
    for (const v1::RestoreResponse& message : Manifest()) stream->Write(message);
    while (stream->Read(&request)) {
      if (request.want().check()) {
        ++checks_;
        return grpc::Status::OK;
      }
      if (answers_-- <= 0) continue;
      for (const char byte : chunks_) {
        v1::RestoreResponse chunk;
        chunk.mutable_chunk()->set_payload(std::string(kSize, byte));
        stream->Write(chunk);
      }
    }
    return grpc::Status::OK;
  }

 private:
  static std::vector<v1::RestoreResponse> Manifest() {
    const std::string bytes(kSize, 'x');
    std::vector<v1::RestoreResponse> messages(4);
    v1::RestoreHeader& header = *messages[0].mutable_header();
    header.set_chunk_size(1 << 20);
    header.mutable_checkpoint()->set_run("r");
    header.mutable_checkpoint()->set_tensor_count(1);
    messages[1].mutable_state()->add_nodes()->set_kind(v1::NODE_KIND_TENSOR);
    v1::Tensor& tensor = *messages[2].mutable_tensors()->add_tensors();
    tensor.set_dtype(v1::DTYPE_UINT8);
    tensor.add_shape(kSize);
    v1::Box& box = *tensor.add_boxes();
    box.add_offset(0);
    box.add_shape(kSize);
    box.set_digests(std::string(Sha256(bytes).view()));
    box.set_fingerprints(std::string(Xxh3(bytes).view()));
    messages[3].mutable_start();
    return messages;
  }

  const std::string chunks_;
  std::atomic<int> answers_;
  std::atomic<int> calls_ = 0;
  std::atomic<int> checks_ = 0;
  Serving serving_{*this};  // last: goes first
};

TEST(WrongServer, ARestoreThatEndsBeforeAllHasComeIsAnError) {
  const RestoreServer server("y");  // which is wrong
  const auto restore = ConnectTo(server.address())->OpenRestore(Of("r@0"));
  ASSERT_TRUE(restore.ok()) << restore.status();
  std::vector<char> buffer(kSize);
  const absl::Status status = (*restore)->ReadInto(std::vector<void*>{buffer.data()});
  EXPECT_EQ(ReasonOf(status), "PROTOCOL");
  EXPECT_THAT(std::string(status.message()), HasSubstr("1 chunks too early"));
  EXPECT_EQ(server.checks(), 1);
}

TEST(WrongServer, OneThatFallsSilentBetweenTwoReadsIsTriedAgainOnce) {
  const RestoreServer server("x", 1);
  const auto client = ConnectWithoutPatience(server.address());
  ASSERT_TRUE(client.ok()) << client.status();
  const auto restore = (*client)->OpenRestore(Of("r@0"));
  ASSERT_TRUE(restore.ok()) << restore.status();
  std::vector<char> buffer(kSize);
  const std::vector<void*> buffers = {buffer.data()};
  const absl::Status first = (*restore)->ReadInto(buffers);
  EXPECT_TRUE(first.ok()) << first;
  EXPECT_EQ(ReasonOf((*restore)->ReadInto(buffers)), "SERVER_SILENT");
  EXPECT_EQ(server.calls(), 2) << "the stream that was kept, and another";
}

TEST(WrongServer, AChunkThatComesUnaskedIsAnError) {
  const RestoreServer server("xx");
  const auto restore = ConnectTo(server.address())->OpenRestore(Of("r@0"));
  ASSERT_TRUE(restore.ok()) << restore.status();
  std::vector<char> buffer(kSize);
  const std::vector<void*> buffers = {buffer.data()};
  absl::Status status;
  // One that comes when it has been asked for again is as good as another.
  for (int i = 0; i < 1000 && status.ok(); ++i) status = (*restore)->ReadInto(buffers);
  EXPECT_EQ(ReasonOf(status), "PROTOCOL");
  EXPECT_THAT(std::string(status.message()), HasSubstr("nobody had asked for"));
}

// Says that it has all chunks, and counts how they are cited.
class SaveServer final : public v1::CheckpointService::Service {
 public:
  explicit SaveServer(bool takes_cited_digests) : takes_cited_digests_(takes_cited_digests) {}

  [[nodiscard]] std::string address() const { return serving_.address(); }
  [[nodiscard]] std::size_t cited_with_tensors() const { return cited_with_tensors_; }
  [[nodiscard]] std::size_t cited_alone() const { return cited_alone_; }

  grpc::Status Save(grpc::ServerContext*,
                    grpc::ServerReaderWriter<v1::SaveResponse, v1::SaveRequest>* stream) override {
    for (v1::SaveRequest request; stream->Read(&request);) {
      v1::SaveResponse response;
      if (request.has_begin()) {
        v1::Begun& begun = *response.mutable_begun();
        begun.set_session(std::string(16, 's'));
        begun.set_chunk_size(kSize);
        begun.set_inline_limit(kSize / 2);
        begun.set_max_message_bytes(4 << 20);
        begun.set_takes_cited_digests(takes_cited_digests_);
      } else if (request.has_have()) {
        response.mutable_have()->set_missing(std::string((request.have().digests().size() / Digest::kSize + 7) / 8, 0));
      } else if (request.has_commit()) {
        response.mutable_committed()->mutable_checkpoint()->set_run("r");
      } else {
        cited_with_tensors_ += request.tensors().cited_digests().size() / Digest::kSize;
        cited_alone_ += request.citations().digests().size() / Digest::kSize;
        continue;
      }
      stream->Write(response);
    }
    return grpc::Status::OK;
  }

 private:
  const bool takes_cited_digests_;
  std::atomic<std::size_t> cited_with_tensors_ = 0;
  std::atomic<std::size_t> cited_alone_ = 0;
  Serving serving_{*this};  // last: goes first
};

// No wrong one, but one of before.
TEST(WrongServer, ChunksAreCitedWithTheirTensorsWhereThatIsTaken) {
  Memory memory;
  const State state = ModelState({memory.Floats(kSize), memory.Floats(kSize), memory.Floats(1)});
  constexpr std::size_t kChunks = 2 * sizeof(float);
  for (const bool takes : {true, false}) {
    const SaveServer server(takes);
    const auto saved = ConnectTo(server.address())->SaveState(At("r", 1), state);
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_EQ(server.cited_with_tensors(), takes ? kChunks : 0);
    EXPECT_EQ(server.cited_alone(), takes ? 0 : kChunks);
  }
}

}  // namespace
}  // namespace ckpt::testing
