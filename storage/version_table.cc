#include "storage/version_table.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "storage/keys.h"
#include "storage/part_table.h"
#include "storage/pin_table.h"
#include "storage/record_bitmap.h"
#include "storage/rows.h"
#include "storage/run_summary.h"

namespace ckpt::storage {
namespace {

using PackComponent = std::pair<PackId, std::uint32_t>;

absl::Status MissingRecord(const Draft& draft, const UsedRecord& record) {
  const std::string& component = draft.components[record.component];
  return MakeError(
      absl::StatusCode::kFailedPrecondition, "CHUNK_MISSING",
      absl::StrCat("chunk ", record.name.digest.ToHex(), component.empty() ? "" : " of component ", component,
                   " was found damaged, or given up, since the save relied on it; send it again"));
}

// True if the record's row must still say what the stream was told: then it need not be read.
bool IsKnownUnchanged(const HeldPacks& packs, const std::optional<RecordPlace>& place) {
  const v1::PackRow* const pack = place.has_value() ? packs.Held(place->pack) : nullptr;
  return pack != nullptr && IsUsable(*pack) && !pack->rows_changed();
}

// The records that the version uses, as bitmaps by pack and component. Holds the packs that the session pins first, so
// that no row moves any more.
absl::StatusOr<std::map<PackComponent, std::string>> CollectReferences(Transaction& txn, const SessionRef& session,
                                                                       const std::set<PackId>& pinned,
                                                                       const Draft& draft) {
  HeldPacks packs(txn);
  CKPT_RETURN_IF_ERROR(packs.HoldAll(pinned));
  std::map<PackComponent, std::string> references;
  std::vector<const UsedRecord*> unknown;
  for (const UsedRecord& record : draft.used) {
    if (IsKnownUnchanged(packs, record.place)) {
      AddRecord(references[{record.place->pack, record.component}], record.place->ordinal);
    } else {
      unknown.push_back(&record);
    }
  }
  constexpr std::size_t kPage = 4096;
  for (std::size_t begin = 0; begin < unknown.size(); begin += kPage) {
    const auto page = std::span(unknown).subspan(begin, std::min(kPage, unknown.size() - begin));
    std::vector<RecordName> names;
    names.reserve(page.size());
    for (const UsedRecord* const record : page) names.push_back(record->name);
    CKPT_ASSIGN_OR_RETURN(const auto rows, ReadRows(txn, session.domain, names));
    for (std::size_t i = 0; i < page.size(); ++i) {
      const auto& row = rows[i];
      if (!row.has_value() || row->quarantined()) return MissingRecord(draft, *page[i]);
      CKPT_ASSIGN_OR_RETURN(const PackId pack, PackOfRow(*row));
      const v1::PackRow* const held = packs.Held(pack);
      if (held == nullptr) {
        // It moved, with the session's pins, in one transaction: to a pack that the session pins now. Or nothing keeps
        // it.
        CKPT_ASSIGN_OR_RETURN(const std::set<PackId> now, PinnedPacks(txn, session.id));
        return now.contains(pack) ? Conflict() : MissingRecord(draft, *page[i]);
      }
      if (!IsUsable(*held)) return MissingRecord(draft, *page[i]);
      AddRecord(references[{pack, page[i]->component}], row->ordinal());
    }
  }
  CKPT_ASSIGN_OR_RETURN(const bool has_fact, packs.Usable(draft.fact.pack));
  if (!has_fact)
    return MakeError(absl::StatusCode::kFailedPrecondition, "CHUNK_MISSING",
                     "the record of the version was lost just after it was written; send the save again");
  AddRecord(references[{draft.fact.pack, 0}], draft.fact.ordinal);
  return references;
}

// Checks that the other ranks' parts are those that the draft was merged from. The caller holds the session's row
// exclusive.
absl::Status CheckParts(Transaction& txn, const SessionRef& session, const v1::SessionRow& row, const Draft& draft) {
  CKPT_ASSIGN_OR_RETURN(Parts parts, ReadParts(txn, session.id, row));
  parts[session.rank] = draft.parts[session.rank];
  const bool same = std::equal(parts.begin(), parts.end(), draft.parts.begin(), draft.parts.end(),
                               [](const std::optional<v1::PartRow>& now, const v1::PartRow& merged) {
                                 return now.has_value() && IsSamePart(*now, merged);
                               });
  if (!same)
    return MakeError(absl::StatusCode::kAborted, "PARTS_CHANGED", "a rank has begun its part of the save anew");
  return absl::OkStatus();
}

// The run's row, held; made with the first version.
absl::StatusOr<v1::RunRow> HoldRun(Transaction& txn, const std::string& domain, const std::string& run,
                                   const google::protobuf::Timestamp& now) {
  CKPT_ASSIGN_OR_RETURN(auto row, GetRow<v1::RunRow>(txn, keys::Run(domain, run), Hold::kExclusive));
  if (row.has_value()) return *std::move(row);
  CKPT_ASSIGN_OR_RETURN(auto ids, GetRow<v1::CounterRow>(txn, keys::RunIds(), Hold::kExclusive));
  if (!ids.has_value()) ids.emplace();
  ids->set_last(ids->last() + 1);
  CKPT_RETURN_IF_ERROR(PutRow(txn, keys::RunIds(), *ids));
  v1::RunRow fresh;
  fresh.set_id(ids->last());
  fresh.mutable_run()->set_name(run);
  *fresh.mutable_run()->mutable_create_time() = now;
  return fresh;
}

absl::StatusOr<std::uint64_t> NextVersion(Transaction& txn, std::uint64_t run_id, std::int64_t epoch) {
  const std::string key = keys::EpochVersions(run_id, epoch);
  CKPT_ASSIGN_OR_RETURN(auto versions, GetRow<v1::CounterRow>(txn, key, Hold::kExclusive));
  if (!versions.has_value()) versions.emplace();
  versions->set_last(versions->last() + 1);
  CKPT_RETURN_IF_ERROR(PutRow(txn, key, *versions));
  return versions->last();
}

google::protobuf::Timestamp Timestamp(std::int64_t micros) {
  google::protobuf::Timestamp out;
  out.set_seconds(micros / 1'000'000);
  out.set_nanos(static_cast<std::int32_t>(micros % 1'000'000 * 1000));
  return out;
}

absl::Status PutVersion(Transaction& txn, const SessionRef& session, const v1::Checkpoint& checkpoint,
                        const v1::SessionRow& owner, const VersionId& id, const Digest& fact) {
  v1::CheckpointRow row;
  *row.mutable_checkpoint() = checkpoint;
  row.set_attempt_key(owner.attempt_key());
  CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Checkpoint(id.run_id, checkpoint.epoch(), checkpoint.version()), row));
  v1::SequenceRow sequence;
  sequence.set_epoch(checkpoint.epoch());
  sequence.set_version(checkpoint.version());
  CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Sequence(id), sequence));
  v1::CommitFact marker;
  marker.set_domain(session.domain);
  marker.set_session(std::string(session.id.view()));
  marker.set_version_fact(std::string(fact.view()));
  marker.set_run_id(id.run_id);
  marker.set_version(checkpoint.version());
  marker.set_sequence(id.sequence);
  marker.set_new_bytes(checkpoint.new_bytes());
  *marker.mutable_create_time() = checkpoint.create_time();
  return PutRow(txn, keys::PendingMarker(id), marker);
}

