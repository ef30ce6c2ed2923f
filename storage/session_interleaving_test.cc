// Sessions that begin, are taken over, commit and end while something else is in the middle of a transaction.
#include <algorithm>

#include "base/random.h"
#include "storage/interleaving_fixture.h"

namespace ckpt::storage {
namespace {

class SessionInterleaving : public InterleavingTest {
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
    ExpectNoPins(healing.idle);
    EXPECT_TRUE(Pinned(healing.healer, healing.fresh.written.pack));
  }

  // What a stream does in transactions of its own, with a record that its session has indexed.
  using StreamWork = std::function<absl::Status(const SessionRef&, const Stored&)>;
  const StreamWork pin_ = [this](const SessionRef& session, const Stored& record) {
    return Pin(session, record).status();
  };
  const StreamWork index_ = [this](const SessionRef& session, const Stored& record) {
    Stored other = record;
    other.name.digest = Sha256(RandomBytes(16));
    return Index(session, other);
  };
  const StreamWork commit_ = [this](const SessionRef& session, const Stored& record) {
    return Commit(session, record).status();
  };

  Stored Indexed(const SessionRef& session) {
    Stored record = Store();
    EXPECT_THAT(Index(session, record), IsOk());
    return record;
  }

  // A stream's work that is not over when another stream takes the session over is in time or fenced.
  void ExpectFenced(const StreamWork& work) {
    absl::Status status;
    AtEveryPlace([&] {
      const v1::SessionRow wanted = Wanted();
      const SessionRef session = BeginSession(wanted);
      const Stored record = Indexed(session);
      return Works{[=, this, &status] { status = work(session, record); }, [=, this] { BeginSession(wanted); },
                   [&](bool passed) { EXPECT_THAT(ReasonOf(status), passed ? "FENCED" : ""); }};
    });
  }

