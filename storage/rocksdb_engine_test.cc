// What only RocksDB has. What every engine has: kv_engine_contract_test.cc.
#include "storage/rocksdb_engine.h"

#include <gtest/gtest.h>
#include <rocksdb/perf_context.h>
#include <rocksdb/perf_level.h>
#include <rocksdb/utilities/transaction_db.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <optional>

#include "absl/strings/str_cat.h"
#include "storage/failing_disk_fixture.h"
#include "storage/fresh_folder_fixture.h"
#include "storage/status_matchers_fixture.h"

namespace ckpt::storage {
namespace {

constexpr auto kSync = KvEngine::Durability::kSync;
constexpr auto kLazy = KvEngine::Durability::kLazy;

absl::Status PutA(Transaction& txn) { return txn.Put("a", "1"); }

class RocksDbEngineTest : public testing::Test {
 protected:
  std::unique_ptr<RocksDbEngine> Open(RocksDbOptions options = {}) {
    return RocksDbEngine::Open(Dir(), std::move(options)).value();
  }
  [[nodiscard]] std::filesystem::path Dir() const { return folder_.path() / "catalog"; }
  static std::ptrdiff_t Logs(const std::filesystem::path& dir) {
    return std::count_if(std::filesystem::directory_iterator(dir), {},
                         [](const auto& entry) { return entry.path().extension() == ".log"; });
  }

  std::optional<std::string> Get(KvEngine& engine, std::string_view key) {
    std::optional<std::string> value;
    EXPECT_THAT(engine.Transact(kLazy,
                                [&](Transaction& txn) -> absl::Status {
                                  CKPT_ASSIGN_OR_RETURN(value, txn.Get(key, Hold::kNone));
                                  return absl::OkStatus();
                                }),
                IsOk());
    return value;
  }
  static void MultiGet(KvEngine& engine, const std::vector<std::string>& keys) {
    const auto read = [&](Transaction& txn) { return txn.MultiGet(keys, Hold::kNone).status(); };
    EXPECT_THAT(engine.Transact(kLazy, read), IsOk());
  }
  static void Put(KvEngine& engine, const std::vector<std::string>& keys) {
    EXPECT_THAT(engine.Transact(kSync,
                                [&](Transaction& txn) {
                                  for (const std::string& key : keys) CKPT_RETURN_IF_ERROR(txn.Put(key, key));
                                  return absl::OkStatus();
                                }),
                IsOk());
  }
  // How many syncs of its log the call makes.
  template <typename Call>
  std::ptrdiff_t SyncsIn(const Call& call) {
    const FailingDisk disk(".log");
    EXPECT_THAT(call(), IsOk());
    const auto calls = disk.calls();
    return std::count_if(calls.begin(), calls.end(), [](const std::string& c) { return c.find("sync ") != c.npos; });
  }

