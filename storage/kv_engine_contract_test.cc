// What kv_engine.h promises of one transaction at a time: visibility, undoing, order, durability. Of several at once:
// kv_engine_locking_contract_test.cc.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/seed_fixture.h"
#include "storage/kv_engine_contract_fixture.h"

namespace ckpt::storage {
namespace {

using std::string_literals::operator""s;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Optional;
using testing::Pair;
using testing::SizeIs;

constexpr auto kSync = KvEngine::Durability::kSync;
constexpr auto kLazy = KvEngine::Durability::kLazy;

TEST_P(KvEngineContract, WhatIsCommittedIsSeenAndWhatIsDeletedIsNot) {
  EXPECT_EQ(Get("a"), std::nullopt);
  Put("a", "1");
  EXPECT_THAT(Get("a"), Optional("1"s));
  Put("a", "2");
  EXPECT_THAT(Get("a"), Optional("2"s));
  ASSERT_THAT(Transact(Deleting("a")), IsOk());
  EXPECT_EQ(Get("a"), std::nullopt);
}

TEST_P(KvEngineContract, AnEmptyValueIsNotAbsent) {
  Put("a", "");
  EXPECT_THAT(Get("a"), Optional(""s));
  EXPECT_THAT(Scan("a"), ElementsAre(Pair("a", "")));
}

TEST_P(KvEngineContract, DeletingWhatIsNotThereIsOk) { EXPECT_THAT(Transact(Deleting("a")), IsOk()); }

TEST_P(KvEngineContract, AnyBytesMakeAKeyAndAValue) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<char>(i));
  const std::vector<std::string> keys = {"\0"s, "\0\0"s, "\xff"s, "\xff\xff"s, "a\0b"s, "a"s, bytes};
  for (const std::string& key : keys) Put(key, key + bytes);
  for (const std::string& key : keys) EXPECT_THAT(Get(key), Optional(key + bytes));
  EXPECT_THAT(Scan(""), SizeIs(keys.size()));
}

TEST_P(KvEngineContract, ALongValueComesBackWhole) {
  const std::string value(std::size_t{4} << 20, 'v');
  Put("a", value);
  EXPECT_TRUE(Get("a") == value);
}

TEST_P(KvEngineContract, AnErrorOfTheBodyUndoesAllAndComesBack) {
  Put("old", "1");
  int runs = 0;
  const absl::Status error = MakeError(absl::StatusCode::kAborted, "FENCED", "of the body's own");
  const absl::Status status = Transact([&](Transaction& txn) -> absl::Status {
    ++runs;
    CKPT_RETURN_IF_ERROR(txn.Put("new", "2"));
    CKPT_RETURN_IF_ERROR(txn.Put("old", "2"));
    CKPT_RETURN_IF_ERROR(txn.Delete("old"));
    return error;
  });
  EXPECT_EQ(status, error);
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(Get("new"), std::nullopt);
  EXPECT_THAT(Get("old"), Optional("1"s));
}

TEST_P(KvEngineContract, ABodyThatSaysConflictIsRunAgainFromNothing) {
  int runs = 0;
  ASSERT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                ++runs;
                EXPECT_THAT(txn.Get("run 1", Hold::kExclusive).value(), std::nullopt);
                CKPT_RETURN_IF_ERROR(txn.Put(absl::StrCat("run ", runs), "x"));
                return runs < 3 ? Conflict() : absl::OkStatus();
              }),
              IsOk());
  EXPECT_EQ(runs, 3);
  EXPECT_THAT(Scan("run"), ElementsAre(Pair("run 3", "x")));
}

TEST_P(KvEngineContract, EndlessConflictsAreGivenUp) {
  int runs = 0;
  const absl::Status status = Transact([&](Transaction& txn) -> absl::Status {
    ++runs;
    CKPT_RETURN_IF_ERROR(txn.Put("a", "x"));
    return Conflict();
  });
  EXPECT_THAT(status, IsError(absl::StatusCode::kAborted, kConflict));
  EXPECT_GT(runs, 1);
  EXPECT_EQ(Get("a"), std::nullopt);
}

