// What only the store as a whole does. What streams do with it: protocol_test.cc.
#include "storage/store.h"

#include <cerrno>
#include <thread>

#include "storage/failing_disk_fixture.h"
#include "storage/store_fixture.h"

namespace ckpt::storage {
namespace {

using testing::AllOf;
using testing::Contains;

class WholeStoreTest : public StoreTest {};

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
    if (round == 0) EXPECT_THAT(calls, Contains("fsync " + dir_.string()));
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

}  // namespace
}  // namespace ckpt::storage
