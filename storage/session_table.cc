#include "storage/session_table.h"

#include <spdlog/spdlog.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "base/status.h"
#include "storage/part_table.h"
#include "storage/pin_table.h"
#include "storage/rows.h"

namespace ckpt::storage {
namespace {

constexpr std::chrono::hours kMaxAge{24};

// What must be the same when an attempt begins again.
std::string BeginOf(v1::SessionRow row) {
  row.clear_state();
  row.clear_run_id();
  row.clear_fences();
  row.clear_streams();
  row.clear_failure();
  row.clear_create_time_us();
  row.clear_committed_sequence();
  return row.SerializeAsString();
}

// Ends it without a commit. The caller holds its row exclusive.
absl::Status EndUncommitted(Transaction& txn, const SessionId& session, v1::SessionRow& row) {
  row.set_state(v1::SessionRow::EXPIRED);
  row.clear_streams();
  CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Session(session), row));
  CKPT_RETURN_IF_ERROR(ForEachRow(txn, keys::PartsOf(session),
                                  [&](const std::string& key, const std::string&) { return txn.Delete(key); }));
  return DropPinsAndProgress(txn, session);
}

// Notes that this stream has begun; Aborted if a later one of its client has.
absl::Status NoteStream(const StreamNumber& stream, std::uint32_t rank, v1::SessionRow& row) {
  if (stream.number == 0) return absl::OkStatus();
  while (row.streams_size() <= static_cast<int>(rank)) row.add_streams();
  v1::SessionRow::Stream& last = *row.mutable_streams(static_cast<int>(rank));
  if (last.client() == stream.client && stream.number <= last.number())
    return MakeError(absl::StatusCode::kAborted, "FENCED",
                     "this stream was late: a later one of the same client has this save already");
  last.set_client(stream.client);
  last.set_number(stream.number);
  return absl::OkStatus();
}

}  // namespace

absl::Status SessionEnded(const v1::SessionRow& row) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "SESSION_ENDED",
      row.failure().empty()
          ? "the save's session has ended: its lease ran out or it committed; save again with a new attempt"
          : absl::StrCat("the save has failed, for all its ranks: ", row.failure(), "; save again with a new attempt"));
}

absl::StatusOr<v1::SessionRow> HoldSession(Transaction& txn, const SessionRef& session, Hold hold) {
  CKPT_ASSIGN_OR_RETURN(auto row, GetRow<v1::SessionRow>(txn, keys::Session(session.id), hold));
  if (!row.has_value() || row->state() != v1::SessionRow::OPEN) return SessionEnded(row.value_or(v1::SessionRow()));
  if (row->fences(static_cast<int>(session.rank)) != session.fence)
    return MakeError(absl::StatusCode::kAborted, "FENCED",
                     "another stream took this save over; this one is out of date and must stop");
  return *std::move(row);
}

absl::Status DropPinsAndProgress(Transaction& txn, const SessionId& session, std::set<PackId> held) {
  CKPT_RETURN_IF_ERROR(DropPins(txn, session, std::move(held)));
  return ForEachRow(txn, keys::ProgressOf(session),
                    [&](const std::string& key, const std::string&) { return txn.Delete(key); });
}

absl::Status SessionTable::Recover() {
  std::vector<std::pair<SessionId, std::int64_t>> open;
  CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) {
    open.clear();
    return ForEachRow(txn, keys::Sessions(), [&](const std::string& key, const std::string& value) -> absl::Status {
      CKPT_ASSIGN_OR_RETURN(const SessionId session, keys::SessionOf(key));
      CKPT_ASSIGN_OR_RETURN(const v1::SessionRow row, ParseRow<v1::SessionRow>(key, value));
      if (row.state() == v1::SessionRow::OPEN) open.emplace_back(session, row.create_time_us());
      return absl::OkStatus();
    });
  }));
  const MutexLock lock(mutex_);
  for (const auto& [session, create_time_us] : open) leases_[session] = {0, clock_.Uptime() + lease_, create_time_us};
  return absl::OkStatus();
}

