// What only RocksDB has. What every engine has: kv_engine_contract_test.cc.
#include "storage/rocksdb_engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>

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
