// The order on disk:
//   1. the pack's row, then its file               PackStore::Write, through PackRegistry::Announce
//   2. records, then fdatasync of the pack         PackStore::Write
//   3. one synced catalog write: rows, pins, one progress row      ChunkIndex::Index
//   4. the ack                                     on_durable
// All but the ack is a BatchCommitter's work, for the batches of several streams at once.
#include "storage/batch_writer.h"

#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "base/status.h"

namespace ckpt::storage {
namespace {

RecordName NameOf(const BatchItem& item) { return {item.kind != RecordKind::kChunk, item.digest}; }

Record RecordOf(const BatchItem& item) {
  Record record;
  record.kind = item.kind;
  record.digest = item.digest;
  record.fingerprint = item.fingerprint;
  record.raw_length = item.raw_length;
  record.pieces = item.payload->pieces;
  return record;
}

v1::ProgressRow ProgressOf(const SessionRef& session, const std::vector<BatchItem>& items) {
  v1::ProgressRow row;
  row.set_rank(session.rank);
  for (const BatchItem& item : items) {
    if (item.kind != RecordKind::kChunk || !item.payload.has_value()) continue;
    v1::ProgressRow::Chunk& chunk = *row.add_chunks();
    chunk.set_tensor(item.tensor);
    chunk.set_index(item.index);
    chunk.set_digest(std::string(item.digest.view()));
    chunk.set_fingerprint(std::string(item.fingerprint.view()));
    chunk.set_raw_length(item.raw_length);
  }
  return row;
}

}  // namespace

BatchWriter::BatchWriter(BatchCommitter& committer, ChunkIndex& index, DiskReserve& reserve, SessionRef session,
                         StreamPins& pins, OnDurable on_durable)
    : committer_(committer),
      index_(index),
      reserve_(reserve),
      session_(std::move(session)),
      pins_(pins),
      on_durable_(std::move(on_durable)),
      thread_([this] { Run(); }) {}

BatchWriter::~BatchWriter() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
    next_.clear();
  }
  changed_.NotifyAll();
  thread_.join();
}

absl::Status BatchWriter::Submit(std::vector<BatchItem> items) {
  const MutexLock lock(mutex_);
  while (!next_.empty() && status_.ok()) changed_.Wait(mutex_);
  if (!status_.ok()) return status_;
  next_ = std::move(items);
  changed_.NotifyAll();
  return absl::OkStatus();
}

bool BatchWriter::HasRoom() {
  const MutexLock lock(mutex_);
  return next_.empty() || !status_.ok();
}

absl::StatusOr<bool> BatchWriter::Idle() {
  const MutexLock lock(mutex_);
  if (!status_.ok()) return status_;
  return next_.empty() && !writing_;
}

absl::Status BatchWriter::Drain() {
  const MutexLock lock(mutex_);
  while ((!next_.empty() || writing_) && status_.ok()) changed_.Wait(mutex_);
  return status_;
}

void BatchWriter::Run() {
  while (true) {
    std::vector<BatchItem> items;
    {
      const MutexLock lock(mutex_);
      while (next_.empty() && !stop_) changed_.Wait(mutex_);
      if (stop_) return;
      items = std::move(next_);
      next_.clear();
      writing_ = true;
    }
    changed_.NotifyAll();
    const absl::Status status = WriteBatch(items);
    if (status.ok()) on_durable_(items);
    items.clear();  // gives the payloads back before anybody is told that the writer is idle
    {
      const MutexLock lock(mutex_);
      writing_ = false;
      status_.Update(status);
      if (!status_.ok()) next_.clear();
    }
    changed_.NotifyAll();
  }
}

absl::Status BatchWriter::WriteBatch(std::vector<BatchItem>& items) {
  std::vector<RecordName> names;
  absl::flat_hash_map<RecordName, BatchItem*> unique;
  const BatchItem* fact = nullptr;
  for (BatchItem& item : items) {
    if (!item.payload.has_value()) continue;
    if (item.kind == RecordKind::kVersionFact) {
      fact = &item;
    } else if (unique.emplace(NameOf(item), &item).second) {
      names.push_back(NameOf(item));
    }
  }
  if (names.empty() && fact == nullptr) return absl::OkStatus();
  CKPT_ASSIGN_OR_RETURN(const std::vector<bool> has, index_.Has(session_.domain, names));
  absl::flat_hash_set<RecordName> write;
  for (std::size_t i = 0; i < names.size(); ++i)
    if (!has[i]) write.insert(names[i]);
  while (true) {
    Batch batch;
    batch.index.session = session_;
    batch.index.progress = ProgressOf(session_, items);
    batch.prefer = last_pack_;
    for (const RecordName& name : names) {
      const BatchItem& item = *unique[name];
      batch.index.entries.push_back({name, std::nullopt, item.raw_length, item.fingerprint});
      if (!write.contains(name)) continue;
      batch.records.push_back(RecordOf(item));
      batch.index.entries.back().written.emplace();  // where, is filled in when it is
    }
    if (fact != nullptr) batch.records.push_back(RecordOf(*fact));
    CKPT_ASSIGN_OR_RETURN(const IndexResult result, Commit(std::move(batch), fact != nullptr));
    if (result.gone.empty()) {
      for (std::size_t i = 0; i < names.size(); ++i) unique[names[i]]->place = result.places[i];
      return absl::OkStatus();
    }
    write.insert(result.gone.begin(), result.gone.end());  // condemned between the look and the index
  }
}

// If something that was there before is gone, nothing was indexed.
absl::StatusOr<IndexResult> BatchWriter::Commit(Batch batch, bool has_fact) {
  batch.index.number = batch_number_++;
  batch.index.pins = &pins_;
  IndexResult result;
  if (batch.records.empty()) {
    CKPT_ASSIGN_OR_RETURN(result, index_.Index(std::move(batch.index)));
  } else {
    std::uint64_t bytes = kPackHeaderSize;
    for (const Record& record : batch.records) bytes += kRecordHeaderSize + record.raw_length;
    CKPT_ASSIGN_OR_RETURN(const DiskReserve::Admission admission, reserve_.AdmitWrite(bytes));
    CKPT_ASSIGN_OR_RETURN(CommittedBatch committed, committer_.Commit(std::move(batch)));
    last_pack_ = committed.pack;
    if (has_fact) fact_ = committed.locations.back();
    result = std::move(committed.result);
  }
  new_bytes_ += result.new_bytes;
  return result;
}

}  // namespace ckpt::storage