TEST_P(KvEngineContract, ATransactionReadsItsOwnWrites) {
  Put("old", "1");
  Put("gone", "1");
  ASSERT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                CKPT_RETURN_IF_ERROR(txn.Put("new", "2"));
                CKPT_RETURN_IF_ERROR(txn.Put("old", "2"));
                CKPT_RETURN_IF_ERROR(txn.Delete("gone"));
                for (const Hold hold : {Hold::kNone, Hold::kShared, Hold::kExclusive}) {
                  EXPECT_THAT(txn.Get("new", hold).value(), Optional("2"s));
                  EXPECT_THAT(txn.Get("old", hold).value(), Optional("2"s));
                  EXPECT_EQ(txn.Get("gone", hold).value(), std::nullopt);
                }
                EXPECT_THAT(txn.MultiGet(std::vector{"gone"s, "new"s, "old"s}, Hold::kNone).value(),
                            ElementsAre(std::nullopt, "2"s, "2"s));
                CKPT_RETURN_IF_ERROR(txn.Put("gone", "3"));
                EXPECT_THAT(txn.Get("gone", Hold::kNone).value(), Optional("3"s));
                return absl::OkStatus();
              }),
              IsOk());
  EXPECT_THAT(Scan(""), ElementsAre(Pair("gone", "3"), Pair("new", "2"), Pair("old", "2")));
}

TEST_P(KvEngineContract, OthersSeeNothingBeforeTheCommit) {
  Put("old", "1");
  Put("gone", "1");
  ASSERT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                CKPT_RETURN_IF_ERROR(txn.Put("new", "2"));
                CKPT_RETURN_IF_ERROR(txn.Put("old", "2"));
                CKPT_RETURN_IF_ERROR(txn.Delete("gone"));
                EXPECT_THAT(Scan(""), ElementsAre(Pair("gone", "1"), Pair("old", "1")));
                EXPECT_EQ(Get("new"), std::nullopt);
                return absl::OkStatus();
              }),
              IsOk());
  EXPECT_THAT(Scan(""), ElementsAre(Pair("new", "2"), Pair("old", "2")));
}

TEST_P(KvEngineContract, AReadWithoutAHoldSeesTheLatestCommit) {
  Put("a", "1");
  ASSERT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                EXPECT_THAT(txn.Get("a", Hold::kNone).value(), Optional("1"s));
                Put("a", "2");
                EXPECT_THAT(txn.Get("a", Hold::kNone).value(), Optional("2"s));
                EXPECT_THAT(txn.MultiGet(std::vector{"a"s}, Hold::kNone).value(), ElementsAre("2"s));
                EXPECT_THAT(txn.Scan("a", "", 1).value(), ElementsAre(Pair("a", "2")));
                EXPECT_THAT(txn.Get("a", Hold::kExclusive).value(), Optional("2"s));
                return absl::OkStatus();
              }),
              IsOk());
}

TEST_P(KvEngineContract, MultiGetKeepsTheOrderOfItsKeys) {
  Put("a", "1");
  Put("b", "2");
  ASSERT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                EXPECT_THAT(txn.MultiGet(std::vector{"b"s, "x"s, "a"s, "b"s}, Hold::kNone).value(),
                            ElementsAre("2"s, std::nullopt, "1"s, "2"s));
                EXPECT_THAT(txn.MultiGet({}, Hold::kNone).value(), IsEmpty());
                return absl::OkStatus();
              }),
              IsOk());
}

TEST_P(KvEngineContract, MultiGetTakesThousandsOfKeys) {
  // So many that an engine may read them on several threads: the transaction's own writes count all the same.
  std::vector<std::string> keys;
  ASSERT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                for (int i = 0; i < 3000; ++i) {
                  keys.push_back(absl::StrCat(i * 7919 % 3000));
                  if (i % 3 != 0) CKPT_RETURN_IF_ERROR(txn.Put(keys.back(), keys.back()));
                }
                return absl::OkStatus();
              }),
              IsOk());
  for (const Hold hold : {Hold::kNone, Hold::kShared, Hold::kExclusive}) {
    for (const bool own : {false, true}) {
      const auto read = [&](Transaction& txn) -> absl::Status {
        if (own) CKPT_RETURN_IF_ERROR(txn.Put(keys[0], "own"));
        CKPT_ASSIGN_OR_RETURN(const auto values, txn.MultiGet(keys, hold));
        EXPECT_EQ(values.size(), keys.size());
        EXPECT_EQ(values[0], own ? std::optional("own"s) : std::nullopt);
        for (std::size_t i = 1; i < keys.size(); ++i)
          EXPECT_EQ(values[i], i % 3 != 0 ? std::optional(keys[i]) : std::nullopt) << i;
        return absl::InternalError("undo");
      };
      EXPECT_EQ(Transact(read), absl::InternalError("undo"));
    }
  }
}

