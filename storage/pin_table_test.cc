#include "storage/pin_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/random.h"
#include "storage/fresh_folder_fixture.h"
#include "storage/rocksdb_engine.h"
#include "storage/rows.h"
#include "storage/status_matchers_fixture.h"

namespace ckpt::storage {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;
using testing::UnorderedElementsAre;

PackId RandomPack() { return *PackId::From(RandomBytes(PackId::kSize)); }
SessionId RandomSession() { return *SessionId::From(RandomBytes(SessionId::kSize)); }

// A transaction in which something happens each time that a scan has found all.
class AfterScans final : public Transaction {
 public:
  AfterScans(Transaction& txn, std::function<void()> after) : txn_(txn), after_(std::move(after)) {}

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key, Hold hold) override {
    return txn_.Get(key, hold);
  }
  absl::StatusOr<std::vector<std::optional<std::string>>> MultiGet(std::span<const std::string> keys,
                                                                   Hold hold) override {
    return txn_.MultiGet(keys, hold);
  }
  absl::Status Put(std::string_view key, std::string_view value) override { return txn_.Put(key, value); }
  absl::Status Delete(std::string_view key) override { return txn_.Delete(key); }
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Scan(std::string_view prefix, std::string_view after,
                                                                        std::size_t limit) override {
    auto rows = txn_.Scan(prefix, after, limit);
    if (rows->empty()) after_();
    return rows;
  }

 private:
  Transaction& txn_;
  const std::function<void()> after_;
};

class PinTable : public testing::Test {
 protected:
  void Transact(const std::function<absl::Status(Transaction&)>& body) {
    EXPECT_THAT(engine_->Transact(KvEngine::Durability::kSync, body), IsOk());
  }
  void Pin(const SessionId& session, const std::set<PackId>& packs) {
    Transact([&](Transaction& txn) { return PutPins(txn, session, packs); });
  }
  template <typename Result>
  Result Read(const std::function<absl::StatusOr<Result>(Transaction&)>& read) {
    Result result;
    Transact([&](Transaction& txn) -> absl::Status {
      CKPT_ASSIGN_OR_RETURN(result, read(txn));
      return absl::OkStatus();
    });
    return result;
  }
  std::set<PackId> Packs(const SessionId& session) {
    return Read<std::set<PackId>>([&](Transaction& txn) { return PinnedPacks(txn, session); });
  }
  std::map<SessionId, std::set<PackId>> Pinned(const std::set<PackId>& packs) {
    return Read<std::map<SessionId, std::set<PackId>>>([&](Transaction& txn) { return PinnedBySession(txn, packs); });
  }
  // As healing does: the pins of the old pack, held exclusive, go to the new one.
  void Move(const PackId& from, const PackId& to) {
    Transact([&](Transaction& txn) -> absl::Status {
      CKPT_RETURN_IF_ERROR(txn.Get(keys::Pack(from), Hold::kExclusive).status());
      CKPT_ASSIGN_OR_RETURN(const auto pinned, PinnedBySession(txn, {from}));
      for (const auto& [session, packs] : pinned) CKPT_RETURN_IF_ERROR(PutPins(txn, session, {to}));
      return absl::OkStatus();
    });
  }

  const FreshFolder folder_;
  const std::unique_ptr<RocksDbEngine> engine_ = RocksDbEngine::Open(folder_.path() / "catalog", {}).value();
};

TEST_F(PinTable, OfPacksInOneRowEachIsPinned) {
  const SessionId session = RandomSession();
  const SessionId other = RandomSession();
  const std::vector<PackId> packs = {RandomPack(), RandomPack(), RandomPack(), RandomPack()};
  Pin(session, {packs[0], packs[1]});
  Pin(session, {packs[1], packs[2]});
  Pin(other, {packs[2]});
  EXPECT_THAT(Packs(session), UnorderedElementsAre(packs[0], packs[1], packs[2]));
  EXPECT_THAT(Pinned({packs[0], packs[3]}), ElementsAre(Pair(session, ElementsAre(packs[0]))));
  EXPECT_THAT(Pinned({packs[1], packs[2]}),
              UnorderedElementsAre(Pair(session, UnorderedElementsAre(packs[1], packs[2])),
                                   Pair(other, ElementsAre(packs[2]))));
  EXPECT_THAT(Pinned({packs[3]}), IsEmpty());
}

TEST_F(PinTable, PinsOfManyPagesAreAllFoundAndAllDropped) {
  const SessionId session = RandomSession();
  const SessionId other = RandomSession();
  std::set<PackId> all;
  while (all.size() < 2500) all.insert(RandomPack());  // a page has 1024 rows
  Transact([&](Transaction& txn) -> absl::Status {
    for (const PackId& pack : all) CKPT_RETURN_IF_ERROR(PutPins(txn, session, {pack}));
    return absl::OkStatus();
  });
  const PackId last = RandomPack();
  Pin(other, {last});
  EXPECT_EQ(Packs(session), all);
  EXPECT_THAT(Pinned(all), ElementsAre(Pair(session, all)));
  Transact([&](Transaction& txn) { return DropPins(txn, session, {}); });
  EXPECT_THAT(Packs(session), IsEmpty());
  EXPECT_THAT(Packs(other), ElementsAre(last));
}

// A record may move twice while its session ends: each time after the end has looked for pins and before it holds what
// it found.
TEST_F(PinTable, PinsThatMoveAsTheirSessionEndsAreDroppedToo) {
  const SessionId session = RandomSession();
  const std::vector<PackId> packs = {RandomPack(), RandomPack(), RandomPack()};
  Pin(session, {packs[0]});
  std::size_t moved = 0;
  Transact([&](Transaction& txn) {
    AfterScans moving(txn, [&] {
      if (moved + 1 == packs.size()) return;
      Move(packs[moved], packs[moved + 1]);
      ++moved;
    });
    return DropPins(moving, session, {});
  });
  EXPECT_EQ(moved, 2U);
  EXPECT_THAT(Packs(session), IsEmpty());
}

TEST(StreamPins, WhatItHasPinnedIsNotNew) {
  const PackId a = RandomPack();
  const PackId b = RandomPack();
  StreamPins pins;
  EXPECT_THAT(pins.NewOf({a, b}), UnorderedElementsAre(a, b));
  pins.Add({a});
  EXPECT_THAT(pins.NewOf({a, b}), ElementsAre(b));
  pins.Add({b});
  EXPECT_THAT(pins.NewOf({a, b}), IsEmpty());
}

}  // namespace
}  // namespace ckpt::storage
