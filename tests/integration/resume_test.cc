// Servers that are killed, connections that are cut, answers that are lost.
#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>
#include <thread>

#include "ckpt/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/client_fixture.h"
#include "tests/integration/cut_proxy.h"

namespace ckpt::testing {
namespace {

using ::testing::HasSubstr;
constexpr std::uint64_t kMiB = 1 << 20;

std::uintmax_t PackBytes(const std::filesystem::path& data) {
  std::uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(data / "packs"))
    if (entry.is_regular_file()) bytes += entry.file_size();
  return bytes;
}

// Flips a bit of these bytes in whichever file below the folder has them.
void FlipBitIn(const std::filesystem::path& folder, std::string_view bytes) {
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(file), {}};
    const std::size_t place = content.find(bytes);
    if (place == content.npos) continue;
    file.seekp(static_cast<std::streamoff>(place));
    file.put(static_cast<char>(content[place] ^ 1));
    ASSERT_TRUE(file.flush().good());
    return;
  }
  FAIL() << "no file has the bytes";
}

class Resume : public ClientTest {
 protected:
  CutProxy proxy_{server_.address()};
  std::unique_ptr<Client> cut_client_ = ConnectTo(proxy_.address());
};

TEST_F(Resume, ASaveGoesOnAfterTheServerIsKilled) {
  const State state = ModelState({memory_.Floats(8 << 20), memory_.Floats(8 << 20)});
  SaveOptions options = At("run", 1);
  bool killed = false;
  options.progress = [&](std::uint64_t done, std::uint64_t) {
    if (killed || done < 40 * kMiB) return;
    killed = true;
    // Batches of 16 MiB at most are acked one after the other: all but the last are safe.
    while (PackBytes(server_.data()) < 33 * kMiB) std::this_thread::yield();
    server_.Kill();
    server_.Start();
  };
  const auto saved = client_->SaveState(options, state);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_TRUE(killed);
  EXPECT_EQ(saved->checkpoint.version(), 1U);
  // What had been acked did not cross the wire again: less than all of it twice.
  EXPECT_GE(saved->sent_bytes, 64 * kMiB);
  EXPECT_LT(saved->sent_bytes, 64 * kMiB + 40 * kMiB - 16 * kMiB);
  ExpectRestores(*client_, "run@1", state);
}

TEST_F(Resume, ASaveGoesOnAfterCuts) {
  const State state = ModelState({memory_.Floats(8 << 20)});
  SaveOptions options = At("run", 1);
  std::uint64_t next_cut = 8 * kMiB;
  options.progress = [&](std::uint64_t done, std::uint64_t) {
    if (done < next_cut) return;
    next_cut += 8 * kMiB;
    proxy_.CutAfterSent(0);
  };
  const auto saved = cut_client_->SaveState(options, state);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_GE(proxy_.cuts(), 3);
  ExpectRestores(*client_, "run@1", state);
  EXPECT_EQ(client_->ListCheckpoints("run")->items.size(), 1U);
}

TEST_F(Resume, ACommitWhoseAnswerIsLostIsDoneOnce) {
  // All of it is inline: what the server says next after begun is that it has committed.
  const State small = ModelState({memory_.Floats(1)});
  auto save = cut_client_->BeginSave(At("run", 2));
  ASSERT_TRUE(save.ok()) << save.status();
  ASSERT_TRUE((*save)->AddTensor(small.tensors[0]).ok());
  proxy_.CutAfterReceived(0);
  const auto saved = (*save)->Commit(small.nodes, {});
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(proxy_.cuts(), 1);
  EXPECT_EQ(saved->checkpoint.epoch(), 2);
  EXPECT_EQ(saved->checkpoint.version(), 1U);
  EXPECT_EQ(client_->ListCheckpoints("run")->items.size(), 1U);
}

TEST_F(Resume, ARestoreAsksOnlyForWhatIsMissingAfterACut) {
  const State state = ModelState({memory_.Floats(8 << 20), memory_.Floats(100)});
  SaveOk(*client_, 1, state);
  auto restore = cut_client_->OpenRestore(Of("run@1"));
  ASSERT_TRUE(restore.ok()) << restore.status();
  const std::uint64_t before = proxy_.received_bytes();
  proxy_.CutAfterReceived(20 * kMiB);
  std::vector<char> buffer(32 * kMiB);
  std::vector<char> small(400);
  const absl::Status status = (*restore)->ReadInto(std::vector<void*>{buffer.data(), small.data()});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(proxy_.cuts(), 1);
  EXPECT_EQ(std::memcmp(buffer.data(), state.tensors[0].data, buffer.size()), 0);
  // What flow control had let through when it was cut is lost, never all.
  EXPECT_LT(proxy_.received_bytes() - before, 44 * kMiB);
}

