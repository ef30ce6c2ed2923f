// What kv_engine.h promises of transactions that are open at the same time. Of one: kv_engine_contract_test.cc.
#include <array>
#include <atomic>
#include <latch>
#include <thread>

#include "absl/strings/str_cat.h"
#include "storage/kv_engine_contract_fixture.h"

namespace ckpt::storage {
namespace {

using std::string_literals::operator""s;
using testing::IsEmpty;
using testing::Optional;

// Runs the function on so many threads, with each one's number.
void OnThreads(int count, const std::function<void(int)>& run) {
  std::vector<std::thread> threads;
  std::latch start(count);
  for (int i = 0; i < count; ++i) {
    threads.emplace_back([&, i] {
      start.arrive_and_wait();
      run(i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

absl::Status Add(Transaction& txn, const std::string& key, Hold hold, int what) {
  CKPT_ASSIGN_OR_RETURN(const auto value, txn.Get(key, hold));
  return txn.Put(key, absl::StrCat(std::stoi(value.value_or("0")) + what));
}

TEST_P(KvEngineContract, SharedHoldersDoNotBlockEachOther) {
  Put("there", "1");
  for (const std::string& key : {"there"s, "absent"s})
    EXPECT_TRUE(PassesDuring(Holding(key, Hold::kShared), Holding(key, Hold::kShared), kAnyTime)) << key;
}

TEST_P(KvEngineContract, AReadWithoutAHoldWaitsForNobody) {
  Put("a", "1");
  EXPECT_TRUE(PassesDuring(Holding("a", Hold::kExclusive), Holding("a", Hold::kNone), kAnyTime));
  EXPECT_TRUE(PassesDuring(Putting("a", "2"), Holding("a", Hold::kNone), kAnyTime));
  EXPECT_TRUE(PassesDuring(Holding("a", Hold::kNone), Putting("a", "3"), kAnyTime));
}

TEST_P(KvEngineContract, OtherKeysAreFree) {
  EXPECT_TRUE(PassesDuring(Holding("a", Hold::kExclusive), Putting("b", "1"), kAnyTime));
}

TEST_P(KvEngineContract, AnExclusiveHolderWaitsForSharedOnes) {
  Put("there", "1");
  for (const std::string& key : {"there"s, "absent"s})
    EXPECT_FALSE(PassesDuring(Holding(key, Hold::kShared), Holding(key, Hold::kExclusive), kLinger)) << key;
}

TEST_P(KvEngineContract, EveryHolderWaitsForAnExclusiveOne) {
  Put("there", "1");
  for (const std::string& key : {"there"s, "absent"s}) {
    EXPECT_FALSE(PassesDuring(Holding(key, Hold::kExclusive), Holding(key, Hold::kShared), kLinger)) << key;
    EXPECT_FALSE(PassesDuring(Holding(key, Hold::kExclusive), Holding(key, Hold::kExclusive), kLinger)) << key;
  }
}

TEST_P(KvEngineContract, MultiGetHoldsEachOfItsKeys) {
  const auto holding = [](Hold hold) {
    return [hold](Transaction& txn) { return txn.MultiGet(std::vector{"there"s, "absent"s}, hold).status(); };
  };
  for (const std::string& key : {"there"s, "absent"s}) {
    Put("there", "1");
    EXPECT_TRUE(PassesDuring(holding(Hold::kShared), Holding(key, Hold::kShared), kAnyTime)) << key;
    EXPECT_FALSE(PassesDuring(holding(Hold::kExclusive), Holding(key, Hold::kShared), kLinger)) << key;
    EXPECT_FALSE(PassesDuring(holding(Hold::kShared), Putting(key, "2"), kLinger)) << key;
    EXPECT_TRUE(PassesDuring(holding(Hold::kNone), Putting(key, "2"), kAnyTime)) << key;
    ASSERT_THAT(Transact(Deleting("absent")), IsOk());
  }
}

TEST_P(KvEngineContract, NobodyChangesWhatIsHeld) {
  for (const Hold hold : {Hold::kShared, Hold::kExclusive}) {
    Put("there", "1");
    EXPECT_FALSE(PassesDuring(Holding("there", hold), Putting("there", "2"), kLinger));
    EXPECT_FALSE(PassesDuring(Holding("there", hold), Deleting("there"), kLinger));
    EXPECT_FALSE(PassesDuring(Holding("absent", hold), Putting("absent", "2"), kLinger));
    ASSERT_THAT(Transact(Deleting("absent")), IsOk());
  }
}

TEST_P(KvEngineContract, WhatIsWrittenIsHeldExclusive) {
  Put("a", "1");
  EXPECT_FALSE(PassesDuring(Putting("a", "2"), Holding("a", Hold::kShared), kLinger));
  EXPECT_FALSE(PassesDuring(Putting("a", "2"), Putting("a", "3"), kLinger));
  EXPECT_FALSE(PassesDuring(Deleting("a"), Putting("a", "4"), kLinger));
  EXPECT_THAT(Get("a"), Optional("4"s));
}

TEST_P(KvEngineContract, AHoldLastsWhenItIsTakenTwice) {
  const Body twice = [](Transaction& txn) -> absl::Status {
    CKPT_RETURN_IF_ERROR(txn.Get("a", Hold::kExclusive).status());
    return txn.Get("a", Hold::kShared).status();
  };
  EXPECT_FALSE(PassesDuring(twice, Holding("a", Hold::kShared), kLinger));
}

TEST_P(KvEngineContract, HoldsEndWithTheirTransactionHoweverItEnds) {
  for (const absl::Status& end : {absl::OkStatus(), absl::CancelledError()}) {
    EXPECT_EQ(Transact([&](Transaction& txn) -> absl::Status {
                CKPT_RETURN_IF_ERROR(txn.Get("a", Hold::kExclusive).status());
                CKPT_RETURN_IF_ERROR(txn.Put("b", "1"));
                return end;
              }),
              end);
    EXPECT_THAT(Transact(Putting("a", "2")), IsOk());
    EXPECT_THAT(Transact(Putting("b", "2")), IsOk());
  }
}

TEST_P(KvEngineContract, WhoeverHadToWaitReadsWhatWasCommittedMeanwhile) {
  Put("a", "1");
  std::optional<std::string> seen;
  PassesDuring(
      Putting("a", "2"),
      [&](Transaction& txn) -> absl::Status {
        CKPT_ASSIGN_OR_RETURN(seen, txn.Get("a", Hold::kShared));
        return absl::OkStatus();
      },
      kLinger);
  EXPECT_THAT(seen, Optional("2"s));
}

TEST_P(KvEngineContract, AnAbsentKeyHeldForUpdateIsGuarded) {
  for (const Hold hold : {Hold::kShared, Hold::kExclusive}) {
    for (int round = 0; round < 50; ++round) {
      const std::string key = absl::StrCat("key ", static_cast<int>(hold), " ", round);
      std::atomic<int> first = 0;
      OnThreads(2, [&](int) {
        bool absent = false;
        EXPECT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                      CKPT_ASSIGN_OR_RETURN(const auto value, txn.Get(key, hold));
                      absent = !value.has_value();
                      std::this_thread::yield();
                      return absent ? txn.Put(key, "x") : absl::OkStatus();
                    }),
                    IsOk());
        first += absent ? 1 : 0;
      });
      ASSERT_EQ(first, 1) << key;
    }
  }
}

TEST_P(KvEngineContract, ConcurrentIncrementsLoseNothing) {
  constexpr int kThreads = 8;
  constexpr int kEach = 100;
  OnThreads(kThreads, [&](int) {
    for (int i = 0; i < kEach; ++i)
      ASSERT_THAT(Transact([&](Transaction& txn) { return Add(txn, "n", Hold::kExclusive, 1); }), IsOk());
  });
  EXPECT_THAT(Get("n"), Optional(absl::StrCat(kThreads * kEach)));
}

// Both hold it shared before either writes: one of them has to be run again.
TEST_P(KvEngineContract, SharedHoldersThatBothWriteBothFinishAndLoseNothing) {
  std::latch both(2);
  OnThreads(2, [&](int) {
    bool first = true;
    EXPECT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                  CKPT_RETURN_IF_ERROR(txn.Get("n", Hold::kShared).status());
                  if (std::exchange(first, false)) both.arrive_and_wait();
                  return Add(txn, "n", Hold::kShared, 1);
                }),
                IsOk());
  });
  EXPECT_THAT(Get("n"), Optional("2"s));
}

TEST_P(KvEngineContract, DeadlocksAreResolvedAndBothFinish) {
  const std::array<std::string, 2> keys = {"a", "b"};
  std::latch both(2);
  std::atomic<int> runs = 0;
  OnThreads(2, [&](int i) {
    bool first = true;
    EXPECT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                  ++runs;
                  CKPT_RETURN_IF_ERROR(Add(txn, keys[static_cast<std::size_t>(i)], Hold::kExclusive, 1));
                  if (std::exchange(first, false)) both.arrive_and_wait();
                  return Add(txn, keys[static_cast<std::size_t>(1 - i)], Hold::kExclusive, 1);
                }),
                IsOk());
  });
  EXPECT_GE(runs, 3);
  EXPECT_THAT(Get("a"), Optional("2"s));
  EXPECT_THAT(Get("b"), Optional("2"s));
}

