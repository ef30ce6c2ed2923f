// Several trainers that save one checkpoint together, and restores of it in other parts.
#include <array>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "ckpt/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/integration/client_fixture.h"
#include "tests/integration/cut_proxy.h"

namespace ckpt::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Pair = std::array<std::uint64_t, 2>;

// An int32 matrix, and copies of parts of it.
class Matrix {
 public:
  Matrix(Memory& memory, Pair shape) : shape_(shape), whole_(memory.Random(v1::DTYPE_INT32, {shape[0], shape[1]})) {}

  [[nodiscard]] const Tensor& whole() const { return whole_; }
  [[nodiscard]] const Pair& shape() const { return shape_; }

  // The rows and columns from `offset` on, contiguous.
  [[nodiscard]] std::vector<std::int32_t> Part(Pair offset, Pair extent) const {
    std::vector<std::int32_t> out;
    for (std::uint64_t row = offset[0]; row < offset[0] + extent[0]; ++row) {
      const auto* begin = static_cast<const std::int32_t*>(whole_.data) + row * shape_[1] + offset[1];
      out.insert(out.end(), begin, begin + extent[1]);
    }
    return out;
  }

 private:
  Pair shape_;
  Tensor whole_;
};

// One of four trainers, two rows and two columns of them: what it has of some matrices.
class Shard {
 public:
  Shard(std::uint32_t rank, std::vector<const Matrix*> matrices) {
    StateBuilder builder;
    builder.Dict().Key("model").OrderedDict();
    for (std::size_t i = 0; i < matrices.size(); ++i) {
      const Pair whole = matrices[i]->shape();
      Pair offset, extent;
      for (std::size_t d = 0; d < 2; ++d) {
        const std::uint64_t place = d == 0 ? rank / 2 : rank % 2;
        const std::uint64_t half = (whole[d] + 1) / 2;
        offset[d] = place == 0 ? 0 : half;
        extent[d] = place == 0 ? half : whole[d] - half;
      }
      bytes_.push_back(matrices[i]->Part(offset, extent));
      Tensor tensor{matrices[i]->whole().meta, nullptr};
      tensor.boxes = {{{offset[0], offset[1]}, {extent[0], extent[1]}, bytes_.back().data()}};
      builder.Key(absl::StrCat("m", i)).Tensor(tensor);
    }
    builder.End().Key("epoch").Int(1).End();
    auto state = std::move(builder).Build();
    EXPECT_TRUE(state.ok()) << state.status();
    state_ = *std::move(state);
  }

  [[nodiscard]] const State& state() const { return state_; }

 private:
  std::vector<std::vector<std::int32_t>> bytes_;
  State state_;
};

class Parts : public ClientTest {
 protected:
  SaveOptions Rank(std::uint32_t rank, std::uint32_t world_size = 4) {
    SaveOptions options = At("run", 1);
    options.part = SavePart{key_, rank, world_size, false};
    return options;
  }
  absl::StatusOr<SaveResult> SaveRank(Client& client, std::uint32_t rank) {
    const Shard shard(rank, {&large_, &odd_, &small_});
    return client.SaveState(Rank(rank), shard.state());
  }
  void ExpectWhole() {
    StateBuilder builder;
    builder.Dict().Key("model").OrderedDict();
    builder.Key("m0").Tensor(large_.whole()).Key("m1").Tensor(odd_.whole()).Key("m2").Tensor(small_.whole());
    builder.End().Key("epoch").Int(1).End();
    ExpectRestores(*client_, "run@1", *std::move(builder).Build());
  }

  std::string key_ = RandomBytes(16);
  const Matrix large_{memory_, {1500, 1024}};  // each quarter has a chunk and a half
  const Matrix odd_{memory_, {333, 77}};
  const Matrix small_{memory_, {3, 5}};
};

TEST_F(Parts, FourTrainersSaveOneCheckpoint) {
  std::vector<std::thread> threads;
  std::array<absl::StatusOr<SaveResult>, 4> saved;
  for (std::uint32_t rank = 0; rank < 4; ++rank)
    threads.emplace_back([&, rank] { saved[rank] = SaveRank(*client_, rank); });
  for (std::thread& thread : threads) thread.join();
  int committed = 0;
  for (const auto& result : saved) {
    ASSERT_TRUE(result.ok()) << result.status();
    committed += result->waiting.empty() ? 1 : 0;
  }
  EXPECT_EQ(committed, 1);
  const auto checkpoint = client_->AwaitSave(key_, std::chrono::seconds(1));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->world_size(), 4U);
  ExpectWhole();
}

