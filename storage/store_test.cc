// What only the store as a whole does. What streams do with it: protocol_test.cc.
#include "storage/store.h"

#include <thread>

#include "storage/store_fixture.h"

namespace ckpt::storage {
namespace {

class WholeStoreTest : public StoreTest {};

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
