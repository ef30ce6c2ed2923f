// Save attempts in progress: begun, taken over, ended. A session is fenced (only its newest stream counts), leased (it
// ends when nobody has streamed for a while), and resumable.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "ckpt/v1/storage.pb.h"
#include "storage/keys.h"
#include "storage/kv_engine.h"
#include "storage/pack_store.h"

namespace ckpt::storage {

// A stream's hold on its session.
struct SessionRef {
  SessionId id;
  std::string domain;
  std::uint32_t rank = 0;
  std::uint64_t fence = 0;
};

// A client's number for one of its streams; see v1::SaveBegin.
struct StreamNumber {
  std::string client;
  std::uint64_t number = 0;  // 0: not numbered
};

// What a stream begins with.
struct BegunSession {
  SessionRef ref;
  v1::SessionRow row;  // COMMITTED when the attempt already has
  // What earlier streams got acked.
  std::vector<v1::ProgressRow> progress;
};

// The session's row, held as said. Aborted FENCED when a later stream took the session over; FailedPrecondition
// SESSION_ENDED when it is not open any more.
absl::StatusOr<v1::SessionRow> HoldSession(Transaction& txn, const SessionRef& session, Hold hold);

// FailedPrecondition SESSION_ENDED, which says how it ended.
absl::Status SessionEnded(const v1::SessionRow& row);

// Deletes the session's pins and progress, in the transaction that ends it: the caller holds its row exclusive, and
// those in `held` at least shared. Holds all packs that it pins shared.
absl::Status DropPinsAndProgress(Transaction& txn, const SessionId& session, std::set<PackId> held = {});

// Thread-safe.
class SessionTable {
 public:
  SessionTable(KvEngine& engine, const Clock& clock, std::chrono::milliseconds lease)
      : engine_(engine), clock_(clock), lease_(lease) {}

  // At start-up: every open session's lease starts anew.
  absl::Status Recover();

  // Begins the attempt that `wanted` describes (domain, run, epoch, …, attempt_key), or takes over the session that
  // began with the same key. The session's lease does not end before End is called as often. Errors: AlreadyExists
  // ATTEMPT_REUSED (the key began something else); Aborted FENCED (a later stream of this client has begun);
  // FailedPrecondition SESSION_ENDED (a save by several ranks has ended: all of them need a new key).
  absl::StatusOr<BegunSession> Begin(const v1::SessionRow& wanted, std::uint32_t rank, const StreamNumber& stream = {});

  // What became of the attempt: its session as it is now, and if it is open the ranks that have not committed; its
  // lease then runs from now. NotFound SAVE_NOT_FOUND.
  struct Found {
    SessionId id;
    v1::SessionRow row;
    std::vector<std::uint32_t> waiting;
  };
  absl::StatusOr<Found> Find(const std::string& domain, const std::string& attempt_key);

  // Ends the session of a save by several ranks, for good: what they sent cannot be put together. Errors: as
  // HoldSession.
  absl::Status Fail(const SessionRef& session, std::string_view why);

  // The stream is gone; the lease runs from now.
  void End(const SessionId& session);

  // Ends the sessions whose lease is over, and those without a stream that are older than 24 hours.
  absl::Status ExpireIdle();

  [[nodiscard]] std::chrono::milliseconds lease() const { return lease_; }

 private:
  struct Lease {
    int streams = 0;
    std::chrono::milliseconds ends{};  // uptime, when there are no streams
    std::int64_t create_time_us = 0;
  };

  absl::StatusOr<BegunSession> BeginOnce(Transaction& txn, const v1::SessionRow& wanted, std::uint32_t rank,
                                         const StreamNumber& stream, const SessionId& fresh);
  absl::Status Expire(const SessionId& session);
  [[nodiscard]] bool TooYoung(const Lease& lease) const;  // to end

  KvEngine& engine_;
  const Clock& clock_;
  const std::chrono::milliseconds lease_;

  Mutex mutex_;
  std::map<SessionId, Lease> leases_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt::storage
