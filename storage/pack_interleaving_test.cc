// Packs and the rows of records, while two transactions work with them at once.
#include <ostream>
#include <set>
#include <vector>

#include "base/random.h"
#include "storage/interleaving_fixture.h"
#include "storage/record_bitmap.h"

namespace ckpt::storage {
namespace {

class PackInterleaving : public InterleavingTest {
 protected:
  // A record that nobody needs: no pin and no reference keeps its pack.
  Stored Unneeded(const std::string& bytes) {
    const SessionRef idle = BeginIdleSession();
    Stored record = Store(bytes);
    EXPECT_THAT(Index(idle, record), IsOk());
    ExpireIdle();
    return record;
  }

  // What relies on the record, a session's, ends with a pin on a pack that is not condemned, or is refused; whether the
  // collector comes first or last.
  void ExpectCondemnedOrPinned(const std::function<bool(const SessionRef&, const Stored&, const Stored& copy)>& rely) {
    for (const bool collector_first : {false, true}) {
      SCOPED_TRACE(collector_first);
      bool relies = false;
      AtEveryPlace([&] {
        const std::string bytes = RandomBytes(kChunk);
        const SessionRef session = BeginSession();
        const Stored record = Unneeded(bytes);
        const Stored copy = Store(bytes);
        const std::function<void()> use = [=, this, &relies] { relies = rely(session, record, copy); };
        const std::function<void()> condemn = [=, this] { Condemn({record.written.pack}); };
        return Works{collector_first ? condemn : use, collector_first ? use : condemn, [=, this, &relies](bool) {
                       EXPECT_EQ(Pinned(session, PackOf(record)), relies);
                       EXPECT_EQ(Live(PackOf(record)), relies);
                     }};
      });
    }
  }

  // Of a record, or of its pack.
  enum Damage { kRecordOnly, kLost };
  static constexpr Damage kDamages[] = {kRecordOnly, kLost};

  // In which a commit and damage come together.
  struct Way {
    bool commit_first;
    bool remembers;  // the commit, the record's place
    Damage damage;
    friend std::ostream& operator<<(std::ostream& out, const Way& way) {
      return out << "commit first " << way.commit_first << ", remembers " << way.remembers << ", damage " << way.damage;
    }
  };
  static std::vector<Way> Ways() {
    std::vector<Way> ways;
    for (const bool commit_first : {false, true})
      for (const bool remembers : {false, true})
        for (const Damage damage : kDamages) ways.push_back({commit_first, remembers, damage});
    return ways;
  }

  // What relies on the record ends with a pin where the record is, or is refused, when it is found damaged and heals.
  void ExpectPinnedWhereItIs(const std::function<bool(const SessionRef&, const Stored&)>& rely) {
    for (const Damage damage : kDamages) {
      SCOPED_TRACE(damage == kLost);
      bool relies = false;
      AtEveryPlace([&] {
        const std::string bytes = RandomBytes(kChunk);
        const SessionRef session = BeginSession();
        const SessionRef healer = BeginSession();
        const Stored record = Unneeded(bytes);
        const Stored copy = Store(bytes);
        return Works{[=, this, &relies] { relies = rely(session, record); },
                     [=, this] { DamageAndHeal(damage, healer, record, copy); },
                     [=, this, &relies](bool) {
                       EXPECT_EQ(PackOf(record), copy.written.pack);
                       EXPECT_TRUE(!relies || Pinned(session, PackOf(record)));
                     }};
      });
    }
  }

  void Find(Damage damage, const Stored& record) { damage == kLost ? Lose(record) : Quarantine(record); }

  void DamageAndHeal(Damage damage, const SessionRef& healer, const Stored& record, const Stored& copy) {
    Find(damage, record);
    EXPECT_THAT(Index(healer, copy), IsOk());
  }

  // A commit is refused if what it uses is found damaged before it.
  void ExpectCommitSees(const Way& way, const std::function<void(const Stored& record, const Stored& fact)>& find) {
    absl::Status status;
    AtEveryPlace([&] {
      const SessionRef session = BeginSession();
      const Stored record = Store();
      const Stored fact = Store();
      EXPECT_THAT(Index(session, record), IsOk());
      EXPECT_THAT(Index(session, fact), IsOk());
      const auto place = way.remembers ? std::optional(PlaceOf(record)) : std::nullopt;
      const std::function<void()> commit = [=, this, &status] {
        status = Commit(session, record, place, &fact).status();
      };
      const std::function<void()> damage = [=] { find(record, fact); };
      return Works{way.commit_first ? commit : damage, way.commit_first ? damage : commit, [=, &status](bool passed) {
                     // Who comes second and passes was first with the pack.
                     EXPECT_THAT(ReasonOf(status), passed == way.commit_first ? "CHUNK_MISSING" : "");
                   }};
    });
  }

  static RecordPlace PlaceOf(const Stored& record) {
    return {record.written.pack, record.written.locations[0].ordinal};
  }