absl::StatusOr<BegunSession> SessionTable::BeginOnce(Transaction& txn, const v1::SessionRow& wanted, std::uint32_t rank,
                                                     const StreamNumber& stream, const SessionId& fresh) {
  BegunSession begun;
  begun.ref = {fresh, wanted.domain(), rank, 1};
  const std::string attempt_key = keys::Attempt(wanted.domain(), wanted.attempt_key());
  CKPT_ASSIGN_OR_RETURN(const auto attempt, GetRow<v1::AttemptRow>(txn, attempt_key, Hold::kExclusive));
  std::optional<v1::SessionRow> known;
  if (attempt.has_value()) {
    CKPT_ASSIGN_OR_RETURN(begun.ref.id, keys::SessionOf(absl::StrCat(keys::Sessions(), attempt->session())));
    CKPT_ASSIGN_OR_RETURN(known, GetRow<v1::SessionRow>(txn, keys::Session(begun.ref.id), Hold::kExclusive));
  }
  if (known.has_value() && BeginOf(*known) != BeginOf(wanted))
    return MakeError(absl::StatusCode::kAlreadyExists, "ATTEMPT_REUSED",
                     absl::StrCat("this attempt key began a save of ", known->run(), "@", known->epoch(),
                                  " with other parameters; draw a new key for each attempt"));
  if (known.has_value() && known->state() == v1::SessionRow::COMMITTED) {
    begun.row = *std::move(known);
    return begun;
  }
  // What the others of its ranks were promised has ended: one of them cannot begin again alone.
  if (known.has_value() && known->state() == v1::SessionRow::EXPIRED && PartCount(*known) > 1)
    return SessionEnded(*known);
  if (known.has_value() && known->state() == v1::SessionRow::OPEN) {
    begun.row = *std::move(known);
    {
      // With the row held, so that Expire cannot end the session between here and the count of its streams.
      const MutexLock lock(mutex_);
      Lease& lease = leases_[begun.ref.id];
      lease.ends = clock_.Uptime() + lease_;
      lease.create_time_us = begun.row.create_time_us();
    }
    CKPT_RETURN_IF_ERROR(ForEachRow(txn, keys::ProgressOf(begun.ref.id, rank),
                                    [&](const std::string& key, const std::string& value) -> absl::Status {
                                      CKPT_ASSIGN_OR_RETURN(auto row, ParseRow<v1::ProgressRow>(key, value));
                                      begun.progress.push_back(std::move(row));
                                      return absl::OkStatus();
                                    }));
  } else {  // new, or so old that it expired: then it starts over
    begun.ref.id = fresh;
    begun.row = wanted;
    begun.row.set_state(v1::SessionRow::OPEN);
    begun.row.set_create_time_us(clock_.WallMicros());
    begun.row.mutable_fences()->Resize(static_cast<int>(PartCount(wanted)), 0);
    v1::AttemptRow row;
    row.set_session(std::string(fresh.view()));
    CKPT_RETURN_IF_ERROR(PutRow(txn, attempt_key, row));
  }
  CKPT_RETURN_IF_ERROR(NoteStream(stream, rank, begun.row));
  // What this stream sends takes the place of what the rank had committed.
  CKPT_RETURN_IF_ERROR(txn.Delete(keys::Part(begun.ref.id, rank)));
  begun.ref.fence = begun.row.fences(static_cast<int>(rank)) + 1;
  begun.row.set_fences(static_cast<int>(rank), begun.ref.fence);
  CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Session(begun.ref.id), begun.row));
  return begun;
}

absl::StatusOr<BegunSession> SessionTable::Begin(const v1::SessionRow& wanted, std::uint32_t rank,
                                                 const StreamNumber& stream) {
  const SessionId fresh = *SessionId::From(RandomBytes(SessionId::kSize));
  BegunSession begun;
  // The new fence is durable before the stream does anything: an older one can never count again.
  CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(begun, BeginOnce(txn, wanted, rank, stream, fresh));
    return absl::OkStatus();
  }));
  const MutexLock lock(mutex_);
  Lease& lease = leases_[begun.ref.id];
  ++lease.streams;
  lease.create_time_us = begun.row.create_time_us();
  return begun;
}

