#include "storage/batch_committer.h"

#include <algorithm>
#include <thread>

#include "base/random.h"
#include "gmock/gmock.h"
#include "storage/interleaving_fixture.h"

namespace ckpt::storage {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;

// Packs whose writes wait at a gate, and are counted.
class GatedPacks final : public PackStore {
 public:
  explicit GatedPacks(PackStore& packs) : packs_(packs) {}

  absl::StatusOr<WrittenBatch> Write(std::string_view domain, std::span<const Record> records,
                                     const PackId* prefer) override {
    {
      const MutexLock lock(mutex_);
      ++writes_;
      changed_.NotifyAll();
      while (!open_) changed_.Wait(mutex_);
      if (!error_.ok()) return error_;
    }
    return packs_.Write(domain, records, prefer);
  }
  void Release(const PackId& pack, bool indexed) override {
    packs_.Release(pack, indexed);
    const MutexLock lock(mutex_);
    released_.push_back(indexed);
  }
  absl::Status Read(std::string_view domain, const PackId& pack, std::uint64_t offset,
                    std::span<std::byte> buffer) const override {
    return packs_.Read(domain, pack, offset, buffer);
  }
  absl::Status Delete(std::string_view domain, const PackId& pack) override { return packs_.Delete(domain, pack); }
  absl::StatusOr<std::vector<Listed>> List() const override { return packs_.List(); }
  void SealIdle() override { packs_.SealIdle(); }

  void AwaitWrites(int count) {
    const MutexLock lock(mutex_);
    while (writes_ < count) changed_.Wait(mutex_);
  }
  void Open(absl::Status error = absl::OkStatus()) {
    const MutexLock lock(mutex_);
    open_ = true;
    error_ = std::move(error);
    changed_.NotifyAll();
  }
  int writes() {
    const MutexLock lock(mutex_);
    return writes_;
  }
  std::vector<bool> released() {
    const MutexLock lock(mutex_);
    return released_;
  }

 private:
  PackStore& packs_;
  Mutex mutex_;
  CondVar changed_;
  int writes_ CKPT_GUARDED_BY(mutex_) = 0;
  bool open_ CKPT_GUARDED_BY(mutex_) = false;
  absl::Status error_ CKPT_GUARDED_BY(mutex_);
  std::vector<bool> released_ CKPT_GUARDED_BY(mutex_);
};

class BatchCommitterTest : public InterleavingTest {
 protected:
  static constexpr int kAtWork = 3;  // groups at once

  // A batch of one chunk.
  struct One {
    SessionRef session;
    std::string bytes;
    std::optional<Stored> cited = std::nullopt;  // and of another one, which is there
    int extra_records = 0;                       // and of so many MiB that have no row
    absl::StatusOr<CommittedBatch> outcome = absl::UnknownError("not yet");
  };

  One Chunk() { return {.session = BeginSession(), .bytes = RandomBytes(kChunk)}; }

  void Commit(One& one) {
    const Bytes piece = AsBytes(one.bytes);
    Batch batch;
    batch.records.push_back(MakeRecord(RecordKind::kChunk, std::span(&piece, 1)));
    batch.index.session = one.session;
    batch.index.pins = &PinsOf(one.session);
    batch.index.entries.push_back(
        {{false, batch.records[0].digest}, RecordLocation(), kChunk, batch.records[0].fingerprint});
    if (one.cited.has_value())
      batch.index.entries.push_back({one.cited->name, std::nullopt, kChunk, one.cited->fingerprint});
    static const std::string extra(1 << 20, 'x');
    const Bytes extra_piece = AsBytes(extra);
    for (int i = 0; i < one.extra_records; ++i)
      batch.records.push_back(MakeRecord(RecordKind::kVersionFact, std::span(&extra_piece, 1)));
    one.outcome = committer_.Commit(std::move(batch));
  }

  // Commits those that stand at the disk, and behind them, as one group, the others; lets them through when all are
  // there.
  void CommitBehind(std::vector<One>& group, const absl::Status& error = absl::OkStatus()) {
    std::vector<One> first;
    for (int i = 0; i < kAtWork; ++i) first.push_back(Chunk());
    std::vector<std::thread> threads;
    for (One& one : first) threads.emplace_back([&] { Commit(one); });
    packs_.AwaitWrites(kAtWork);
    for (One& one : group) threads.emplace_back([&] { Commit(one); });
    while (committer_.waiting("default") < group.size()) std::this_thread::yield();
    packs_.Open(error);
    for (std::thread& thread : threads) thread.join();
    for (const One& one : first) EXPECT_EQ(one.outcome.status(), error);
  }

  // That the chunk is where the row says, and the row's pack is pinned.
  void ExpectThere(const One& one) {
    const v1::ChunkRow row = ChunkRowOf(one.bytes);
    EXPECT_TRUE(Pinned(one.session, PackIdOf(row)));
    EXPECT_EQ(one.outcome->result.places[0].pack, PackIdOf(row));
    EXPECT_EQ(one.outcome->result.places[0].ordinal, row.ordinal());
    std::string record(kRecordHeaderSize + kChunk, '\0');
    ASSERT_THAT(packs_.Read("default", PackIdOf(row), row.offset(), std::as_writable_bytes(std::span(record))), IsOk());
    EXPECT_EQ(record.substr(kRecordHeaderSize), one.bytes);
  }
  bool HasRow(const One& one) { return !Rows(keys::Chunk("default", Sha256(one.bytes))).empty(); }