absl::Status AddReference(Transaction& txn, const VersionId& version, const PackId& pack, const std::string& component,
                          const std::string& records) {
  v1::ReferenceRow row;
  row.set_records(records);
  CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Reference(pack, version, component), row));
  return txn.Put(keys::VersionPack(version, pack), "");
}

}  // namespace

absl::StatusOr<v1::Checkpoint> VersionTable::Commit(const SessionRef& session, const Draft& draft) {
  v1::Checkpoint checkpoint;
  const auto body = [&](Transaction& txn) -> absl::Status {
    checkpoint = draft.checkpoint;
    CKPT_ASSIGN_OR_RETURN(v1::SessionRow owner, HoldSession(txn, session, Hold::kExclusive));
    const bool in_parts = PartCount(owner) > 1;
    if (in_parts) CKPT_RETURN_IF_ERROR(CheckParts(txn, session, owner, draft));
    // Before anything is written: then many rows are read at once.
    CKPT_ASSIGN_OR_RETURN(std::set<PackId> pinned, PinnedPacks(txn, session.id));
    CKPT_ASSIGN_OR_RETURN(const auto references, CollectReferences(txn, session, pinned, draft));
    if (in_parts) CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Part(session.id, session.rank), draft.parts[session.rank]));
    *checkpoint.mutable_create_time() = Timestamp(clock_.WallMicros());
    CKPT_ASSIGN_OR_RETURN(v1::RunRow run, HoldRun(txn, session.domain, checkpoint.run(), checkpoint.create_time()));
    const VersionId id{run.id(), run.last_sequence() + 1};
    CKPT_ASSIGN_OR_RETURN(const std::uint64_t version, NextVersion(txn, id.run_id, checkpoint.epoch()));
    checkpoint.set_version(version);
    checkpoint.set_sequence(id.sequence);
    run.set_last_sequence(id.sequence);
    CKPT_RETURN_IF_ERROR(PutVersion(txn, session, checkpoint, owner, id, draft.fact_digest));
    CKPT_RETURN_IF_ERROR(AddToSummary(txn, checkpoint, owner.primary_metric(), run));
    CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Run(session.domain, checkpoint.run()), run));
    for (const auto& [where, records] : references)
      CKPT_RETURN_IF_ERROR(AddReference(txn, id, where.first, draft.components[where.second], records));
    owner.set_state(v1::SessionRow::COMMITTED);
    owner.clear_streams();
    owner.set_run_id(id.run_id);
    owner.set_committed_sequence(id.sequence);
    CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Session(session.id), owner));
    return DropPinsAndProgress(txn, session.id, std::move(pinned));
  };
  CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kSync, body));
  return checkpoint;
}

