#include "storage/chunk_index.h"

#include <functional>
#include <utility>

#include "base/random.h"
#include "storage/interleaving_fixture.h"
#include "storage/record_bitmap.h"

namespace ckpt::storage {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

// An engine whose next transaction is undone and run again.
class ConflictsOnce final : public KvEngine {
 public:
  explicit ConflictsOnce(KvEngine& engine) : engine_(engine) {}

  absl::Status Transact(Durability durability, const std::function<absl::Status(Transaction&)>& body) override {
    return engine_.Transact(durability, [&](Transaction& txn) {
      absl::Status status = body(txn);
      return std::exchange(conflicts_, false) && status.ok() ? Conflict() : status;
    });
  }

 private:
  KvEngine& engine_;
  bool conflicts_ = true;
};

class ChunkIndexTest : public InterleavingTest {
 protected:
  IndexResult IndexIn(ChunkIndex& index, const IndexBatch& batch) { return index.Index(batch).value(); }

  // How many packs the session's pins name, each as often as it is named.
  std::size_t PinCount(const SessionRef& session) {
    std::size_t count = 0;
    for (const auto& [key, value] : Rows(keys::PinsOfSession(session.id)))
      count += ParseRow<v1::PinsRow>(key, value)->packs().size() / PackId::kSize;
    return count;
  }
};

TEST_F(ChunkIndexTest, ABatchPinsWhatItsStreamHasNotPinned) {
  const SessionRef session = BeginSession();
  const Stored a = Store();
  const Stored b = Store();
  ASSERT_THAT(Index(session, a), IsOk());
  EXPECT_THAT(IndexIn(chunks_, BatchOf(session, &b, {a})).gone, IsEmpty());
  ASSERT_THAT(Cite(session, b), IsOk());
  EXPECT_THAT(Pin(session, {a, b}).value(), ElementsAre(true, true));
  EXPECT_THAT(Pins(session.id), UnorderedElementsAre(a.written.pack, b.written.pack));
  EXPECT_EQ(PinCount(session), 2U) << "each once";
}

TEST_F(ChunkIndexTest, RecordsOfSeveralPacksHealIntoSeveralPacks) {
  const std::string bytes_a = RandomBytes(kChunk);
  const std::string bytes_b = RandomBytes(kChunk);
  const Stored a = Store(bytes_a);
  const Stored b = Store(bytes_b);
  const SessionRef other = BeginSession();
  ASSERT_THAT(Index(other, a), IsOk());
  ASSERT_THAT(Index(other, b), IsOk());
  const SessionRef user = BeginSession();
  ASSERT_TRUE(Pin(user, a).value());
  ASSERT_THAT(Commit(user, a).status(), IsOk());
  Quarantine(a);
  Quarantine(b);
  const Stored new_a = Store(bytes_a);
  const Stored new_b = Store(bytes_b);
  ASSERT_THAT(IndexTogether({{BeginSession(), new_a}, {BeginSession(), new_b}}), IsOk());
  EXPECT_EQ(PackOf(a), new_a.written.pack);
  EXPECT_EQ(PackOf(b), new_b.written.pack);
  EXPECT_THAT(Pins(other.id),
              UnorderedElementsAre(a.written.pack, b.written.pack, new_a.written.pack, new_b.written.pack));
  EXPECT_THAT(Rows(keys::Reference(a.written.pack, {1, 1}, "m")), IsEmpty());
  EXPECT_THAT(Rows(keys::Reference(new_a.written.pack, {1, 1}, "m")), testing::SizeIs(1));
  EXPECT_THAT(Rows(keys::ReferencesOfPack(new_b.written.pack)), IsEmpty());
}

TEST_F(ChunkIndexTest, ARecordMayHealInThePackThatHasTheDamagedOne) {
  const Stored old = Store();
  const Stored fact = Store();
  const SessionRef user = BeginSession();
  ASSERT_THAT(Index(user, old), IsOk());
  ASSERT_THAT(Index(user, fact), IsOk());
  Draft draft;
  draft.checkpoint.set_run("r");
  draft.components = {"", "m"};
  draft.used = {{old.name, 1}};
  draft.fact = fact.written.locations[0];
  ASSERT_THAT(versions_.Commit(user, draft).status(), IsOk());
  const PackId& pack = old.written.pack;
  ASSERT_EQ(Rows(keys::VersionPack({1, 1}, pack)).size(), 1U);
  Quarantine(old);
  Stored fresh = old;  // as the next record of the pack
  fresh.written.locations[0].offset = old.written.end;
  fresh.written.locations[0].ordinal = 1;
  fresh.written.end = 2 * old.written.end;
  const SessionRef healer = BeginSession();
  ASSERT_THAT(Index(healer, fresh), IsOk());
  const auto row = Get<v1::ChunkRow>(RecordKey("default", old.name));
  EXPECT_FALSE(row.quarantined());
  EXPECT_EQ(row.ordinal(), 1U);
  const auto used = Get<v1::ReferenceRow>(keys::Reference(pack, {1, 1}, "m"));
  EXPECT_FALSE(HasRecord(used.records(), 0));
  EXPECT_TRUE(HasRecord(used.records(), 1));
  EXPECT_EQ(Rows(keys::VersionPack({1, 1}, pack)).size(), 1U) << "the version still uses the pack";
  EXPECT_TRUE(Pinned(healer, pack));
}

TEST_F(ChunkIndexTest, AnotherStreamOfTheSessionPinsForItself) {
  const v1::SessionRow wanted = Wanted();
  const SessionRef first = BeginSession(wanted);
  const Stored record = Store();
  ASSERT_THAT(Index(first, record), IsOk());
  const SessionRef second = BeginSession(wanted);
  ASSERT_EQ(second.id, first.id);
  ASSERT_THAT(Pin(second, record).value(), true);
  EXPECT_TRUE(Pinned(second, record.written.pack));
}

TEST_F(ChunkIndexTest, WhatABatchWouldHavePinnedIsNotTakenForPinned) {
  const SessionRef session = BeginSession();
  const Stored record = Store();
  EXPECT_THAT(IndexIn(chunks_, BatchOf(session, &record, {Store()})).gone, testing::SizeIs(1));
  EXPECT_FALSE(Pinned(session, record.written.pack));
  ASSERT_THAT(Index(session, record), IsOk());
  EXPECT_TRUE(Pinned(session, record.written.pack));
}

TEST_F(ChunkIndexTest, WhatWasUndoneAndRunAgainIsPinned) {
  const SessionRef session = BeginSession();
  const Stored record = Store();
  ConflictsOnce engine(engine_);
  ChunkIndex index(engine);
  EXPECT_THAT(IndexIn(index, BatchOf(session, &record)).gone, IsEmpty());
  EXPECT_TRUE(Pinned(session, record.written.pack));

  const SessionRef other = BeginSession();
  ConflictsOnce again(engine_);
  EXPECT_TRUE(ChunkIndex(again).Pin(other, {record.name}, PinsOf(other)).value()[0].has_value());
  EXPECT_TRUE(Pinned(other, record.written.pack));
}

}  // namespace
}  // namespace ckpt::storage