TEST_F(Resume, AChunkThatChangedOnItsWayIsAskedForAgain) {
  const State state = ModelState({memory_.Floats(4 << 20)});
  SaveOk(*client_, 1, state);
  auto restore = cut_client_->OpenRestore(Of("run@1"));
  ASSERT_TRUE(restore.ok()) << restore.status();
  const std::uint64_t before = proxy_.received_bytes();
  proxy_.FlipAfterReceived(5 * kMiB + kMiB / 3);
  std::vector<char> buffer(16 * kMiB);
  const absl::Status status = (*restore)->ReadInto(std::vector<void*>{buffer.data()});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(std::memcmp(buffer.data(), state.tensors[0].data, buffer.size()), 0);
  EXPECT_GT(proxy_.received_bytes() - before, 17 * kMiB);
  EXPECT_LT(proxy_.received_bytes() - before, 18 * kMiB);
  EXPECT_EQ(SaveOk(*ConnectTo(server_.address()), 2, state).cited_bytes, 16 * kMiB) << "the store is not damaged";
}

TEST_F(Resume, ARestoreOpensAgainWhenItsStreamBrokeUnnoticed) {
  const State state = ModelState({memory_.Floats(1 << 20)});
  SaveOk(*client_, 1, state);
  auto restore = cut_client_->OpenRestore(Of("run:latest"));
  ASSERT_TRUE(restore.ok()) << restore.status();
  // The reference means another checkpoint by now; this restore stays with its own.
  SaveOk(*client_, 2, ModelState({memory_.Floats(1 << 20)}));
  proxy_.CutAfterSent(0);
  std::vector<char> buffer(4 * kMiB);
  const absl::Status status = (*restore)->ReadInto(std::vector<void*>{buffer.data()});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(std::memcmp(buffer.data(), state.tensors[0].data, buffer.size()), 0);
}

// Reads, into memory of their own, of the first tensors of a state whose description is long.
class KeptStream : public Resume {
 protected:
  static constexpr std::size_t kSize = 4 * kMiB;

  KeptStream() {
    std::vector<Tensor> tensors;
    for (int i = 0; i < 4; ++i) tensors.push_back(memory_.Floats(kSize / 4));
    for (int i = 0; i < 2000; ++i) tensors.push_back(memory_.Floats(250));  // are in the description
    state_ = ModelState(tensors);
    SaveOk(*client_, 1, state_);
    restore_ = *cut_client_->OpenRestore(Of("run@1"));
  }

  // The bytes that came from the server.
  std::uint64_t Read(std::size_t tensor) {
    std::vector<void*> buffers(state_.tensors.size());
    std::vector<char> buffer(kSize);
    buffers[tensor] = buffer.data();
    const std::uint64_t before = proxy_.received_bytes();
    const absl::Status status = restore_->ReadInto(buffers);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(std::memcmp(buffer.data(), state_.tensors[tensor].data, kSize), 0);
    return proxy_.received_bytes() - before;
  }

  State state_;
  std::unique_ptr<Restore> restore_;
};

TEST_F(KeptStream, TheDescriptionComesOnce) {
  for (std::size_t i = 0; i < 4; ++i) EXPECT_LT(Read(i), kSize + kMiB / 4) << i;
  restore_->Pause();
  EXPECT_GT(Read(0), kSize + kMiB);
  EXPECT_LT(Read(1), kSize + kMiB / 4);
}

TEST_F(KeptStream, AnotherOneIsOpenedWhenItBroke) {
  Read(0);
  proxy_.CutAfterSent(0);
  EXPECT_GT(Read(1), kSize + kMiB);
  EXPECT_LT(Read(2), kSize + kMiB / 4);
  proxy_.CutAfterReceived(kMiB);
  Read(3);
  EXPECT_EQ(proxy_.cuts(), 2);
}

TEST_F(KeptStream, WhatChangedOnItsWayIsAskedForOverTheSameOne) {
  Read(0);
  proxy_.FlipAfterReceived(kMiB + kMiB / 3);
  EXPECT_LT(Read(1), kSize + kMiB + kMiB / 2) << "the chunk came twice, the description did not";
  EXPECT_LT(Read(2), kSize + kMiB / 4);
}

TEST(AKeptStream, IsGivenBackByPause) {
  const CkptdProcess server({"--max-streams", "1"});
  Memory memory;
  const State state = ModelState({memory.Floats(1 << 18)});
  SaveOk(*ConnectTo(server.address()), 1, state);
  const auto client = ConnectTo(server.address());  // waits for a place
  const auto impatient = ConnectTo(server.address(), std::chrono::milliseconds(0));
  std::vector<char> buffer(kMiB);
  const std::vector<void*> buffers = {buffer.data()};
  const auto restore = *client->OpenRestore(Of("run@1"));
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(restore->ReadInto(buffers).ok());
    EXPECT_EQ(ReasonOf(impatient->OpenRestore(Of("run@1")).status()), "TOO_MANY_STREAMS");
    restore->Pause();
    EXPECT_TRUE(client->OpenRestore(Of("run@1")).ok());
  }
}

