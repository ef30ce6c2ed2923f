// What only RocksDB has. What every engine has: kv_engine_contract_test.cc.
#include "storage/rocksdb_engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <optional>

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
    return RocksDbEngine::Open(folder_.path() / "catalog", std::move(options)).value();
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
    EXPECT_EQ(std::count_if(std::filesystem::directory_iterator(folder_.path() / "catalog"), {},
                            [](const auto& entry) { return entry.path().extension() == ".log"; }),
              1);
  }
}

TEST_F(RocksDbEngineTest, AFolderIsOpenOnce) {
  const auto engine = Open();
  EXPECT_THAT(RocksDbEngine::Open(folder_.path() / "catalog", {}).status(),
              IsError(absl::StatusCode::kInternal, "CATALOG_FAILED"));
}

TEST_F(RocksDbEngineTest, AnErrorOfALockFileOrOfAPathWithThatWordIsNoOtherProcess) {
  std::filesystem::create_directories(folder_.path() / "catalog" / "LOCK");  // cannot be opened for writing
  EXPECT_THAT(RocksDbEngine::Open(folder_.path() / "catalog", {}).status(),
              IsError(absl::StatusCode::kInternal, "CATALOG_FAILED"));
  std::ofstream(folder_.path() / "block0") << "where a folder should be";
  EXPECT_THAT(RocksDbEngine::Open(folder_.path() / "block0" / "catalog", {}).status(),
              IsError(absl::StatusCode::kInternal, "CATALOG_FAILED"));
}

TEST_F(RocksDbEngineTest, ADamagedCatalogSaysSo) {
  Open();
  std::ofstream(folder_.path() / "catalog" / "CURRENT") << "nonsense\n";
  EXPECT_THAT(RocksDbEngine::Open(folder_.path() / "catalog", {}).status(),
              IsError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED"));
}

class LostLogTest : public RocksDbEngineTest {
 protected:
  [[nodiscard]] std::filesystem::path Dir() const { return folder_.path() / "catalog"; }
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
