// Sessions that end, begin and commit while something else is in the middle of a transaction.
#include "base/random.h"
#include "storage/interleaving_fixture.h"

namespace ckpt::storage {
namespace {

class SessionEndInterleaving : public InterleavingTest {
 protected:
  // A quarantined record, on whose old pack the idle session has a pin, and its new copy.
  struct Healing {
    SessionRef idle;
    SessionRef healer;
    Stored old;
    Stored fresh;
  };
  Healing ArrangeHealing() {
    const std::string bytes = RandomBytes(kChunk);
    Healing out{BeginIdleSession(), BeginSession(), Store(bytes), Store(bytes)};
    EXPECT_THAT(Index(out.idle, out.old), IsOk());
    Quarantine(out.old);
    return out;
  }
  void ExpectEnded(const Healing& healing) {
    EXPECT_EQ(SessionRowOf(healing.idle).state(), v1::SessionRow::EXPIRED);
    ExpectNoPins(healing.idle, {healing.old.written.pack, healing.fresh.written.pack});
    EXPECT_TRUE(Pinned(healing.healer, healing.fresh.written.pack));
  }
};

TEST_F(SessionEndInterleaving, HealingWhileALeaseEndsLeavesNoPin) {
  AtEveryPlace([&] {
    const Healing healing = ArrangeHealing();
    return Works{[=, this] { ExpireIdle(); }, [=, this] { EXPECT_THAT(Index(healing.healer, healing.fresh), IsOk()); },
                 [=, this](bool) { ExpectEnded(healing); }};
  });
}

TEST_F(SessionEndInterleaving, ALeaseThatEndsDuringHealingLeavesNoPin) {
  AtEveryPlace([&] {
    const Healing healing = ArrangeHealing();
    return Works{[=, this] { EXPECT_THAT(Index(healing.healer, healing.fresh), IsOk()); }, [=, this] { ExpireIdle(); },
                 [=, this](bool) { ExpectEnded(healing); }};
  });
}

}  // namespace
}  // namespace ckpt::storage