  void ExpectReference(const v1::Checkpoint& checkpoint, const Stored& record) {
    const auto run = Get<v1::RunRow>(keys::Run("default", "r"));
    const VersionId version{run.id(), checkpoint.sequence()};
    const auto rows = Rows(keys::Reference(PackOf(record), version, "m"));
    ASSERT_THAT(rows, testing::SizeIs(1));
    const auto reference = ParseRow<v1::ReferenceRow>(rows[0].first, rows[0].second);
    const auto row = Get<v1::ChunkRow>(RecordKey("default", record.name));
    EXPECT_TRUE(HasRecord(reference->records(), row.ordinal()));
    EXPECT_THAT(Rows(keys::VersionPack(version, PackOf(record))), testing::SizeIs(1));
    EXPECT_TRUE(Live(PackOf(record)));
  }
};

TEST_F(PackInterleaving, APromisedPackIsNotCondemned) {
  ExpectCondemnedOrPinned(
      [&](const SessionRef& session, const Stored& record, const Stored&) { return Pin(session, record).value(); });
}

TEST_F(PackInterleaving, OfPacksThatAreAskedForAtOnceThosePromisedAreNotCondemned) {
  for (const bool collector_first : {false, true}) {
    SCOPED_TRACE(collector_first);
    std::vector<bool> promised;
    AtEveryPlace([&] {
      const SessionRef session = BeginSession();
      const std::vector<Stored> records = {Unneeded(RandomBytes(kChunk)), Unneeded(RandomBytes(kChunk)),
                                           Unneeded(RandomBytes(kChunk))};
      const std::set<PackId> unwanted = {records[0].written.pack, records[2].written.pack};
      const std::function<void()> promise = [=, this, &promised] { promised = Pin(session, records).value(); };
      const std::function<void()> condemn = [=, this] { Condemn(unwanted); };
      return Works{collector_first ? condemn : promise, collector_first ? promise : condemn,
                   [=, this, &promised](bool) {
                     EXPECT_TRUE(promised[1]);
                     EXPECT_EQ(promised[0], promised[2]) << "they are held together";
                     for (std::size_t i = 0; i < records.size(); ++i) {
                       EXPECT_EQ(Pinned(session, PackOf(records[i])), promised[i]);
                       EXPECT_EQ(Live(PackOf(records[i])), promised[i]);
                     }
                   }};
    });
  }
}

TEST_F(PackInterleaving, ACitedPackIsNotCondemned) {
  ExpectCondemnedOrPinned(
      [&](const SessionRef& session, const Stored& record, const Stored&) { return Cite(session, record).ok(); });
}

TEST_F(PackInterleaving, ThePackOfARowThatWasFirstIsNotCondemned) {
  ExpectCondemnedOrPinned([&](const SessionRef& session, const Stored&, const Stored& copy) {
    EXPECT_THAT(Index(session, copy), IsOk());
    return true;
  });
}

TEST_F(PackInterleaving, ACommittedPackIsNotCondemned) {
  for (const bool collector_first : {false, true}) {
    SCOPED_TRACE(collector_first);
    absl::StatusOr<v1::Checkpoint> checkpoint;
    AtEveryPlace([&] {
      const SessionRef session = BeginSession();
      const Stored record = Store();
      EXPECT_THAT(Index(session, record), IsOk());
      const std::function<void()> commit = [=, this, &checkpoint] { checkpoint = Commit(session, record); };
      const std::function<void()> condemn = [=, this] { Condemn({record.written.pack}); };
      return Works{collector_first ? condemn : commit, collector_first ? commit : condemn,
                   [=, this, &checkpoint](bool) {
                     ASSERT_THAT(checkpoint.status(), IsOk());
                     ExpectReference(*checkpoint, record);
                   }};
    });
  }
}

TEST_F(PackInterleaving, APromiseFollowsARecordThatHeals) {
  ExpectPinnedWhereItIs([&](const SessionRef& session, const Stored& record) { return Pin(session, record).value(); });
}

TEST_F(PackInterleaving, ACitationFollowsARecordThatHeals) {
  ExpectPinnedWhereItIs([&](const SessionRef& session, const Stored& record) { return Cite(session, record).ok(); });
}

TEST_F(PackInterleaving, AReferenceFollowsARecordThatHeals) {
  for (const Way& way : Ways()) {
    SCOPED_TRACE(way);
    absl::StatusOr<v1::Checkpoint> checkpoint;
    AtEveryPlace([&] {
      const std::string bytes = RandomBytes(kChunk);
      const SessionRef session = BeginSession();
      const SessionRef healer = BeginSession();
      const Stored record = Store(bytes);
      const Stored copy = Store(bytes);
      const Stored fact = Store();
      EXPECT_THAT(Index(session, record), IsOk());
      EXPECT_THAT(Index(session, fact), IsOk());
      const auto place = way.remembers ? std::optional(PlaceOf(record)) : std::nullopt;
      const std::function<void()> commit = [=, this, &checkpoint] {
        checkpoint = Commit(session, record, place, &fact);
      };
      const std::function<void()> heal = [=, this] { DamageAndHeal(way.damage, healer, record, copy); };
      return Works{way.commit_first ? commit : heal, way.commit_first ? heal : commit, [=, this, &checkpoint](bool) {
                     EXPECT_EQ(PackOf(record), copy.written.pack);
                     EXPECT_TRUE(checkpoint.ok() || !way.commit_first) << "it is healed, or not damaged yet";
                     if (checkpoint.ok()) return ExpectReference(*checkpoint, record);
                     EXPECT_THAT(checkpoint.status(), HasReason("CHUNK_MISSING"));
                   }};
    });
  }
}

TEST_F(PackInterleaving, AnAckHealsARecordOrComesBeforeItsDamage) {
  for (const bool damage_first : {false, true}) {
    SCOPED_TRACE(damage_first);
    AtEveryPlace([&] {
      const std::string bytes = RandomBytes(kChunk);
      const SessionRef session = BeginSession();
      const Stored record = Unneeded(bytes);
      const Stored copy = Store(bytes);
      const std::function<void()> ack = [=, this] { EXPECT_THAT(Index(session, copy), IsOk()); };
      const std::function<void()> damage = [=, this] { Quarantine(record); };
      return Works{damage_first ? damage : ack, damage_first ? ack : damage, [=, this](bool) {
                     const bool healed = PackOf(record) == copy.written.pack;
                     EXPECT_EQ(Get<v1::ChunkRow>(RecordKey("default", record.name)).quarantined(), !healed);
                     EXPECT_TRUE(Get<v1::PackRow>(keys::Pack(record.written.pack)).rows_changed());
                     EXPECT_TRUE(Pinned(session, PackOf(record)));
                   }};
    });
  }
}

// Its place says nothing of damage: its pack's row does.
TEST_F(PackInterleaving, ACommitSeesThatTheRecordIsDamaged) {
  for (const Way& way : Ways()) {
    SCOPED_TRACE(way);
    ExpectCommitSees(way, [&](const Stored& record, const Stored&) { Find(way.damage, record); });
  }
}

TEST_F(PackInterleaving, ACommitSeesThatTheVersionsRecordIsLost) {
  for (const bool commit_first : {false, true}) {
    SCOPED_TRACE(commit_first);
    ExpectCommitSees({.commit_first = commit_first, .remembers = true, .damage = kLost},
                     [&](const Stored&, const Stored& fact) { Lose(fact); });
  }
}

// It has read the row by then, and reads it again: its pack's row says so.
TEST_F(PackInterleaving, APromiseIsNotMadeOfARecordThatIsDamaged) {
  for (const bool promise_first : {false, true}) {
    for (const Damage damage : kDamages) {
      SCOPED_TRACE(testing::Message() << promise_first << damage);
      bool promised = false;
      AtEveryPlace([&] {
        const SessionRef session = BeginSession();
        const Stored record = Unneeded(RandomBytes(kChunk));
        const std::function<void()> promise = [=, this, &promised] { promised = Pin(session, record).value(); };
        const std::function<void()> find = [=, this] { Find(damage, record); };
        return Works{promise_first ? promise : find, promise_first ? find : promise,
                     [=, &promised](bool passed) { EXPECT_EQ(promised, passed != promise_first); }};
      });
    }
  }
}

TEST_F(PackInterleaving, ACopyThatHealedIsNotTakenForTheDamagedOne) {
  AtEveryPlace([&] {
    const std::string bytes = RandomBytes(kChunk);
    const SessionRef healer = BeginSession();
    const Stored record = Unneeded(bytes);
    const Stored copy = Store(bytes);
    return Works{[=, this] { Quarantine(record); }, [=, this] { DamageAndHeal(kRecordOnly, healer, record, copy); },
                 [=, this](bool) {
                   EXPECT_EQ(PackOf(record), copy.written.pack);
                   EXPECT_FALSE(Get<v1::ChunkRow>(RecordKey("default", record.name)).quarantined());
                 }};
  });
}

TEST_F(PackInterleaving, OfTwoThatStoreARecordBothPinTheOneThatCounts) {
  AtEveryPlace([&] {
    const std::string bytes = RandomBytes(kChunk);
    const SessionRef a = BeginSession();
    const SessionRef b = BeginSession();
    const Stored of_a = Store(bytes);
    const Stored of_b = Store(bytes);
    return Works{[=, this] { EXPECT_THAT(Index(a, of_a), IsOk()); }, [=, this] { EXPECT_THAT(Index(b, of_b), IsOk()); },
                 [=, this](bool) {
                   EXPECT_TRUE(Pinned(a, PackOf(of_a)));
                   EXPECT_TRUE(Pinned(b, PackOf(of_a)));
                   EXPECT_TRUE(Pinned(a, of_a.written.pack));
                   EXPECT_TRUE(Pinned(b, of_b.written.pack));
                 }};
  });
}

}  // namespace
}  // namespace ckpt::storage