TEST_F(Resume, ReadsAreTriedAgain) {
  SaveOk(*client_, 1, ModelState({memory_.Floats(1)}));
  ASSERT_TRUE(cut_client_->GetRun("run").ok());
  proxy_.CutAfterReceived(0);
  const auto run = cut_client_->GetRun("run");
  EXPECT_TRUE(run.ok()) << run.status();
  EXPECT_EQ(proxy_.cuts(), 1);
}

TEST_F(Resume, GivesUpWithAdviceWhenThereIsNoServer) {
  const auto client = ConnectTo(server_.address(), std::chrono::milliseconds(200));
  const State state = ModelState({memory_.Floats(1 << 20)});
  SaveOptions options = At("run", 1);
  options.progress = [&](std::uint64_t, std::uint64_t) { server_.Kill(); };
  for (const absl::Status& status :
       {client->SaveState(options, state).status(), client->OpenRestore(Of("run@1")).status(),
        client->GetRun("run").status(), client->BeginSave(At("run", 1)).status()}) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_EQ(ReasonOf(status), "SERVER_UNREACHABLE");
    EXPECT_THAT(std::string(status.message()), HasSubstr("cannot reach a ckptd at " + server_.address()));
  }
}

TEST_F(Resume, AFailedCommitHasGivenTheMemoryBack) {
  const std::unique_ptr<Client> client =
      *Client::Connect({.address = server_.address(), .retry_for = std::chrono::milliseconds(200)});
  SaveOptions options = At("run", 1);
  options.progress = [&, killed = false](std::uint64_t done, std::uint64_t) mutable {
    if (killed || done < 8 * kMiB) return;
    killed = true;
    server_.Kill();
  };
  auto save = client->BeginSave(options);
  ASSERT_TRUE(save.ok()) << save.status();
  auto floats = std::make_unique<std::vector<float>>(16 << 20, 1.5F);
  Tensor tensor;
  tensor.meta.set_dtype(v1::DTYPE_FLOAT32);
  tensor.meta.add_shape(floats->size());
  tensor.data = floats->data();
  ASSERT_TRUE((*save)->AddTensor(tensor).ok());
  StateBuilder tree;
  tree.Dict().Key("w").Tensor(tensor).End();
  const auto state = std::move(tree).Build();
  EXPECT_TRUE(absl::IsUnavailable((*save)->Commit(state->nodes, {}).status()));
  floats.reset();  // AddressSanitizer sees who reads it now
  server_.Start();
  // The memory may be another state by now: what was acked of the first one is not committed with it.
  EXPECT_EQ(ReasonOf((*save)->Commit(state->nodes, {}).status()), "OUT_OF_ORDER");
  EXPECT_EQ(ReasonOf(client_->GetRun("run").status()), "RUN_NOT_FOUND");
}

TEST_F(Resume, ASaveSendsWhatWasFoundDamagedSinceItWasCited) {
  const Tensor tensor = memory_.Floats(1 << 20);
  SaveOk(*client_, 1, ModelState({tensor}));
  SaveOptions options = At("run", 2);
  bool damaged = false;
  options.progress = [&](std::uint64_t, std::uint64_t) {  // after it was told that the server has all
    if (damaged) return;
    damaged = true;
    FlipBitIn(server_.data() / "packs", {static_cast<const char*>(tensor.data) + kMiB, 64});
    const auto restore = ConnectTo(server_.address())->OpenRestore(Of("run@1"));
    std::vector<char> buffer(4 * kMiB);
    EXPECT_EQ(ReasonOf((*restore)->ReadInto(std::vector<void*>{buffer.data()})), "DATA_DAMAGED");
  };
  const auto saved = client_->SaveState(options, ModelState({tensor}, 2));
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_TRUE(damaged);
  EXPECT_GE(saved->sent_bytes, kMiB);
  ExpectRestores(*client_, "run@1", ModelState({tensor}));
  ExpectRestores(*client_, "run@2", ModelState({tensor}, 2));
}

TEST_F(Resume, WhatWasSavedOutlivesARestart) {
  const State state = ModelState({memory_.Floats(1 << 20)});
  SaveOk(*client_, 1, state);
  EXPECT_EQ(server_.Terminate(), 0);
  server_.Start();
  ExpectRestores(*client_, "run@1", state);
}

}  // namespace
}  // namespace ckpt::testing
