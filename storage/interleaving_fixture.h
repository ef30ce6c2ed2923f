// For tests: the parts of a store at work in two transactions at once, each of which another test names.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "storage/interleaving_engine_fixture.h"
#include "storage/pin_table.h"
#include "storage/store_fixture.h"

namespace ckpt::storage {

class InterleavingTest : public StoreTest {
 protected:
  ~InterleavingTest() override { SealPacks(); }

  // Two works, and what must be true when both have ended. Their results are members of the test.
  struct Works {
    std::function<void()> first;
    std::function<void()> second;
    std::function<void(bool passed)> check;  // passed: the second ended while the first was in its transaction
  };

  // Runs the two that `arrange` prepares, anew for each place in the first one's transactions at which the second can
  // come.
  void AtEveryPlace(const std::function<Works()>& arrange);

  // A record that is in a pack, and in no index yet. No two share a pack.
  struct Stored {
    RecordName name;
    Fingerprint fingerprint;
    WrittenBatch written;
  };
  Stored Store(const std::string& bytes);
  Stored Store() { return Store(RandomBytesOfAChunk()); }

  // A session that a stream has open; one whose lease is over, which nobody has noticed yet.
  SessionRef BeginSession(const v1::SessionRow& wanted) { return sessions_.Begin(wanted, 0)->ref; }
  SessionRef BeginSession() { return BeginSession(Wanted()); }
  SessionRef BeginIdleSession(const v1::SessionRow& wanted);
  SessionRef BeginIdleSession() { return BeginIdleSession(Wanted()); }
  static v1::SessionRow Wanted();

  // What the session's stream has pinned.
  StreamPins& PinsOf(const SessionRef& session);

  // A batch of a record that was written, unless it is null, and of others that were there, which it cites.
  IndexBatch BatchOf(const SessionRef& session, const Stored* written, const std::vector<Stored>& cited = {});
  absl::Status Index(const SessionRef& session, const Stored& record);
  // Batches of one written record each.
  absl::Status IndexTogether(const std::vector<std::pair<SessionRef, Stored>>& records);
  absl::Status Cite(const SessionRef& session, const Stored& record);
  // Whether the session was promised the record; each of the records, which it asks for in one go.
  absl::StatusOr<bool> Pin(const SessionRef& session, const Stored& record);
  absl::StatusOr<std::vector<bool>> Pin(const SessionRef& session, const std::vector<Stored>& records);
  // `place`: where the session was told that the record is, if it remembers. `fact`: of a pack that the session pins,
  // which is taken for the version fact's; null: the record's.
  absl::StatusOr<v1::Checkpoint> Commit(const SessionRef& session, const Stored& record,
                                        std::optional<RecordPlace> place = std::nullopt, const Stored* fact = nullptr);
  void ExpireIdle() { CKPT_CHECK_OK(sessions_.ExpireIdle()); }

  // What the collector does: with the packs held, looks for references and pins and condemns those that have none.
  void Condemn(const std::set<PackId>& packs);
  // What a restore does that finds the record damaged.
  void Quarantine(const Stored& record);
  // What a write does that finds the record's file cut or gone.
  void Lose(const Stored& record) { CKPT_CHECK_OK(PackTable(engine_).Lost(record.written.pack)); }

  v1::SessionRow SessionRowOf(const SessionRef& session) { return Get<v1::SessionRow>(keys::Session(session.id)); }
  PackId PackOf(const Stored& record);  // which its row names
  bool Live(const PackId& pack) { return Get<v1::PackRow>(keys::Pack(pack)).state() == v1::PackRow::LIVE; }
  bool Pinned(const SessionRef& session, const PackId& pack);
  // Nothing is left that would keep a pack for the session.
  void ExpectNoPins(const SessionRef& session);

  static constexpr std::chrono::seconds kLease{1};

  InterleavingEngine engine_{store_->engine()};
  ChunkIndex chunks_{engine_};
  SessionTable sessions_{engine_, clock_, kLease};
  VersionTable versions_{engine_, store_->packs(), clock_};

 private:
  static std::string RandomBytesOfAChunk();
  void SealPacks();

  Mutex mutex_;
  std::map<std::pair<SessionId, std::uint64_t>, StreamPins> pins_ CKPT_GUARDED_BY(mutex_);  // by session and fence

  std::vector<PackId> borrowed_;
};

}  // namespace ckpt::storage