absl::StatusOr<SessionTable::Found> SessionTable::Find(const std::string& domain, const std::string& attempt_key) {
  Found found;
  CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(const auto attempt,
                          GetRow<v1::AttemptRow>(txn, keys::Attempt(domain, attempt_key), Hold::kNone));
    std::optional<v1::SessionRow> row;
    if (attempt.has_value()) {
      CKPT_ASSIGN_OR_RETURN(found.id, keys::SessionOf(absl::StrCat(keys::Sessions(), attempt->session())));
      CKPT_ASSIGN_OR_RETURN(row, GetRow<v1::SessionRow>(txn, keys::Session(found.id), Hold::kNone));
    }
    if (!row.has_value())
      return MakeError(absl::StatusCode::kNotFound, "SAVE_NOT_FOUND", "no save began with this attempt key");
    found.row = *std::move(row);
    if (found.row.state() != v1::SessionRow::OPEN) return absl::OkStatus();
    CKPT_ASSIGN_OR_RETURN(const Parts parts, ReadParts(txn, found.id, found.row));
    found.waiting = WaitsFor(parts);
    return absl::OkStatus();
  }));
  const MutexLock lock(mutex_);
  // Expire looks again before it ends a session.
  if (const auto lease = leases_.find(found.id); lease != leases_.end()) lease->second.ends = clock_.Uptime() + lease_;
  return found;
}

absl::Status SessionTable::Fail(const SessionRef& session, std::string_view why) {
  return engine_.Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(v1::SessionRow row, HoldSession(txn, session, Hold::kExclusive));
    row.set_failure(std::string(why));
    return EndUncommitted(txn, session.id, row);
  });
}

void SessionTable::End(const SessionId& session) {
  const MutexLock lock(mutex_);
  const auto it = leases_.find(session);
  CKPT_CHECK(it != leases_.end() && it->second.streams > 0);
  --it->second.streams;
  it->second.ends = clock_.Uptime() + lease_;
}

bool SessionTable::TooYoung(const Lease& lease) const {
  return lease.ends > clock_.Uptime() &&
         lease.create_time_us >= clock_.WallMicros() - std::chrono::microseconds(kMaxAge).count();
}

absl::Status SessionTable::ExpireIdle() {
  std::vector<SessionId> over;
  {
    const MutexLock lock(mutex_);
    for (const auto& [session, lease] : leases_)
      if (lease.streams == 0 && !TooYoung(lease)) over.push_back(session);
  }
  absl::Status first;
  for (const SessionId& session : over) {
    if (const absl::Status status = Expire(session); !status.ok()) {
      first.Update(status);
      continue;
    }
    const MutexLock lock(mutex_);
    const auto it = leases_.find(session);
    if (it != leases_.end() && it->second.streams == 0 && !TooYoung(it->second)) leases_.erase(it);
  }
  return first;
}

absl::Status SessionTable::Expire(const SessionId& session) {
  std::optional<v1::SessionRow> ended;
  CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
    ended.reset();
    CKPT_ASSIGN_OR_RETURN(auto row, GetRow<v1::SessionRow>(txn, keys::Session(session), Hold::kExclusive));
    if (!row.has_value() || row->state() != v1::SessionRow::OPEN) return absl::OkStatus();
    {
      const MutexLock lock(mutex_);
      const Lease& lease = leases_[session];
      if (lease.streams != 0 || TooYoung(lease)) return absl::OkStatus();  // taken over in the last moment
    }
    CKPT_RETURN_IF_ERROR(EndUncommitted(txn, session, *row));
    ended = *std::move(row);
    return absl::OkStatus();
  }));
  if (ended.has_value())
    spdlog::info("save of {}@{} was not finished: its session {} ended", ended->run(), ended->epoch(), session.ToHex());
  return absl::OkStatus();
}

}  // namespace ckpt::storage