TEST_F(Parts, NothingIsVisibleBeforeTheLast) {
  for (const std::uint32_t rank : {3U, 0U, 2U}) {
    const auto saved = SaveRank(*client_, rank);
    ASSERT_TRUE(saved.ok()) << saved.status();
    EXPECT_FALSE(saved->waiting.empty());
  }
  EXPECT_TRUE(absl::IsNotFound(client_->GetRun("run").status()));
  const auto waiting = client_->AwaitSave(key_, std::chrono::milliseconds(100));
  EXPECT_EQ(ReasonOf(waiting.status()), "WAITING");
  EXPECT_THAT(std::string(waiting.status().message()), HasSubstr("ranks 1 have"));

  std::thread last([&] { EXPECT_TRUE(SaveRank(*client_, 1).ok()); });
  EXPECT_TRUE(client_->AwaitSave(key_, std::chrono::seconds(60)).ok());
  last.join();
  ExpectWhole();
}

TEST_F(Parts, AnUnchangedPartIsCited) {
  for (std::uint32_t rank = 0; rank < 4; ++rank) ASSERT_TRUE(SaveRank(*client_, rank).ok());
  key_ = RandomBytes(16);
  const auto again = SaveRank(*client_, 2);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->sent_bytes, 0U);
  EXPECT_EQ(again->cited_bytes, 750U * 512 * 4 + 166 * 39 * 4);

  // A process that has restored it knows the chunks too.
  const auto fresh = ConnectTo(server_.address());
  ASSERT_TRUE(fresh->OpenRestore(Of("run@1")).ok());
  const auto of_fresh = SaveRank(*fresh, 3);
  ASSERT_TRUE(of_fresh.ok()) << of_fresh.status();
  EXPECT_EQ(of_fresh->sent_bytes, 0U);
}

TEST_F(Parts, APartGoesOnAfterACut) {
  CutProxy proxy(server_.address());
  const auto cut_client = ConnectTo(proxy.address());
  for (const std::uint32_t rank : {0U, 1U, 2U}) ASSERT_TRUE(SaveRank(*client_, rank).ok());
  proxy.CutAfterSent(1 << 20);
  const auto saved = SaveRank(*cut_client, 3);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(proxy.cuts(), 1);
  EXPECT_TRUE(saved->waiting.empty());
  ExpectWhole();
}

TEST_F(Parts, TheServerMayBeKilledBetweenParts) {
  for (const std::uint32_t rank : {0U, 1U, 2U}) ASSERT_TRUE(SaveRank(*client_, rank).ok());
  server_.Kill();
  server_.Start();
  const auto saved = SaveRank(*client_, 3);
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_TRUE(saved->waiting.empty());
  ExpectWhole();
}

TEST_F(Parts, PartsThatDifferAreRefusedWithTheirPlace) {
  const Shard shard(0, {&large_, &odd_, &small_});
  for (const std::uint32_t rank : {1U, 2U, 3U}) ASSERT_TRUE(SaveRank(*client_, rank).ok());
  State other = shard.state();
  other.nodes.back().mutable_value()->set_int_value(7);
  const auto refused = client_->SaveState(Rank(0), other);
  EXPECT_EQ(ReasonOf(refused.status()), "RANKS_DIFFER");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("epoch: rank 1 has another value"));
  EXPECT_TRUE(absl::IsNotFound(client_->GetRun("run").status()));
}

TEST_F(Parts, AnAttemptKeyIsForOneContent) {
  for (std::uint32_t rank = 0; rank < 4; ++rank) ASSERT_TRUE(SaveRank(*client_, rank).ok());
  EXPECT_TRUE(SaveRank(*client_, 2).ok()) << "the same again";
  const Shard other(2, {&large_, &small_, &small_});
  EXPECT_EQ(ReasonOf(client_->SaveState(Rank(2), other.state()).status()), "ATTEMPT_REUSED");
}

class Slices : public Parts {
 protected:
  Slices() {
    for (std::uint32_t rank = 0; rank < 4; ++rank) EXPECT_TRUE(SaveRank(*client_, rank).ok());
    auto restore = client_->OpenRestore(Of("run@1"));
    EXPECT_TRUE(restore.ok()) << restore.status();
    restore_ = *std::move(restore);
  }
  static Restore::Slice SliceOf(std::uint64_t tensor, Pair offset, Pair extent, std::vector<std::int32_t>& to) {
    to.assign(extent[0] * extent[1], 0);
    return {tensor,
            {offset[0], offset[1]},
            {extent[0], extent[1]},
            {static_cast<std::int64_t>(extent[1] * 4), 4},
            to.data()};
  }

  std::unique_ptr<Restore> restore_;
};