absl::StatusOr<v1::Checkpoint> VersionTable::CommittedBy(const v1::SessionRow& session) {
  v1::Checkpoint checkpoint;
  CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(const auto found,
                          CheckpointBySequence(txn, {session.run_id(), session.committed_sequence()}));
    if (!found.has_value())
      return MakeError(absl::StatusCode::kNotFound, "CHECKPOINT_NOT_FOUND",
                       absl::StrCat("the save of ", session.run(), "@", session.epoch(),
                                    " committed, and its checkpoint has been deleted since"));
    checkpoint = *found;
    return absl::OkStatus();
  }));
  return checkpoint;
}

absl::Status VersionTable::WriteMarkers() {
  constexpr std::size_t kPage = 1000;
  const MutexLock lock(markers_mutex_);
  while (true) {
    std::map<std::string, std::vector<std::pair<std::string, v1::CommitFact>>> by_domain;
    CKPT_RETURN_IF_ERROR(engine_.Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
      by_domain.clear();
      CKPT_ASSIGN_OR_RETURN(const auto rows, txn.Scan(keys::PendingMarkers(), "", kPage));
      for (const auto& [key, value] : rows) {
        CKPT_ASSIGN_OR_RETURN(v1::CommitFact fact, ParseRow<v1::CommitFact>(key, value));
        by_domain[fact.domain()].emplace_back(key, std::move(fact));
      }
      return absl::OkStatus();
    }));
    if (by_domain.empty()) return absl::OkStatus();
    for (const auto& [domain, facts] : by_domain) CKPT_RETURN_IF_ERROR(MarkDomain(domain, facts));
  }
}

absl::Status VersionTable::MarkDomain(const std::string& domain,
                                      const std::vector<std::pair<std::string, v1::CommitFact>>& facts) {
  std::vector<std::string> payloads(facts.size());
  std::vector<Bytes> pieces(facts.size());
  std::vector<Record> records(facts.size());
  for (std::size_t i = 0; i < facts.size(); ++i) {
    payloads[i] = facts[i].second.SerializeAsString();
    pieces[i] = AsBytes(payloads[i]);
    records[i] = MakeRecord(RecordKind::kCommitFact, std::span(&pieces[i], 1));
  }
  CKPT_ASSIGN_OR_RETURN(const WrittenBatch written, packs_.Write(domain, records, nullptr));
  absl::Status status = engine_.Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
    HeldPacks packs(txn);
    CKPT_RETURN_IF_ERROR(packs.Indexed(written.pack, written.end));
    for (std::size_t i = 0; i < facts.size(); ++i) {
      const auto& [key, fact] = facts[i];
      const VersionId version{fact.run_id(), fact.sequence()};
      const std::string reference = keys::Reference(written.pack, version, "");
      CKPT_ASSIGN_OR_RETURN(auto row, GetRow<v1::ReferenceRow>(txn, reference, Hold::kExclusive));
      if (!row.has_value()) row.emplace();
      AddRecord(*row->mutable_records(), written.locations[i].ordinal);
      CKPT_RETURN_IF_ERROR(PutRow(txn, reference, *row));
      CKPT_RETURN_IF_ERROR(txn.Put(keys::VersionPack(version, written.pack), ""));
      CKPT_RETURN_IF_ERROR(txn.Delete(key));
    }
    return absl::OkStatus();
  });
  packs_.Release(written.pack, status.ok());
  return status;
}

}  // namespace ckpt::storage
