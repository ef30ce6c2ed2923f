// Saves that several ranks make together.
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/box.h"
#include "base/random.h"
#include "storage/checkpoint_reads.h"
#include "storage/store_fixture.h"

namespace ckpt::storage {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const v1::SaveCommit kNoMetrics;

class SaveInParts : public StoreTest {
 protected:
  // The begin of one of the ranks that save r@1 together.
  v1::SaveBegin Rank(std::uint32_t rank, std::uint32_t world_size = 2) {
    v1::SaveBegin begin = BeginOf("r", 1, key_);
    begin.set_rank(rank);
    begin.set_world_size(world_size);
    return begin;
  }

  // Rows of a tensor of bytes; the rest is other ranks'.
  struct Shard {
    std::string path;
    std::uint64_t total = 0;
    std::uint64_t first = 0;
    std::string bytes;
  };
  static absl::Status SendRows(SaveStream& save, const std::vector<Shard>& tensors) {
    Tensors tree;
    for (const Shard& rows : tensors) {
      v1::TensorBatch batch;
      v1::Tensor& tensor = *batch.add_tensors();
      tensor.set_path(rows.path);
      tensor.set_component(rows.path.substr(0, rows.path.find('.')));
      tensor.set_dtype(v1::DTYPE_UINT8);
      tensor.add_shape(rows.total);
      if (!rows.bytes.empty()) {
        v1::Box& box = *tensor.add_boxes();
        box.add_offset(rows.first);
        box.add_shape(rows.bytes.size());
        if (rows.total < kInlineLimit) box.set_inline_data(rows.bytes);
      }
      CKPT_RETURN_IF_ERROR(save.AddTensors(std::move(batch)));
      if (rows.total >= kInlineLimit)
        for (std::size_t at = 0; at < rows.bytes.size(); at += kChunk)
          CKPT_RETURN_IF_ERROR(save.AddChunk(Payload::Of(rows.bytes.substr(at, kChunk)), {}));
      tree.emplace_back(rows.path, "");
    }
    return SendTree(save, tree);
  }

  // Sends the rows as one rank, and commits.
  absl::StatusOr<v1::GetSaveResponse> SaveRank(const v1::SaveBegin& begin, const std::vector<Shard>& tensors,
                                               const v1::SaveCommit& commit = kNoMetrics) {
    const auto save = Begin(begin);
    CKPT_RETURN_IF_ERROR(SendRows(*save, tensors));
    return save->Commit(commit);
  }
  // What rank 0 and rank 1 of two have.
  const std::vector<Shard> first_ = {{"m.w", 3 * kChunk, 0, Data('a')}, {"m.b", 10, 0, "01234"}};
  const std::vector<Shard> second_ = {{"m.w", 3 * kChunk, kChunk, Data('b', 2)}, {"m.b", 10, 5, "56789"}};

  absl::StatusOr<v1::GetSaveResponse> Look() {
    v1::GetSaveRequest request;
    request.set_attempt_key(key_);
    return GetSave(*store_, request);
  }
  std::vector<std::uint32_t> WaitsFor() {
    const auto save = Look();
    EXPECT_THAT(save.status(), IsOk());
    EXPECT_TRUE(save->has_waiting());
    return {save->waiting().ranks().begin(), save->waiting().ranks().end()};
  }
  void ExpectVisible() {
    const auto restored = Restore("r@1");
    ASSERT_THAT(restored.status(), IsOk());
    EXPECT_EQ(restored->at("m.w"), Data('a') + Data('b', 2));
    EXPECT_EQ(restored->at("m.b"), "0123456789");
    const std::string b = Data('b', 2);
    ExpectReferences({1, 1}, "m", {Data('a'), b.substr(0, kChunk), b.substr(kChunk)});
  }
  void ExpectInvisible() { EXPECT_EQ(ReasonOf(Restore("r@1").status()), "RUN_NOT_FOUND"); }