TEST_F(Slices, AreReadAcrossTheBoxesThatWereSaved) {
  struct Wanted {
    const Matrix& matrix;
    std::uint64_t tensor;
    Pair offset;
    Pair extent;
  };
  const std::vector<Wanted> wanted = {
      {large_, 0, {0, 0}, {1500, 1024}}, {large_, 0, {700, 500}, {100, 30}}, {large_, 0, {0, 0}, {1, 1}},
      {large_, 0, {749, 0}, {2, 1024}},  {odd_, 1, {300, 1}, {33, 76}},      {odd_, 1, {5, 5}, {0, 7}},
      {small_, 2, {1, 2}, {2, 3}},
  };
  std::vector<std::vector<std::int32_t>> memory(wanted.size());
  std::vector<Restore::Slice> slices;
  for (std::size_t i = 0; i < wanted.size(); ++i)
    slices.push_back(SliceOf(wanted[i].tensor, wanted[i].offset, wanted[i].extent, memory[i]));
  const absl::Status read = restore_->ReadSlices(slices);
  ASSERT_TRUE(read.ok()) << read;
  for (std::size_t i = 0; i < wanted.size(); ++i)
    EXPECT_EQ(memory[i], wanted[i].matrix.Part(wanted[i].offset, wanted[i].extent)) << i;
}

TEST_F(Slices, OnlyTheChunksThatTheyNeedAreFetched) {
  std::uint64_t total_bytes = 0;
  RestoreOptions options = Of("run@1");
  options.progress = [&](std::uint64_t, std::uint64_t total) { total_bytes = total; };
  std::vector<std::int32_t> row;
  const Restore::Slice slice = SliceOf(0, {10, 0}, {1, 512}, row);
  ASSERT_TRUE((*client_->OpenRestore(options))->ReadSlices(std::span(&slice, 1)).ok());
  EXPECT_EQ(row, large_.Part({10, 0}, {1, 512}));
  EXPECT_EQ(total_bytes, 1U << 20);
}

TEST_F(Slices, WhatIsRightWhereItGoesIsNotFetched) {
  RestoreOptions options = Of("run@1");
  options.compare = true;
  const auto restore = *client_->OpenRestore(options);
  restore->Pause();
  std::vector<std::int32_t> whole, rows;
  const std::vector<Restore::Slice> slices = {SliceOf(0, {0, 0}, {1500, 1024}, whole),
                                              SliceOf(1, {0, 0}, {333, 77}, rows)};
  ASSERT_TRUE(restore->ReadSlices(slices).ok());
  const std::uint64_t all = (1500 * 1024 + 333 * 77) * 4;
  EXPECT_EQ(restore->fetched_bytes(), all) << "nothing was there";
  whole[700 * 1024 + 1000] ^= 1;  // in one chunk of one box
  ASSERT_TRUE(restore->ReadSlices(slices).ok());
  EXPECT_EQ(whole, large_.Part({0, 0}, {1500, 1024}));
  EXPECT_EQ(rows, odd_.Part({0, 0}, {333, 77}));
  EXPECT_LE(restore->fetched_bytes(), all + (1 << 20));
  EXPECT_GT(restore->fetched_bytes(), all);
}

TEST_F(Slices, GoToMemoryOfAnyLayout) {
  std::vector<std::int32_t> transposed;
  Restore::Slice slice = SliceOf(1, {100, 10}, {40, 50}, transposed);
  slice.strides_bytes = {4, 40 * 4};
  ASSERT_TRUE(restore_->ReadSlices(std::span(&slice, 1)).ok());
  const std::vector<std::int32_t> expected = odd_.Part({100, 10}, {40, 50});
  for (std::size_t row = 0; row < 40; ++row)
    for (std::size_t column = 0; column < 50; ++column)
      ASSERT_EQ(transposed[column * 40 + row], expected[row * 50 + column]);
}

TEST_F(Slices, ThatAreNoneOfTheTensorAreRefused) {
  std::vector<std::int32_t> memory;
  const auto reason = [&](const Restore::Slice& slice) { return ReasonOf(restore_->ReadSlices(std::span(&slice, 1))); };
  EXPECT_EQ(reason(SliceOf(0, {1499, 0}, {2, 1}, memory)), "BAD_SLICE");
  EXPECT_EQ(reason(SliceOf(3, {0, 0}, {1, 1}, memory)), "BAD_SLICE");
  Restore::Slice slice = SliceOf(0, {0, 0}, {1, 1}, memory);
  slice.offset.pop_back();
  EXPECT_EQ(reason(slice), "BAD_SLICE");
  slice = SliceOf(0, {0, 0}, {1, 1}, memory);
  slice.data = nullptr;
  EXPECT_EQ(reason(slice), "BAD_SLICE");
}

}  // namespace
}  // namespace ckpt::testing