  const FreshFolder folder_;
};

TEST_F(RocksDbEngineTest, ASyncCommitIsOneSyncAndALazyOneNone) {
  const auto engine = Open();
  EXPECT_EQ(SyncsIn([&] { return engine->Transact(kSync, PutA); }), 1);
  EXPECT_EQ(SyncsIn([&] { return engine->Transact(kLazy, PutA); }), 0);
}

TEST_F(RocksDbEngineTest, ReadsCostNoWrite) {
  const auto engine = Open();
  EXPECT_EQ(SyncsIn([&] {
              return engine->Transact(kSync, [](Transaction& txn) { return txn.Get("a", Hold::kExclusive).status(); });
            }),
            0);
}

TEST_F(RocksDbEngineTest, AStartKeepsNoLogThatItHasRecovered) {
  for (int start = 0; start < 4; ++start) {
    const auto engine = Open();
    ASSERT_THAT(engine->Transact(kSync, PutA), IsOk());
    EXPECT_EQ(Logs(Dir()), 1);
  }
}

TEST_F(RocksDbEngineTest, ACatalogWithTheLogsOfManyStartsLosesNothingAndKeepsOne) {
  rocksdb::Options options;
  options.create_if_missing = true;
  for (int start = 0; start < 4; ++start) {  // each of which keeps the logs that it has recovered
    rocksdb::TransactionDB* db = nullptr;
    ASSERT_TRUE(rocksdb::TransactionDB::Open(options, {}, Dir().string(), &db).ok());
    ASSERT_TRUE(db->Put({}, std::to_string(start), "of old").ok());
    delete db;
  }
  ASSERT_GT(Logs(Dir()), 2);
  const auto engine = Open();
  EXPECT_EQ(Logs(Dir()), 1);
  for (int start = 0; start < 4; ++start) EXPECT_EQ(Get(*engine, std::to_string(start)), "of old");
}

TEST_F(RocksDbEngineTest, AKillRightAfterAStartThatRecoveredLosesNothing) {
  // A kill leaves the files as they are then.
  int kills = 0;
  const auto expect_all_after_a_kill = [&](int starts) {
    const std::filesystem::path killed = folder_.path() / absl::StrCat("killed ", kills++);
    std::filesystem::copy(Dir(), killed);
    const auto engine = RocksDbEngine::Open(killed, {}).value();
    for (int start = 0; start < starts; ++start) {
      EXPECT_EQ(Get(*engine, absl::StrCat("synced ", start)), "1");
      EXPECT_EQ(Get(*engine, absl::StrCat("lazy ", start)), "2");
    }
  };
  for (int start = 0; start < 3; ++start) {
    const auto engine = Open();
    expect_all_after_a_kill(start);
    const auto put = [&](const char* name, const char* value) {
      return [=](Transaction& txn) { return txn.Put(absl::StrCat(name, start), value); };
    };
    ASSERT_THAT(engine->Transact(kSync, put("synced ", "1")), IsOk());
    ASSERT_THAT(engine->Transact(kLazy, put("lazy ", "2")), IsOk());
    expect_all_after_a_kill(start + 1);
  }
}

// What a lookup of many keys reads is not kept; the filters and indexes that it needed are.
TEST_F(RocksDbEngineTest, ManyKeysReadFiltersAndIndexesOnce) {
  std::vector<std::string> keys;
  for (int i = 1000; i < 1400; ++i) keys.push_back(absl::StrCat(i));  // in several parts, on one thread
  Put(*Open(), keys);
  const auto engine = Open();  // into a file, from the log
  std::vector<std::string> absent;
  absent.reserve(keys.size());
  for (const std::string& key : keys) absent.push_back(key + "a");
  rocksdb::SetPerfLevel(rocksdb::kEnableCount);
  for (const auto& asked : {keys, absent, keys}) MultiGet(*engine, asked);
  const rocksdb::PerfContext& reads = *rocksdb::get_perf_context();
  EXPECT_GT(reads.filter_block_read_count, 0U);
  EXPECT_GT(reads.index_block_read_count, 0U);
  rocksdb::get_perf_context()->Reset();
  MultiGet(*engine, absent);
  EXPECT_EQ(reads.filter_block_read_count + reads.index_block_read_count, 0U);
  rocksdb::get_perf_context()->Reset();
  MultiGet(*engine, keys);
  EXPECT_EQ(reads.filter_block_read_count + reads.index_block_read_count, 0U);
  EXPECT_GT(reads.block_read_count, 0U) << "its blocks are kept";
  for (const std::vector<std::string>& few : {std::vector{keys[0]}, std::vector{keys[300], keys[399]}}) {
    MultiGet(*engine, few);
    rocksdb::get_perf_context()->Reset();
    MultiGet(*engine, few);
    EXPECT_EQ(reads.block_read_count, 0U) << "those of few keys are not kept";
  }
  rocksdb::SetPerfLevel(rocksdb::kDisable);
}

TEST_F(RocksDbEngineTest, AFolderIsOpenOnce) {
  const auto engine = Open();
  EXPECT_THAT(RocksDbEngine::Open(Dir(), {}).status(), IsError(absl::StatusCode::kInternal, "CATALOG_FAILED"));
}

TEST_F(RocksDbEngineTest, AnErrorOfALockFileOrOfAPathWithThatWordIsNoOtherProcess) {
  std::filesystem::create_directories(Dir() / "LOCK");  // cannot be opened for writing
  EXPECT_THAT(RocksDbEngine::Open(Dir(), {}).status(), IsError(absl::StatusCode::kInternal, "CATALOG_FAILED"));
  std::ofstream(folder_.path() / "block0") << "where a folder should be";
  EXPECT_THAT(RocksDbEngine::Open(folder_.path() / "block0" / "catalog", {}).status(),
              IsError(absl::StatusCode::kInternal, "CATALOG_FAILED"));
}

TEST_F(RocksDbEngineTest, ADamagedCatalogSaysSo) {
  Open();
  std::ofstream(Dir() / "CURRENT") << "nonsense\n";
  EXPECT_THAT(RocksDbEngine::Open(Dir(), {}).status(), IsError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED"));
}

class LostLogTest : public RocksDbEngineTest {
 protected:
  [[nodiscard]] RocksDbOptions Options() const { return {.durable_file = folder_.path() / "durable"}; }

  [[nodiscard]] std::filesystem::path Log() const {
    for (const auto& entry : std::filesystem::directory_iterator(Dir()))
      if (entry.path().extension() == ".log" && entry.file_size() != 0) return entry.path();
    return {};
  }

  // Two rows, which nothing but the log holds.
  void WriteTwoRows() {
    const auto engine = Open(Options());
    ASSERT_THAT(engine->Transact(kSync, PutA), IsOk());
    ASSERT_THAT(engine->Transact(kSync, [](Transaction& txn) { return txn.Put("b", "2"); }), IsOk());
  }

  // Refused, and left as it is, until the loss is accepted.
  void ExpectLoss() {
    for (int round = 0; round < 2; ++round)
      EXPECT_THAT(RocksDbEngine::Open(Dir(), Options()).status(),
                  IsError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED"));
    RocksDbOptions accept = Options();
    accept.accept_loss = true;
    const auto engine = Open(accept);
    EXPECT_EQ(Get(*engine, "b"), std::nullopt);
  }
};

TEST_F(LostLogTest, ADamagedLogIsNoCrash) {
  WriteTwoRows();
  const std::filesystem::path log = Log();
  std::fstream file(log, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(log)) - 1);
  file.put('\xff');
  file.close();
  ExpectLoss();
  EXPECT_EQ(Get(*Open(Options()), "a"), "1");
}

TEST_F(LostLogTest, NorIsOneThatWasCut) {
  WriteTwoRows();
  std::filesystem::resize_file(Log(), std::filesystem::file_size(Log()) - 1);
  ExpectLoss();
}

TEST_F(LostLogTest, NorIsAFolderThatIsGone) {
  WriteTwoRows();
  std::filesystem::remove_all(Dir());
  ExpectLoss();
}

TEST_F(LostLogTest, AFolderWithoutItsCurrentFileIsRefusedWhateverIsAccepted) {
  WriteTwoRows();
  std::filesystem::remove(Dir() / "CURRENT");
  RocksDbOptions options = Options();
  options.accept_loss = true;
  EXPECT_THAT(RocksDbEngine::Open(Dir(), options).status(), IsError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED"));
}

TEST_F(LostLogTest, AFirstStartThatWasCutIsNoDamage) {
  std::filesystem::create_directories(Dir());
  std::ofstream(Dir() / "LOCK") << "";
  EXPECT_THAT(Open(Options())->Transact(kSync, PutA), IsOk());
}

TEST_F(LostLogTest, WhatWasNotSyncedMayGo) {
  WriteTwoRows();
  const FreshFolder crashed;
  {
    const auto engine = Open(Options());
    ASSERT_THAT(engine->Transact(kLazy, [](Transaction& txn) { return txn.Put("c", "3"); }), IsOk());
    std::filesystem::copy(folder_.path(), crashed.path(), std::filesystem::copy_options::recursive);
  }
  for (const auto& entry : std::filesystem::directory_iterator(crashed.path() / "catalog"))
    if (entry.path().extension() == ".log") std::filesystem::resize_file(entry.path(), 0);
  const auto engine = RocksDbEngine::Open(crashed.path() / "catalog", {.durable_file = crashed.path() / "durable"});
  ASSERT_THAT(engine.status(), IsOk());
  EXPECT_EQ(Get(**engine, "b"), "2");
  EXPECT_EQ(Get(**engine, "c"), std::nullopt);
}

TEST_F(LostLogTest, ADurableFileThatACrashLeftShortSaysNothing) {
  WriteTwoRows();
  std::filesystem::resize_file(folder_.path() / "durable", 0);
  EXPECT_EQ(Get(*Open(Options()), "b"), "2");
}

// gtest starts this program again for the process that dies.
TEST_F(RocksDbEngineTest, AFailedCommitIsToldToTheHandlerWhichDoesNotReturn) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto commit = [&](RocksDbOptions options) {
    const auto engine = Open(std::move(options));
    FailingDisk disk(".log");
    disk.Fail("fdatasync", EIO);
    const absl::Status never = engine->Transact(kSync, PutA);
  };
  EXPECT_EXIT(commit({}), testing::ExitedWithCode(1),
              "a write to the catalog failed: .*nothing that was promised is lost");
  EXPECT_EXIT(
      commit({.on_fatal = [](const absl::Status& status) { _exit(ReasonOf(status) == "CATALOG_FAILED" ? 7 : 8); }}),
      testing::ExitedWithCode(7), "");
  EXPECT_THAT(Open()->Transact(kSync, PutA), IsOk());
}

}  // namespace
}  // namespace ckpt::storage
