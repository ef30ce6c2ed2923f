#include "storage/interleaving_fixture.h"

#include <atomic>
#include <map>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "base/status.h"

namespace ckpt::storage {
namespace {

std::atomic<std::uint64_t> batch_number{0};

}  // namespace

void InterleavingTest::AtEveryPlace(const std::function<Works()>& arrange) {
  bool paused = true;
  for (int n = 1; paused && !HasFailure(); ++n) {
    SCOPED_TRACE(absl::StrCat("after call ", n));
    const Works works = arrange();
    const InterleavingEngine::Outcome outcome = engine_.Run(works.first, works.second, n);
    works.check(outcome.passed);
    paused = outcome.paused;
    ASSERT_TRUE(paused || n > 1) << "the first work has no transaction";
    SealPacks();  // so that nothing of here is in a pack of the next place
  }
}

void InterleavingTest::SealPacks() {
  for (const PackId& pack : borrowed_) store_->packs().Release(pack, false);
  borrowed_.clear();
}

std::string InterleavingTest::RandomBytesOfAChunk() { return RandomBytes(kChunk); }

InterleavingTest::Stored InterleavingTest::Store(const std::string& bytes) {
  const Bytes piece = AsBytes(bytes);
  const Record record = MakeRecord(RecordKind::kChunk, std::span(&piece, 1));
  WrittenBatch written = store_->packs().Write("default", std::span(&record, 1), nullptr).value();
  borrowed_.push_back(written.pack);
  return {{false, record.digest}, record.fingerprint, std::move(written)};
}

v1::SessionRow InterleavingTest::Wanted() {
  v1::SessionRow wanted;
  wanted.set_domain("default");
  wanted.set_run("r");
  wanted.set_attempt_key(RandomBytes(16));
  wanted.set_world_size(1);
  return wanted;
}

SessionRef InterleavingTest::BeginIdleSession(const v1::SessionRow& wanted) {
  SessionRef session = BeginSession(wanted);
  sessions_.End(session.id);
  clock_.Advance(2 * kLease);
  return session;
}

absl::Status InterleavingTest::Index(const SessionRef& session, const Stored& record) {
  return IndexTogether({{session, record}});
}

StreamPins& InterleavingTest::PinsOf(const SessionRef& session) {
  const MutexLock lock(mutex_);
  return pins_[{session.id, session.fence}];
}

IndexBatch InterleavingTest::BatchOf(const SessionRef& session, const Stored* written,
                                     const std::vector<Stored>& cited) {
  IndexBatch batch;
  batch.session = session;
  batch.pins = &PinsOf(session);
  batch.number = ++batch_number;
  if (written != nullptr) {
    batch.written = &written->written;
    batch.entries.push_back({written->name, written->written.locations[0], kChunk, written->fingerprint});
  }
  for (const Stored& record : cited) batch.entries.push_back({record.name, std::nullopt, kChunk, record.fingerprint});
  return batch;
}

absl::Status InterleavingTest::IndexTogether(const std::vector<std::pair<SessionRef, Stored>>& records) {
  std::vector<IndexBatch> batches;
  batches.reserve(records.size());
  for (const auto& [session, record] : records) batches.push_back(BatchOf(session, &record));
  std::vector<IndexBatch*> together;
  together.reserve(batches.size());
  for (IndexBatch& batch : batches) together.push_back(&batch);
  return chunks_.Index(together).status();
}

absl::Status InterleavingTest::Cite(const SessionRef& session, const Stored& record) {
  CKPT_ASSIGN_OR_RETURN(const IndexResult result, chunks_.Index(BatchOf(session, nullptr, {record})));
  return result.gone.empty() ? absl::OkStatus() : absl::NotFoundError("gone");
}

absl::StatusOr<bool> InterleavingTest::Pin(const SessionRef& session, const Stored& record) {
  CKPT_ASSIGN_OR_RETURN(const std::vector<bool> promised, Pin(session, std::vector{record}));
  return promised[0];
}

absl::StatusOr<std::vector<bool>> InterleavingTest::Pin(const SessionRef& session, const std::vector<Stored>& records) {
  std::vector<RecordName> names;
  names.reserve(records.size());
  for (const Stored& record : records) names.push_back(record.name);
  CKPT_ASSIGN_OR_RETURN(const auto promises, chunks_.Pin(session, names, PinsOf(session)));
  std::vector<bool> promised;
  promised.reserve(promises.size());
  for (const auto& promise : promises) promised.push_back(promise.has_value());
  return promised;
}

absl::StatusOr<v1::Checkpoint> InterleavingTest::Commit(const SessionRef& session, const Stored& record,
                                                        std::optional<RecordPlace> place, const Stored* fact) {
  Draft draft;
  draft.checkpoint.set_run("r");
  draft.components = {"", "m"};
  draft.used = {{record.name, 1, place}};
  draft.fact = {fact == nullptr ? PackOf(record) : fact->written.pack, 0, 1000, 0};
  return versions_.Commit(session, draft);
}

void InterleavingTest::Condemn(const std::set<PackId>& packs) {
  CKPT_CHECK_OK(engine_.Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
    std::map<PackId, v1::PackRow> rows;
    for (const PackId& pack : packs) {
      CKPT_ASSIGN_OR_RETURN(const auto row, GetRow<v1::PackRow>(txn, keys::Pack(pack), Hold::kExclusive));
      rows.emplace(pack, *row);
    }
    CKPT_ASSIGN_OR_RETURN(const auto by_session, PinnedBySession(txn, packs));
    std::set<PackId> pinned;
    for (const auto& [session, pins] : by_session) pinned.insert(pins.begin(), pins.end());
    for (auto& [pack, row] : rows) {
      CKPT_ASSIGN_OR_RETURN(const auto references, txn.Scan(keys::ReferencesOfPack(pack), "", 1));
      if (row.state() != v1::PackRow::LIVE || pinned.contains(pack) || !references.empty()) continue;
      row.set_state(v1::PackRow::CONDEMNED);
      CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Pack(pack), row));
    }
    return absl::OkStatus();
  }));
}

void InterleavingTest::Quarantine(const Stored& record) {
  CKPT_CHECK_OK(chunks_.Quarantine("default", record.name, record.written.pack, record.written.locations[0].offset));
}

PackId InterleavingTest::PackOf(const Stored& record) {
  return PackIdOf(Get<v1::ChunkRow>(RecordKey("default", record.name)));
}

bool InterleavingTest::Pinned(const SessionRef& session, const PackId& pack) { return Pins(session.id).contains(pack); }

void InterleavingTest::ExpectNoPins(const SessionRef& session) {
  EXPECT_THAT(Rows(keys::PinsOfSession(session.id)), testing::IsEmpty());
  EXPECT_THAT(Rows(keys::ProgressOf(session.id)), testing::IsEmpty());
}

}  // namespace ckpt::storage