TEST_P(KvEngineContract, AScanTakesWhatStartsWithThePrefixInTheOrderOfBytes) {
  for (const std::string& key :
       {"\x7f"s, "a"s, "b"s, "b\0"s, "b\x01"s, "b\x7f"s, "b\x80"s, "b\xff"s, "b\xff\xff"s, "c"s})
    Put(key, "");
  EXPECT_THAT(Scan("b"), ElementsAre(Pair("b", ""), Pair("b\0"s, ""), Pair("b\x01", ""), Pair("b\x7f", ""),
                                     Pair("b\x80", ""), Pair("b\xff", ""), Pair("b\xff\xff", "")));
  EXPECT_THAT(Scan("b\xff"), ElementsAre(Pair("b\xff", ""), Pair("b\xff\xff", "")));
  EXPECT_THAT(Scan("b\0"s), ElementsAre(Pair("b\0"s, "")));
  EXPECT_THAT(Scan("d"), IsEmpty());
  EXPECT_THAT(Scan("\xff"), IsEmpty());
}

TEST_P(KvEngineContract, AScanOfTheLastPrefixEnds) {
  for (const std::string& key : {"\xfe"s, "\xff"s, "\xff\0"s, "\xff\xff"s, "\xff\xff\xff"s}) Put(key, "");
  EXPECT_THAT(Scan("\xff"), SizeIs(4));
  EXPECT_THAT(Scan("\xff\xff"), ElementsAre(Pair("\xff\xff", ""), Pair("\xff\xff\xff", "")));
}

TEST_P(KvEngineContract, AScanGoesOnAfterAKeyWhetherItIsThereOrNot) {
  for (const std::string& key : {"a9"s, "b1"s, "b2"s, "b4"s, "c0"s}) Put(key, "");
  EXPECT_THAT(Scan("b", "b1"), ElementsAre(Pair("b2", ""), Pair("b4", "")));
  EXPECT_THAT(Scan("b", "b3"), ElementsAre(Pair("b4", "")));
  EXPECT_THAT(Scan("b", "b1\0"s), ElementsAre(Pair("b2", ""), Pair("b4", "")));
  EXPECT_THAT(Scan("b", "b4"), IsEmpty());
  EXPECT_THAT(Scan("b", "c"), IsEmpty());
  EXPECT_THAT(Scan("b", "a"), SizeIs(3));
  EXPECT_THAT(Scan("b", "", 2), ElementsAre(Pair("b1", ""), Pair("b2", "")));
  EXPECT_THAT(Scan("b", "b2", 1), ElementsAre(Pair("b4", "")));
  EXPECT_THAT(Scan("b", "", 0), IsEmpty());
}

TEST_P(KvEngineContract, AScanOfLargeRowsEndsEarlyAndGoesOn) {
  const std::string megabyte(1 << 20, 'x');
  for (char c = '0'; c <= '9'; ++c) Put("b"s + c, megabyte);
  std::string seen;
  for (std::string after;;) {
    const auto rows = Scan("b", after);
    if (rows.empty()) break;
    EXPECT_LE(rows.size() * megabyte.size(), kScanBytes + megabyte.size());
    for (const auto& [key, value] : rows) seen += key.back();
    after = rows.back().first;
  }
  EXPECT_EQ(seen, "0123456789");
}

TEST_P(KvEngineContract, AScanSeesTheTransactionsOwnWrites) {
  for (const std::string& key : {"b1"s, "b3"s, "b5"s}) Put(key, "old");
  ASSERT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                for (const std::string& key : {"a"s, "b0"s, "b3"s, "b6"s, "c"s})
                  CKPT_RETURN_IF_ERROR(txn.Put(key, "new"));
                CKPT_RETURN_IF_ERROR(txn.Delete("b1"));
                EXPECT_THAT(txn.Scan("b", "", 9).value(),
                            ElementsAre(Pair("b0", "new"), Pair("b3", "new"), Pair("b5", "old"), Pair("b6", "new")));
                EXPECT_THAT(txn.Scan("b", "b3", 1).value(), ElementsAre(Pair("b5", "old")));
                return absl::OkStatus();
              }),
              IsOk());
}