  std::vector<One> Several() {
    std::vector<One> out;
    for (int i = 0; i < 5; ++i) out.push_back(Chunk());
    return out;
  }

  GatedPacks packs_{store_->packs()};
  BatchCommitter committer_{packs_, chunks_, kAtWork};
};

TEST_F(BatchCommitterTest, BatchesThatWaitGoTogether) {
  std::vector<One> group = Several();
  CommitBehind(group);
  EXPECT_EQ(packs_.writes(), kAtWork + 1);
  for (const One& one : group) {
    ASSERT_THAT(one.outcome.status(), IsOk());
    EXPECT_EQ(one.outcome->pack, group[0].outcome->pack);
    EXPECT_THAT(one.outcome->locations, SizeIs(1));
    EXPECT_EQ(one.outcome->result.new_bytes, kChunk);
    ExpectThere(one);
  }
}

TEST_F(BatchCommitterTest, TheSameChunkInTwoBatchesIsIndexedOnce) {
  std::vector<One> group = Several();
  group[3].bytes = group[1].bytes;
  CommitBehind(group);
  std::uint64_t new_bytes = 0;
  for (const One& one : group) {
    ASSERT_THAT(one.outcome.status(), IsOk());
    new_bytes += one.outcome->result.new_bytes;
    ExpectThere(one);
  }
  EXPECT_EQ(new_bytes, (group.size() - 1) * kChunk);
}

TEST_F(BatchCommitterTest, AFencedStreamFailsAlone) {
  std::vector<One> group = Several();
  ++group[2].session.fence;
  CommitBehind(group);
  EXPECT_EQ(packs_.writes(), kAtWork + 1);
  for (std::size_t i = 0; i < group.size(); ++i) {
    if (i == 2) continue;
    ASSERT_THAT(group[i].outcome.status(), IsOk());
    ExpectThere(group[i]);
  }
  EXPECT_THAT(group[2].outcome.status(), HasReason("FENCED"));
  EXPECT_FALSE(HasRow(group[2]));
  EXPECT_THAT(packs_.released(), testing::Each(true));  // the pack goes on: its row says that all of it counts
  const auto length = Get<v1::PackLengthRow>(keys::PackLength(group[0].outcome->pack)).indexed_length();
  EXPECT_GE(length, group[4].outcome->locations[0].offset + kRecordHeaderSize + kChunk);
}

TEST_F(BatchCommitterTest, WhatIsGoneIsToldToItsStreamAlone) {
  std::vector<One> group = Several();
  group[4].cited = Stored{{false, Sha256("gone")}, Xxh3("gone"), {}};
  CommitBehind(group);
  for (std::size_t i = 0; i < 4; ++i) {
    ASSERT_THAT(group[i].outcome.status(), IsOk());
    EXPECT_THAT(group[i].outcome->result.gone, IsEmpty());
    ExpectThere(group[i]);
  }
  ASSERT_THAT(group[4].outcome.status(), IsOk());
  EXPECT_THAT(group[4].outcome->result.gone, testing::ElementsAre(group[4].cited->name));
  EXPECT_EQ(group[4].outcome->result.new_bytes, 0);
  EXPECT_FALSE(HasRow(group[4]));

  group[4].cited.reset();
  Commit(group[4]);
  ASSERT_THAT(group[4].outcome.status(), IsOk());
  EXPECT_EQ(group[4].outcome->result.new_bytes, kChunk);
  ExpectThere(group[4]);
}

TEST_F(BatchCommitterTest, APackOfWhichNothingCouldBeIndexedIsSealed) {
  std::vector<One> group = Several();
  for (One& one : group) ++one.session.fence;
  CommitBehind(group);
  for (const One& one : group) {
    EXPECT_THAT(one.outcome.status(), HasReason("FENCED"));
    EXPECT_FALSE(HasRow(one));
  }
  EXPECT_EQ(std::ranges::count(packs_.released(), false), 1);
}

TEST_F(BatchCommitterTest, DomainsDoNotWaitForEachOther) {
  v1::SessionRow wanted = Wanted();
  wanted.set_domain("other");
  One other{.session = BeginSession(wanted), .bytes = RandomBytes(kChunk)};
  std::vector<One> busy;
  for (int i = 0; i < kAtWork; ++i) busy.push_back(Chunk());
  std::vector<std::thread> threads;
  for (One& one : busy) threads.emplace_back([&] { Commit(one); });
  packs_.AwaitWrites(kAtWork);
  threads.emplace_back([&] { Commit(other); });
  packs_.AwaitWrites(kAtWork + 1);
  packs_.Open();
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(other.outcome.status(), IsOk());
}

TEST_F(BatchCommitterTest, AFullDiskIsToldToAll) {
  const absl::Status full = MakeError(absl::StatusCode::kResourceExhausted, "DISK_FULL", "no room");
  std::vector<One> group = Several();
  CommitBehind(group, full);
  for (const One& one : group) {
    EXPECT_EQ(one.outcome.status(), full);
    EXPECT_FALSE(HasRow(one));
  }
}

TEST_F(BatchCommitterTest, AGroupIsBounded) {
  std::vector<One> group = Several();
  for (One& one : group) one.extra_records = 6;
  CommitBehind(group);
  EXPECT_EQ(packs_.writes(), kAtWork + 3);  // of 2, 2 and 1
  for (const One& one : group) EXPECT_THAT(one.outcome.status(), IsOk());
}

}  // namespace
}  // namespace ckpt::storage
