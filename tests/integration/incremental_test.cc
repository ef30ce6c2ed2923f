// A save sends only what the server does not have.
#include "ckpt/status.h"
#include "gtest/gtest.h"
#include "tests/integration/client_fixture.h"

namespace ckpt::testing {
namespace {

using Incremental = ClientTest;
constexpr std::uint64_t kMiB = 1 << 20;

TEST_F(Incremental, WhatDidNotChangeIsCited) {
  State state = ModelState({memory_.Floats(2 << 20), memory_.Floats(1 << 20), memory_.Floats(10)});
  EXPECT_EQ(SaveOk(*client_, 1, state).sent_bytes, 12 * kMiB);
  const SaveResult again = SaveOk(*client_, 2, state);
  EXPECT_EQ(again.sent_bytes, 0U);
  EXPECT_EQ(again.cited_bytes, 12 * kMiB);
  EXPECT_LT(again.checkpoint.new_bytes(), 128U << 10);

  ++Memory::BytesOf(state.tensors[1])[3 * kMiB + 5];
  ++Memory::BytesOf(state.tensors[2])[0];
  const SaveResult changed = SaveOk(*client_, 3, state);
  EXPECT_EQ(changed.sent_bytes, kMiB);
  EXPECT_EQ(changed.cited_bytes, 11 * kMiB);
  EXPECT_EQ(changed.fingerprinted_bytes, 12 * kMiB);
  EXPECT_EQ(changed.hashed_bytes, 0U) << "digests are remembered, or the server's to compute";
  ExpectRestores(*client_, "run@3", state);
}

TEST_F(Incremental, ANewProcessFindsWhatOthersStored) {
  const Tensor base = memory_.Floats(4 << 20);
  SaveOk(*client_, 1, ModelState({base}));
  // Another client, with no memory: a fine-tuned model has most of the base's chunks, and new ones besides.
  ++Memory::BytesOf(base)[0];
  const State tuned = ModelState({memory_.Floats(1 << 20), base});
  const auto other = ConnectTo(server_.address());
  const SaveResult saved = SaveOk(*other, 2, tuned);
  EXPECT_EQ(saved.sent_bytes, 5 * kMiB);
  EXPECT_EQ(saved.cited_bytes, 15 * kMiB);
  EXPECT_EQ(saved.hashed_bytes, 20 * kMiB) << "some were there: so all are looked for";
  ExpectRestores(*other, "run@2", tuned);
}

TEST_F(Incremental, FillDoesNotMakeANewProcessHashEverything) {
  const Tensor zeros = memory_.Floats(1 << 20);
  std::fill_n(Memory::BytesOf(zeros), 4 * kMiB, '\0');
  SaveOk(*client_, 1, ModelState({zeros}));
  const auto other = ConnectTo(server_.address());
  EXPECT_EQ(SaveOk(*other, 2, ModelState({zeros})).cited_bytes, 0U);
}

TEST_F(Incremental, ARestoreIsRemembered) {
  const State state = ModelState({memory_.Floats(2 << 20)});
  SaveOk(*client_, 1, state);
  for (const bool remember : {false, true}) {
    const auto other = ConnectTo(server_.address());
    if (remember) {
      ASSERT_TRUE(other->Remember("run@1").ok());
    } else {
      ExpectRestores(*other, "run@1", state);
    }
    // Another byte each time: else the server would have the changed chunk.
    char& byte = Memory::BytesOf(state.tensors[0])[remember ? 1 : 0];
    ++byte;
    EXPECT_EQ(SaveOk(*other, 2, state).sent_bytes, kMiB) << remember;
    --byte;
  }
}

TEST_F(Incremental, MemoryOfAnotherStoreDoesNoHarm) {
  const State state = ModelState({memory_.Floats(2 << 20)});
  SaveOk(*client_, 1, state);
  // The store is lost, and the client does not know.
  server_.Kill();
  std::filesystem::remove_all(server_.data());
  server_.Start();
  EXPECT_EQ(SaveOk(*client_, 2, state).sent_bytes, 8 * kMiB);
  ExpectRestores(*client_, "run@2", state);
}

TEST_F(Incremental, MappedMemoryIsReleasedAsItIsDealtWith) {
  State state = ModelState({memory_.Floats(4 << 20)});
  const auto* base = static_cast<const char*>(state.tensors[0].data);
  std::vector<int> released(16);
  state.release = [&](const void* data, std::size_t size) {
    const auto offset = static_cast<std::uint64_t>(static_cast<const char*>(data) - base);
    ASSERT_LE(offset + size, 16 * kMiB);
    for (std::uint64_t chunk = offset / kMiB; chunk < (offset + size) / kMiB; ++chunk) ++released[chunk];
  };
  for (const std::int64_t epoch : {1, 2}) {
    std::fill(released.begin(), released.end(), 0);
    SaveOk(*client_, epoch, state);
    for (const int times : released) EXPECT_GE(times, 1) << epoch;
  }
}

}  // namespace
}  // namespace ckpt::testing