// Readers that hold both rows never see half of a commit.
TEST_P(KvEngineContract, ACommitIsSeenAsAWhole) {
  constexpr int kRounds = 200;
  Put("a", "0");
  Put("b", "0");
  OnThreads(4, [&](int i) {
    for (int round = 0; round < kRounds; ++round) {
      ASSERT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                    if (i < 2) {
                      CKPT_RETURN_IF_ERROR(Add(txn, "a", Hold::kExclusive, 1));
                      return Add(txn, "b", Hold::kExclusive, -1);
                    }
                    CKPT_ASSIGN_OR_RETURN(const auto a, txn.Get("a", Hold::kShared));
                    CKPT_ASSIGN_OR_RETURN(const auto b, txn.Get("b", Hold::kShared));
                    EXPECT_EQ(std::stoi(*a) + std::stoi(*b), 0);
                    return absl::OkStatus();
                  }),
                  IsOk());
    }
  });
  EXPECT_THAT(Get("a"), Optional(absl::StrCat(2 * kRounds)));
}

// The rule of pins (docs/architecture.md): who pins holds the pack's row shared; who condemns holds it exclusive and
// then scans for pins, which nothing guards. Without the held row both would commit.
TEST_P(KvEngineContract, AHeldRowKeepsAScanTrue) {
  for (int round = 0; round < 100; ++round) {
    const std::string pack = absl::StrCat("pack ", round);
    const std::string pins = absl::StrCat("pin ", round, " ");
    Put(pack, "LIVE");
    std::atomic<int> pinned = 0;
    std::atomic<int> condemned = 0;
    OnThreads(3, [&](int i) {
      bool done = false;
      EXPECT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                    CKPT_ASSIGN_OR_RETURN(const auto state, txn.Get(pack, i == 0 ? Hold::kExclusive : Hold::kShared));
                    if (i != 0) {
                      done = state == "LIVE";
                      return done ? txn.Put(absl::StrCat(pins, i), "") : absl::OkStatus();
                    }
                    CKPT_ASSIGN_OR_RETURN(const auto found, txn.Scan(pins, "", 10));
                    done = found.empty();
                    return done ? txn.Put(pack, "CONDEMNED") : absl::OkStatus();
                  }),
                  IsOk());
      (i == 0 ? condemned : pinned) += done ? 1 : 0;
    });
    ASSERT_EQ(condemned == 0 ? 2 : 0, pinned) << round;
    ASSERT_THAT(Get(pack), Optional(condemned == 0 ? "LIVE"s : "CONDEMNED"s));
    if (condemned == 1) {
      ASSERT_THAT(Scan(pins), IsEmpty());
    }
  }
}

// The same without luck: the scan comes while a pin is being made.
TEST_P(KvEngineContract, APinThatIsBeingMadeIsSeenByTheScanThatWaited) {
  Put("pack", "LIVE");
  std::vector<Row> seen;
  const bool early = PassesDuring(
      [](Transaction& txn) -> absl::Status {
        CKPT_RETURN_IF_ERROR(txn.Get("pack", Hold::kShared).status());
        return txn.Put("pin 1", "");
      },
      [&](Transaction& txn) -> absl::Status {
        CKPT_RETURN_IF_ERROR(txn.Get("pack", Hold::kExclusive).status());
        CKPT_ASSIGN_OR_RETURN(seen, txn.Scan("pin ", "", 10));
        return absl::OkStatus();
      },
      kLinger);
  EXPECT_FALSE(early);
  EXPECT_EQ(seen.size(), 1);
}

}  // namespace
}  // namespace ckpt::storage