  // Whatever the stream does while its session ends, nothing stays behind.
  void ExpectCleanEnd(const StreamWork& work) {
    for (const bool end_first : {false, true}) {
      SCOPED_TRACE(end_first);
      absl::Status status;
      AtEveryPlace([&] {
        const SessionRef session = BeginIdleSession();
        const Stored record = Indexed(session);
        const auto end = [=, this] { ExpireIdle(); };
        const auto late = [=, this, &status] { status = work(session, record); };
        return Works{end_first ? std::function<void()>(end) : late, end_first ? std::function<void()>(late) : end,
                     [=, this, &status](bool passed) {
                       ExpectNoPins(session);
                       EXPECT_FALSE(passed) << "each holds the session's row";
                       EXPECT_EQ(status.ok(), !end_first) << status;
                     }};
      });
    }
  }
};

TEST_F(SessionInterleaving, OfAGroupAllIsIndexedOrNothing) {
  for (const bool group_first : {true, false}) {
    SCOPED_TRACE(group_first);
    absl::Status status;
    AtEveryPlace([&] {
      const v1::SessionRow wanted = Wanted();
      const SessionRef a = BeginSession(wanted);
      const SessionRef b = BeginSession();
      const Stored of_a = Store();
      const Stored of_b = Store();
      const std::function<void()> index = [=, this, &status] { status = IndexTogether({{a, of_a}, {b, of_b}}); };
      const std::function<void()> fence = [=, this] { BeginSession(wanted); };
      return Works{group_first ? index : fence, group_first ? fence : index, [=, this, &status](bool) {
                     EXPECT_TRUE(status.ok() || ReasonOf(status) == "FENCED") << status;
                     EXPECT_EQ(Pinned(a, of_a.written.pack), status.ok());
                     EXPECT_EQ(Pinned(b, of_b.written.pack), status.ok());
                   }};
    });
  }
}

TEST_F(SessionInterleaving, HealingWhileALeaseEndsLeavesNoPin) {
  AtEveryPlace([&] {
    const Healing healing = ArrangeHealing();
    return Works{[=, this] { ExpireIdle(); }, [=, this] { EXPECT_THAT(Index(healing.healer, healing.fresh), IsOk()); },
                 [=, this](bool) { ExpectEnded(healing); }};
  });
}

TEST_F(SessionInterleaving, ALeaseThatEndsDuringHealingLeavesNoPin) {
  AtEveryPlace([&] {
    const Healing healing = ArrangeHealing();
    return Works{[=, this] { EXPECT_THAT(Index(healing.healer, healing.fresh), IsOk()); }, [=, this] { ExpireIdle(); },
                 [=, this](bool) { ExpectEnded(healing); }};
  });
}

TEST_F(SessionInterleaving, ANewFenceWaitsForAPinOrStopsIt) { ExpectFenced(pin_); }
TEST_F(SessionInterleaving, ANewFenceWaitsForAnIndexOrStopsIt) { ExpectFenced(index_); }
TEST_F(SessionInterleaving, ANewFenceWaitsForACommitOrStopsIt) { ExpectFenced(commit_); }

TEST_F(SessionInterleaving, AnEndedSessionGetsNoPinsFromHave) { ExpectCleanEnd(pin_); }
TEST_F(SessionInterleaving, AnEndedSessionGetsNoPinsFromABatch) { ExpectCleanEnd(index_); }

TEST_F(SessionInterleaving, ASessionCommitsOrExpires) {
  for (const bool end_first : {false, true}) {
    SCOPED_TRACE(end_first);
    absl::Status status;
    AtEveryPlace([&] {
      const SessionRef session = BeginIdleSession();
      const Stored record = Indexed(session);
      const std::function<void()> end = [this] { ExpireIdle(); };
      const std::function<void()> commit = [=, this, &status] { status = commit_(session, record); };
      return Works{end_first ? end : commit, end_first ? commit : end, [=, this, &status](bool) {
                     EXPECT_THAT(ReasonOf(status), testing::AnyOf("", "SESSION_ENDED"));
                     EXPECT_EQ(SessionRowOf(session).state(),
                               status.ok() ? v1::SessionRow::COMMITTED : v1::SessionRow::EXPIRED);
                     EXPECT_EQ(Rows(keys::ReferencesOfPack(record.written.pack)).empty(), !status.ok());
                     ExpectNoPins(session);
                   }};
    });
  }
}

TEST_F(SessionInterleaving, ASessionCommitsOnce) {
  absl::Status a;
  absl::Status b;
  AtEveryPlace([&] {
    const SessionRef session = BeginSession();
    const Stored record = Indexed(session);
    return Works{[=, this, &a] { a = commit_(session, record); }, [=, this, &b] { b = commit_(session, record); },
                 [&](bool) {
                   EXPECT_NE(a.ok(), b.ok());
                   EXPECT_THAT(a.ok() ? b : a, HasReason("SESSION_ENDED"));
                 }};
  });
}

TEST_F(SessionInterleaving, ACommittedSessionGetsNoPins) {
  for (const StreamWork& late : {pin_, index_}) {
    for (const bool commit_first : {true, false}) {
      SCOPED_TRACE(commit_first);
      AtEveryPlace([&] {
        const SessionRef session = BeginSession();
        const Stored record = Indexed(session);
        const std::function<void()> commit = [=, this] { EXPECT_THAT(commit_(session, record), IsOk()); };
        const std::function<void()> other = [=] { late(session, record).IgnoreError(); };
        return Works{commit_first ? commit : other, commit_first ? other : commit,
                     [=, this](bool) { ExpectNoPins(session); }};
      });
    }
  }
}

TEST_F(SessionInterleaving, StreamsThatBeginAtOnceShareASessionAndHaveFencesOfTheirOwn) {
  for (const bool known : {false, true}) {
    SCOPED_TRACE(known);
    SessionRef a;
    SessionRef b;
    AtEveryPlace([&] {
      const v1::SessionRow wanted = Wanted();
      if (known) BeginSession(wanted);
      return Works{[=, this, &a] { a = BeginSession(wanted); }, [=, this, &b] { b = BeginSession(wanted); },
                   [&](bool) {
                     EXPECT_EQ(a.id, b.id);
                     EXPECT_NE(a.fence, b.fence);
                     EXPECT_EQ(SessionRowOf(a).fences(0), std::max(a.fence, b.fence));
                   }};
    });
  }
}

TEST_F(SessionInterleaving, AStreamTakesASessionOverOrBeginsAnother) {
  for (const bool end_first : {false, true}) {
    SCOPED_TRACE(end_first);
    SessionRef taken;
    AtEveryPlace([&] {
      const v1::SessionRow wanted = Wanted();
      const SessionRef session = BeginIdleSession(wanted);
      const Stored record = Indexed(session);
      const std::function<void()> end = [this] { ExpireIdle(); };
      const std::function<void()> begin = [=, this, &taken] { taken = BeginSession(wanted); };
      return Works{end_first ? end : begin, end_first ? begin : end, [=, this, &taken](bool) {
                     EXPECT_EQ(SessionRowOf(taken).state(), v1::SessionRow::OPEN);
                     EXPECT_EQ(SessionRowOf(taken).fences(0), taken.fence);
                     const bool same = taken.id == session.id;
                     EXPECT_TRUE(same || SessionRowOf(session).state() == v1::SessionRow::EXPIRED);
                     EXPECT_EQ(Pinned(session, record.written.pack), same) << "what was acked";
                   }};
    });
  }
}

}  // namespace
}  // namespace ckpt::storage
