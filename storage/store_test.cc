// What only the store as a whole does. What streams do with it: protocol_test.cc.
#include "storage/store.h"

#include <cerrno>
#include <functional>
#include <thread>

#include "storage/failing_disk_fixture.h"
#include "storage/store_fixture.h"

namespace ckpt::storage {
namespace {

using testing::AllOf;
using testing::Contains;

class WholeStoreTest : public StoreTest {
 protected:
  static constexpr std::uint64_t kMargin = 64 << 20;
  static constexpr std::uint64_t kPlenty = 256 << 20;

  [[nodiscard]] std::filesystem::path Reserve() const { return options_.dir / "reserve"; }

  // True once it is so; the store's maintenance comes round every second.
  static bool Eventually(const std::function<bool()>& so) {
    for (int i = 0; i < 1000; ++i) {
      if (so()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  // Leaves a commit without its marker, as a crash does.
  void PutPendingMarker() {
    v1::CommitFact fact;
    fact.set_domain("default");
    fact.set_run_id(1);
    fact.set_sequence(1);
    Put(keys::PendingMarker({1, 1}), fact);
  }
};

// "packs" and the catalog are names in DIR, DIR is one in its parent.
TEST_F(WholeStoreTest, TheFoldersOfANewStoreAreSynced) {
  CloseStore();
  FailingDisk disk(dir_);
  options_.dir = dir_ / "new" / "deep" / "";
  for (int round = 0; round < 2; ++round) {
    const std::size_t before = disk.calls().size();
    OpenStore();
    auto calls = disk.calls();
    calls.erase(calls.begin(), calls.begin() + static_cast<std::ptrdiff_t>(before));
    EXPECT_THAT(calls, AllOf(Contains("fsync " + (dir_ / "new").string()),
                             Contains("fsync " + (dir_ / "new" / "deep").string())));
    EXPECT_THAT(calls, Contains("fsync " + dir_.string()).Times(round == 0 ? 1 : 0));
    CloseStore();
  }
  disk.Fail("fsync", EIO);
  EXPECT_THAT(Store::Open(options_).status(), IsError(absl::StatusCode::kInternal, "CANNOT_OPEN_STORE"));
}

TEST_F(WholeStoreTest, ItIsInUseUntilTheLastOfItIsClosed) {
  for (int round = 0; round < 3; ++round) {
    ASSERT_THAT(Save(BeginOf("r", round), {{"m.a", Data('a')}}).status(), IsOk());
    std::unique_ptr<Store> next;
    std::thread opening([&] {
      while (next == nullptr) {
        auto opened = Store::Open(options_);
        if (opened.ok()) {
          next = *std::move(opened);
        } else {
          ASSERT_THAT(opened.status(), HasReason("STORE_IN_USE"));
        }
      }
    });
    CloseStore();
    opening.join();
    ASSERT_NE(next, nullptr);
    store_ = std::move(next);
  }
}

TEST_F(WholeStoreTest, CommitMarkersThatFailedAreWrittenLater) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  ASSERT_TRUE(Eventually([&] { return Rows(keys::PendingMarkers()).empty(); }));
  PutPendingMarker();
  FailingDisk disk("/packs/");
  disk.Fail("pwrite", EIO);
  store_->MarkCommits();
  ASSERT_TRUE(Eventually([&] { return !disk.calls().empty(); }));
  EXPECT_FALSE(Rows(keys::PendingMarkers()).empty());
  disk.Fail("pwrite", 0);
  EXPECT_TRUE(Eventually([&] { return Rows(keys::PendingMarkers()).empty(); }));
}

TEST_F(WholeStoreTest, CommitMarkersThatFailedAtTheStartAreWrittenLater) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  ASSERT_TRUE(Eventually([&] { return Rows(keys::PendingMarkers()).empty(); }));
  PutPendingMarker();
  CloseStore();
  FailingDisk disk("/packs/");
  disk.Fail("pwrite", EIO);
  OpenStore();
  EXPECT_FALSE(Rows(keys::PendingMarkers()).empty());
  disk.Fail("pwrite", 0);
  EXPECT_TRUE(Eventually([&] { return Rows(keys::PendingMarkers()).empty(); }));
}

TEST_F(WholeStoreTest, MarkersWaitForRoom) {
  FailingDisk disk("/packs/");
  disk.SetFreeBytes(kMargin - 1);
  PutPendingMarker();
  const std::size_t packs = Rows(keys::Packs()).size();
  CloseStore();
  OpenStore();
  store_->MarkCommits();
  CloseStore();
  OpenStore();
  EXPECT_FALSE(Rows(keys::PendingMarkers()).empty());
  EXPECT_EQ(Rows(keys::Packs()).size(), packs);
  disk.SetFreeBytes(kPlenty);
  EXPECT_TRUE(Eventually([&] { return Rows(keys::PendingMarkers()).empty(); }));
}

TEST_F(WholeStoreTest, TheReserveComesAndGoesThoughNobodySaves) {
  FailingDisk disk("/packs/");
  EXPECT_TRUE(std::filesystem::exists(Reserve()));
  disk.SetFreeBytes(kMargin - 1);
  EXPECT_TRUE(Eventually([&] { return !std::filesystem::exists(Reserve()); }));
  disk.SetFreeBytes(kPlenty);
  EXPECT_TRUE(Eventually([&] { return std::filesystem::exists(Reserve()); }));
}

TEST_F(WholeStoreTest, ItStartsOnlyWhereTheCatalogHasRoom) {
  CloseStore();
  FailingDisk disk("/packs/");
  disk.SetFreeBytes(0);
  const auto refused = Store::Open(options_).status();
  EXPECT_THAT(refused, IsError(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
  EXPECT_FALSE(std::filesystem::exists(Reserve()));  // it is given up first
  disk.SetFreeBytes(16 << 20);
  EXPECT_THAT(Store::Open(options_).status(), IsOk());
}

TEST_F(WholeStoreTest, AnEmptyFolderForPacksIsOne) {
  CloseStore();
  options_.dir = dir_ / "with-a-mount-point";
  std::filesystem::create_directories(options_.dir / "packs" / "lost+found");
  EXPECT_THAT(Store::Open(options_).status(), IsOk());
}

TEST_F(WholeStoreTest, PacksWithoutACatalogAreNoEmptyStore) {
  ASSERT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(), IsOk());
  CloseStore();
  std::filesystem::remove_all(options_.dir / "catalog");
  const auto kLost = IsError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED");
  EXPECT_THAT(Store::Open(options_).status(), kLost);
  std::filesystem::remove(options_.dir / "durable");
  EXPECT_THAT(Store::Open(options_).status(), kLost);
  options_.accept_loss = true;
  EXPECT_THAT(Store::Open(options_).status(), IsOk());
  options_.accept_loss = false;
  EXPECT_THAT(Store::Open(options_).status(), IsOk());
}

TEST_F(WholeStoreTest, TheReserveIsGivenUpBeforeACommitThatNeedsIt) {
  FailingDisk disk("/packs/");
  disk.SetFreeBytes(kMargin - 1);
  Put("x", v1::StoreRow());
  EXPECT_FALSE(std::filesystem::exists(Reserve()));
}

TEST_F(WholeStoreTest, TheReserveIsGivenUpWhenAWriteMeetsAFullDisk) {
  CloseStore();
  options_.reserve_bytes = kPlenty / 2;
  OpenStore();
  ASSERT_TRUE(std::filesystem::exists(Reserve()));
  FailingDisk disk("/packs/");
  disk.SetFreeBytes(kMargin + options_.reserve_bytes / 2);  // room for a save, if it were true; none to take it again
  disk.Fail("pwrite", ENOSPC);
  EXPECT_THAT(Save(BeginOf("r", 1), {{"m.a", Data('a')}}).status(),
              IsError(absl::StatusCode::kResourceExhausted, "DISK_FULL"));
  EXPECT_FALSE(std::filesystem::exists(Reserve()));
}

TEST_F(WholeStoreTest, MarkersThatKeepFailingHoldNobodyUpWhoClosesIt) {
  PutPendingMarker();
  FailingDisk disk("/packs/");
  disk.Fail("pwrite", EIO);
  store_->MarkCommits();
  CloseStore();
  EXPECT_FALSE(disk.calls().empty());
}

}  // namespace
}  // namespace ckpt::storage