TEST_P(KvEngineContract, AnyScanIsThatOfASortedMap) {
  std::mt19937_64 random = SeededRandom();
  const auto some = [&](std::size_t size) {
    static constexpr char kLetters[] = {'\0', '\x01', 'a', '\x7f', '\x80', '\xfe', '\xff'};
    std::string out(random() % (size + 1), '\0');
    for (char& c : out) c = kLetters[random() % sizeof kLetters];
    return out;
  };
  std::map<std::string, std::string> model;
  for (int round = 0; round < 20; ++round) {
    ASSERT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                  for (int i = 0; i < 20; ++i) {
                    const std::string key = "k" + some(4);
                    const bool put = random() % 3 != 0;
                    CKPT_RETURN_IF_ERROR(put ? txn.Put(key, key + "v") : txn.Delete(key));
                    if (put) model[key] = key + "v";
                    if (!put) model.erase(key);
                  }
                  for (int i = 0; i < 20; ++i) {
                    const std::string prefix = "k" + some(2);
                    const std::string after = random() % 2 == 0 ? "" : prefix + some(3);
                    const std::size_t limit = random() % 10;
                    std::vector<Row> expected;
                    for (auto it = model.lower_bound(prefix); it != model.end() && expected.size() < limit; ++it)
                      if (it->first.starts_with(prefix) && it->first > after) expected.push_back(*it);
                    EXPECT_EQ(txn.Scan(prefix, after, limit).value(), expected);
                  }
                  return absl::OkStatus();
                }),
                IsOk());
  }
}

TEST_P(KvEngineContract, ABigTransactionIsCommittedOrUndoneAsAWhole) {
  constexpr int kRows = 10'000;
  const auto fill = [&](const std::string& value, const absl::Status& end) {
    return Transact([&](Transaction& txn) -> absl::Status {
      for (int i = 0; i < kRows; ++i) {
        const std::string key = absl::StrCat("row ", i);
        CKPT_RETURN_IF_ERROR(txn.Get(key, Hold::kExclusive).status());
        CKPT_RETURN_IF_ERROR(txn.Put(key, value));
      }
      return end;
    });
  };
  EXPECT_FALSE(fill("undone", absl::CancelledError()).ok());
  EXPECT_THAT(Scan("row "), IsEmpty());
  ASSERT_THAT(fill("kept", absl::OkStatus()), IsOk());
  EXPECT_FALSE(fill("undone", absl::CancelledError()).ok());
  const std::vector<Row> rows = Scan("row ");
  EXPECT_THAT(rows, SizeIs(kRows));
  EXPECT_TRUE(std::all_of(rows.begin(), rows.end(), [](const Row& row) { return row.second == "kept"; }));
}

TEST_P(KvEngineContract, CommitsAreThereAfterReopening) {
  ASSERT_THAT(engine_->Transact(kSync, Putting("sync", "1")), IsOk());
  ASSERT_THAT(engine_->Transact(kLazy, Putting("lazy", "1")), IsOk());
  ASSERT_THAT(engine_->Transact(kSync, Putting("gone", "1")), IsOk());
  ASSERT_THAT(engine_->Transact(kSync, Deleting("gone")), IsOk());
  Reopen();
  EXPECT_THAT(Scan(""), ElementsAre(Pair("lazy", "1"), Pair("sync", "1")));
}

// The process that dies is this program, started again by gtest.
TEST_P(KvEngineContract, CommitsSurviveACrashOfTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  constexpr char kVariable[] = "CKPT_TEST_CRASH_DIR";
  setenv(kVariable, (folder_.path() / "crashed").c_str(), 0);
  const std::string dir = std::getenv(kVariable);
  EXPECT_EXIT(
      {
        const std::unique_ptr<KvEngine> engine = GetParam()(dir);
        CKPT_CHECK_OK(engine->Transact(kSync, Putting("sync", "1")));
        CKPT_CHECK_OK(engine->Transact(kLazy, Putting("lazy", "1")));
        const absl::Status never = engine->Transact(kLazy, [](Transaction& txn) {
          CKPT_CHECK_OK(txn.Put("open", "1"));
          _exit(0);
          return absl::OkStatus();
        });
      },
      testing::ExitedWithCode(0), "");
  unsetenv(kVariable);
  engine_.reset();
  engine_ = GetParam()(dir);
  EXPECT_THAT(Scan(""), ElementsAre(Pair("lazy", "1"), Pair("sync", "1")));
}

}  // namespace
}  // namespace ckpt::storage