  std::string key_ = RandomBytes(16);
};

TEST_F(SaveInParts, TheLastRankMakesTheCheckpointVisible) {
  const auto waiting = SaveRank(Rank(1), second_);
  ASSERT_THAT(waiting.status(), IsOk());
  EXPECT_THAT(waiting->waiting().ranks(), ElementsAre(0));
  ExpectInvisible();
  EXPECT_THAT(WaitsFor(), ElementsAre(0));
  const auto committed = SaveRank(Rank(0), first_);
  ASSERT_THAT(committed.status(), IsOk());
  const v1::Checkpoint& checkpoint = committed->committed().checkpoint();
  EXPECT_EQ(checkpoint.version(), 1);
  EXPECT_EQ(checkpoint.world_size(), 2);
  EXPECT_EQ(checkpoint.tensor_count(), 2);
  EXPECT_EQ(checkpoint.logical_bytes(), 3 * kChunk + 10);
  EXPECT_GE(checkpoint.new_bytes(), 3 * kChunk);
  EXPECT_LE(checkpoint.new_bytes(), 3 * kChunk + 4096);
  EXPECT_EQ(Look()->committed().checkpoint().SerializeAsString(), checkpoint.SerializeAsString());
  ExpectVisible();
}

TEST_F(SaveInParts, SurvivesARestartBetweenTheRanks) {
  ASSERT_THAT(SaveRank(Rank(0), first_).status(), IsOk());
  CloseStore();
  OpenStore();
  EXPECT_THAT(WaitsFor(), ElementsAre(1));
  ASSERT_TRUE(SaveRank(Rank(1), second_)->has_committed());
  ExpectVisible();
  CloseStore();
  OpenStore();
  ExpectVisible();
}

TEST_F(SaveInParts, RanksSendAtTheSameTime) {
  const auto a = Begin(Rank(0));
  const auto b = Begin(Rank(1));
  ASSERT_THAT(SendRows(*b, second_), IsOk());
  ASSERT_THAT(SendRows(*a, first_), IsOk());
  ASSERT_TRUE(a->Commit(kNoMetrics)->has_waiting());
  ASSERT_TRUE(b->Commit(kNoMetrics)->has_committed());
  ExpectVisible();
}

TEST_F(SaveInParts, TheSameStateInOtherPartsIsTheSameChunks) {
  ASSERT_THAT(SaveRank(Rank(0), first_).status(), IsOk());
  ASSERT_THAT(SaveRank(Rank(1), second_).status(), IsOk());
  v1::SaveBegin other = BeginOf("other", 1);
  const auto whole = SaveRank(other, {{"m.w", 3 * kChunk, 0, Data('a') + Data('b', 2)}});
  ASSERT_THAT(whole.status(), IsOk());
  EXPECT_LE(whole->committed().checkpoint().new_bytes(), 4096);
}

TEST_F(SaveInParts, ACoordinatorsCommitIsNeededToo) {
  v1::SaveBegin begin = Rank(0, 1);
  begin.set_coordinated(true);
  v1::SaveBegin coordinator = begin;
  coordinator.set_rank(1);
  v1::SaveCommit commit;
  commit.add_metrics()->set_name("loss");
  const std::vector<Shard> whole = {{"m.w", kChunk, 0, Data('a')}};
  const auto first = SaveRank(begin, whole);
  ASSERT_THAT(first.status(), IsOk());
  EXPECT_THAT(first->waiting().ranks(), ElementsAre(1));
  const auto last = Begin(coordinator)->Commit(commit);
  ASSERT_THAT(last.status(), IsOk());
  EXPECT_EQ(last->committed().checkpoint().world_size(), 1);
  EXPECT_EQ(last->committed().checkpoint().metrics_size(), 1);
  EXPECT_EQ(Restore("r@1")->at("m.w"), Data('a'));
}

TEST_F(SaveInParts, MetricsOfAllRanksAreUnited) {
  v1::SaveCommit commit;
  commit.add_metrics()->set_name("loss");
  ASSERT_THAT(SaveRank(Rank(0), first_, commit).status(), IsOk());
  commit.add_metrics()->set_name("acc");
  EXPECT_EQ(SaveRank(Rank(1), second_, commit)->committed().checkpoint().metrics_size(), 2);
}

TEST_F(SaveInParts, RanksThatContradictEachOtherAreRefusedAndNothingIsVisible) {
  ASSERT_THAT(SaveRank(Rank(0), first_).status(), IsOk());
  auto wrong = second_;
  wrong[0].first = 0;
  const absl::Status status = SaveRank(Rank(1), wrong).status();
  EXPECT_EQ(ReasonOf(status), "BOXES_DO_NOT_TILE");
  EXPECT_THAT(status.message(), HasSubstr("m.w"));
  ExpectInvisible();
  // For all ranks it is over, and whoever asks is told why.
  EXPECT_EQ(ReasonOf(Look().status()), "SESSION_ENDED");
  EXPECT_THAT(Look().status().message(), HasSubstr("m.w"));
  for (const std::uint32_t rank : {0U, 1U}) {
    const auto late = SaveStream::Begin(*store_, Rank(rank), [](const std::string&, std::uint64_t) {});
    EXPECT_EQ(ReasonOf(late.status()), "SESSION_ENDED");
    EXPECT_THAT(late.status().message(), HasSubstr("m.w"));
  }
  EXPECT_THAT(StoreTest::Rows("T"), IsEmpty());
  EXPECT_THAT(StoreTest::Rows("P"), IsEmpty());
}

TEST_F(SaveInParts, AStreamAtWorkIsToldThatTheSaveHasFailed) {
  ASSERT_THAT(SaveRank(Rank(0, 3), first_).status(), IsOk());
  ASSERT_THAT(SaveRank(Rank(1, 3), second_).status(), IsOk());
  auto wrong = second_;
  wrong[0].first = 0;
  const auto at_work = Begin(Rank(2, 3));
  ASSERT_THAT(SendRows(*at_work, wrong), IsOk());
  const SessionRef session{SessionOf(*at_work), "default", 2, at_work->begun().fence()};
  ASSERT_THAT(store_->sessions().Fail(session, "for a reason"), IsOk());
  const absl::Status status = at_work->Commit(kNoMetrics).status();
  EXPECT_EQ(ReasonOf(status), "SESSION_ENDED");
  EXPECT_THAT(status.message(), HasSubstr("for a reason"));
}

// The last part is not noted before what it makes is committed: if the server stops in between, its rank is waited for.
TEST_F(SaveInParts, TheLastRankIsWaitedForUntilTheCommit) {
  ASSERT_THAT(SaveRank(Rank(0), first_).status(), IsOk());
  const auto last = Begin(Rank(1));
  const SessionRef session{SessionOf(*last), "default", 1, last->begun().fence()};
  const auto parts = store_->parts().Finish(session, v1::PartRow());
  ASSERT_THAT(parts.status(), IsOk());
  EXPECT_THAT(ckpt::storage::WaitsFor(*parts), IsEmpty());
  EXPECT_THAT(WaitsFor(), ElementsAre(1));
}

TEST_F(SaveInParts, ADamagedPartFailsTheSaveAndTheNextOneStoresItAnew) {
  ASSERT_THAT(SaveRank(Rank(0), first_).status(), IsOk());
  const auto [key, value] = StoreTest::Rows("T").front();
  const Digest manifest = *Digest::From(ParseRow<v1::PartRow>(key, value)->manifest());
  const auto row = Get<v1::ChunkRow>(keys::Manifest("default", manifest));
  const auto path = dir_ / "store/packs" / "default" / absl::StrCat(PackIdOf(row).ToHex(), ".pack");
  CloseStore();  // an open pack's last block is written again
  {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    ASSERT_TRUE(file.seekp(static_cast<std::streamoff>(row.offset() + kRecordHeaderSize)).put('x').flush().good())
        << path;
  }
  OpenStore();
  const absl::Status status = SaveRank(Rank(1), second_).status();
  EXPECT_EQ(ReasonOf(status), "DATA_DAMAGED");
  EXPECT_THAT(status.message(), HasSubstr("what rank 0 had committed"));
  EXPECT_TRUE(Get<v1::ChunkRow>(keys::Manifest("default", manifest)).quarantined());
  ExpectInvisible();
  key_ = RandomBytes(16);
  ASSERT_THAT(SaveRank(Rank(0), first_).status(), IsOk());
  ASSERT_TRUE(SaveRank(Rank(1), second_)->has_committed());
  ExpectVisible();
}

TEST_F(SaveInParts, ALateStreamOfAClientTakesNothingFromALaterOne) {
  v1::SaveBegin begin = Rank(0);
  begin.set_client("a");
  begin.set_stream(2);
  ASSERT_THAT(SaveRank(begin, first_).status(), IsOk());
  begin.set_stream(1);
  const auto late = SaveStream::Begin(*store_, begin, [](const std::string&, std::uint64_t) {});
  EXPECT_EQ(ReasonOf(late.status()), "FENCED");
  EXPECT_THAT(WaitsFor(), ElementsAre(1)) << "what the later one committed stays";
  begin.set_client("another process");
  EXPECT_THAT(SaveRank(begin, first_).status(), IsOk());
}

TEST_F(SaveInParts, OtherMetricsAreAnotherPart) {
  v1::SaveCommit commit;
  commit.add_metrics()->set_name("loss");
  ASSERT_THAT(SaveRank(Rank(0), first_, commit).status(), IsOk());
  ASSERT_THAT(SaveRank(Rank(1), second_).status(), IsOk());
  EXPECT_THAT(SaveRank(Rank(0), first_, commit).status(), IsOk());
  commit.mutable_metrics(0)->set_value(1);
  EXPECT_EQ(ReasonOf(SaveRank(Rank(0), first_, commit).status()), "ATTEMPT_REUSED");
}

TEST_F(SaveInParts, ARankThatBeginsAgainIsWaitedForAgain) {
  ASSERT_THAT(SaveRank(Rank(0), first_).status(), IsOk());
  auto again = Begin(Rank(0));
  EXPECT_EQ(again->begun().acked_count(), 1) << "its own chunk";
  EXPECT_THAT(SaveRank(Rank(1), second_)->waiting().ranks(), ElementsAre(0));
  ExpectInvisible();
  ASSERT_THAT(SendRows(*again, first_), IsOk());
  ASSERT_TRUE(again->Commit(kNoMetrics)->has_committed());
  ExpectVisible();
}

TEST_F(SaveInParts, EachRankIsFencedByItself) {
  const auto a = Begin(Rank(0));
  const auto b = Begin(Rank(1));
  const auto newer = Begin(Rank(0));
  ASSERT_THAT(SendRows(*a, first_), IsOk());
  EXPECT_EQ(ReasonOf(a->Commit(kNoMetrics).status()), "FENCED");
  ASSERT_THAT(SendRows(*b, second_), IsOk());
  EXPECT_TRUE(b->Commit(kNoMetrics)->has_waiting());
}

TEST_F(SaveInParts, TheSameCommitAgainGivesTheSameCheckpoint) {
  ASSERT_THAT(SaveRank(Rank(0), first_).status(), IsOk());
  const auto committed = SaveRank(Rank(1), second_);
  ASSERT_TRUE(committed->has_committed());
  for (const auto& [rank, rows] : {std::pair(0U, first_), std::pair(1U, second_)}) {
    const auto again = SaveRank(Rank(rank), rows);
    ASSERT_THAT(again.status(), IsOk());
    EXPECT_EQ(again->SerializeAsString(), committed->SerializeAsString());
    EXPECT_EQ(ReasonOf(SaveRank(Rank(rank), rank == 0 ? second_ : first_).status()), "ATTEMPT_REUSED");
  }
}

// Whoever finds all parts commits, once, though ranks begin anew meanwhile.
TEST_F(SaveInParts, RanksThatComeAgainAtTheSameTimeMakeOneVersion) {
  for (int epoch = 0; epoch < 20; ++epoch) {
    SCOPED_TRACE(epoch);
    const std::string key = RandomBytes(16);
    const auto save_often = [&](std::uint32_t rank) {
      v1::SaveBegin begin = Rank(rank);
      begin.set_epoch(epoch);
      begin.set_attempt_key(key);
      for (int i = 0; i < 3; ++i) {
        const auto outcome = SaveRank(begin, rank == 0 ? first_ : second_);
        ASSERT_THAT(outcome.status(), IsOk());
        if (outcome->has_committed()) {
          ASSERT_EQ(outcome->committed().checkpoint().version(), 1);
        }
      }
    };
    std::thread other([&] { save_often(1); });
    save_often(0);
    other.join();
    const auto restored = Restore(absl::StrCat("r@", epoch));
    ASSERT_THAT(restored.status(), IsOk());
    EXPECT_EQ(restored->at("m.w"), Data('a') + Data('b', 2));
  }
}

TEST_F(SaveInParts, WhatWasMergedFromPartsThatChangedIsNotCommitted) {
  ASSERT_THAT(SaveRank(Rank(0), first_).status(), IsOk());
  const auto b = Begin(Rank(1));
  ASSERT_THAT(SendRows(*b, second_), IsOk());
  ASSERT_THAT(b->Flush(true), IsOk());
  ASSERT_THAT(b->Settle(), IsOk());
  Draft draft;
  draft.checkpoint.set_run("r");
  draft.components = {""};
  draft.parts.resize(2);
  draft.parts[0].set_manifest("what rank 0 had");
  const SessionRef session{SessionOf(*b), "default", 1, b->begun().fence()};
  EXPECT_EQ(ReasonOf(store_->versions().Commit(session, draft).status()), "PARTS_CHANGED");
  ExpectInvisible();
}

TEST_F(SaveInParts, EndsWithItsLeaseWhenARankDoesNotCome) {
  ASSERT_THAT(SaveRank(Rank(0), first_).status(), IsOk());
  clock_.Advance(options_.lease - std::chrono::seconds(1));
  EXPECT_THAT(WaitsFor(), ElementsAre(1));  // whoever asks keeps it alive
  clock_.Advance(options_.lease - std::chrono::seconds(1));
  ASSERT_THAT(store_->sessions().ExpireIdle(), IsOk());
  EXPECT_THAT(WaitsFor(), ElementsAre(1));
  clock_.Advance(options_.lease + std::chrono::seconds(1));
  ASSERT_THAT(store_->sessions().ExpireIdle(), IsOk());
  EXPECT_EQ(ReasonOf(Look().status()), "SESSION_ENDED");
  EXPECT_THAT(StoreTest::Rows("T"), IsEmpty());
  EXPECT_THAT(StoreTest::Rows("P"), IsEmpty());
  const auto late = SaveStream::Begin(*store_, Rank(1), [](const std::string&, std::uint64_t) {});
  EXPECT_EQ(ReasonOf(late.status()), "SESSION_ENDED") << "the others would wait for themselves";
  ExpectInvisible();
}

TEST_F(SaveInParts, RanksMustBeginAlike) {
  const auto a = Begin(Rank(0));
  const auto reason = [&](v1::SaveBegin begin) {
    return ReasonOf(SaveStream::Begin(*store_, std::move(begin), [](const std::string&, std::uint64_t) {}).status());
  };
  EXPECT_EQ(reason(Rank(1, 3)), "ATTEMPT_REUSED");
  v1::SaveBegin other = Rank(1);
  other.set_step(7);
  EXPECT_EQ(reason(other), "ATTEMPT_REUSED");
  EXPECT_EQ(reason(Rank(2)), "BAD_RANK");
  EXPECT_EQ(reason(Rank(0, 4097)), "BAD_RANK");
  EXPECT_EQ(reason(Rank(1, 1)), "BAD_RANK");
}

TEST_F(SaveInParts, AViewIsRefused) {
  const auto save = Begin(Rank(0));
  ASSERT_THAT(SendTensors(*save, {{"m.a", "0123"}}), IsOk());
  v1::TensorBatch batch;
  v1::Tensor& view = *batch.add_tensors();
  view.set_path("m.v");
  view.set_dtype(v1::DTYPE_UINT8);
  view.set_view_of(0);
  EXPECT_EQ(ReasonOf(save->AddTensors(batch)), "SHARDED_VIEW");
}

TEST_F(SaveInParts, BoxesMustLieWithinTheirTensor) {
  const auto reason = [&](std::uint64_t first, const std::string& bytes, std::uint64_t total) {
    const auto save = Begin(Rank(0));
    return ReasonOf(SendRows(*save, {{"m.w", total, first, bytes}}));
  };
  EXPECT_EQ(reason(kChunk, Data('a'), 2 * kChunk), "");
  EXPECT_EQ(reason(kChunk + 1, Data('a'), 2 * kChunk), "BAD_BOX");
  EXPECT_EQ(reason(~std::uint64_t{0}, Data('a'), 2 * kChunk), "BAD_BOX");
  EXPECT_EQ(reason(5, "01234", 10), "");
  EXPECT_EQ(reason(6, "01234", 10), "BAD_BOX");
}

TEST_F(SaveInParts, ABoxOfASmallTensorHasItsBytes) {
  v1::TensorBatch batch;
  v1::Tensor& tensor = *batch.add_tensors();
  tensor.set_path("m.w");
  tensor.set_dtype(v1::DTYPE_UINT8);
  tensor.add_shape(10);
  *tensor.add_boxes() = WholeBox(tensor);
  tensor.mutable_boxes(0)->set_inline_data("012345678");
  EXPECT_EQ(ReasonOf(Begin(Rank(0))->AddTensors(batch)), "WRONG_SIZE");
  tensor.mutable_boxes(0)->set_inline_data("0123456789");
  EXPECT_THAT(Begin(Rank(0))->AddTensors(batch), IsOk());
  tensor.mutable_boxes(0)->set_digests("x");
  EXPECT_EQ(ReasonOf(Begin(Rank(0))->AddTensors(batch)), "BAD_BOX");
}

TEST_F(SaveInParts, LookingForASaveThatNeverBegan) {
  EXPECT_EQ(ReasonOf(Look().status()), "SAVE_NOT_FOUND");
  v1::GetSaveRequest request;
  request.set_attempt_key("short");
  EXPECT_EQ(ReasonOf(GetSave(*store_, request).status()), "BAD_ATTEMPT_KEY");
}

}  // namespace
}  // namespace ckpt::storage
