#include "storage/batch_committer.h"

#include <algorithm>
#include <span>
#include <utility>

#include "base/status.h"

namespace ckpt::storage {
namespace {

// Of a group of several batches.
constexpr std::uint64_t kGroupBytes = 16U << 20;
constexpr std::size_t kGroupRecords = 8192;

std::uint64_t BytesOf(const Batch& batch) {
  std::uint64_t bytes = 0;
  for (const Record& record : batch.records) bytes += record.raw_length;
  return bytes;
}

}  // namespace

absl::StatusOr<CommittedBatch> BatchCommitter::Commit(Batch batch) {
  CKPT_CHECK(!batch.records.empty());
  const std::string domain = batch.index.session.domain;
  Waiting mine;
  mine.bytes = BytesOf(batch);
  mine.batch = std::move(batch);
  std::vector<Waiting*> group;
  {
    const MutexLock lock(mutex_);
    Queue& queue = queues_[domain];
    queue.waiting.push_back(&mine);
    while (!mine.done && (mine.taken || queue.at_work == at_once_ || queue.waiting.front() != &mine))
      mine.changed.Wait(mutex_);
    if (mine.done) {
      CKPT_RETURN_IF_ERROR(mine.status);
      return std::move(mine.outcome);
    }
    group = TakeGroup(queue);
    ++queue.at_work;
    CallNext(queue);
  }
  CommitGroup(domain, group);
  const MutexLock lock(mutex_);
  for (Waiting* const each : group) {
    each->done = true;
    if (each != &mine) each->changed.NotifyAll();  // and it is gone when the mutex is free
  }
  Queue& queue = queues_[domain];
  --queue.at_work;
  CallNext(queue);
  if (queue.waiting.empty() && queue.at_work == 0) queues_.erase(domain);
  CKPT_RETURN_IF_ERROR(mine.status);
  return std::move(mine.outcome);
}

void BatchCommitter::CallNext(const Queue& queue) const {
  if (!queue.waiting.empty() && queue.at_work < at_once_) queue.waiting.front()->changed.NotifyAll();
}

std::size_t BatchCommitter::waiting(const std::string& domain) {
  const MutexLock lock(mutex_);
  const auto queue = queues_.find(domain);
  return queue == queues_.end() ? 0 : queue->second.waiting.size();
}

// Those that have waited longest, as far as they fit, and the first in any case.
std::vector<BatchCommitter::Waiting*> BatchCommitter::TakeGroup(Queue& queue) {
  std::vector<Waiting*> group;
  std::uint64_t bytes = 0;
  std::size_t records = 0;
  while (!queue.waiting.empty()) {
    Waiting* const next = queue.waiting.front();
    bytes += next->bytes;
    records += next->batch.records.size();
    if (!group.empty() && (bytes > kGroupBytes || records > kGroupRecords)) break;
    queue.waiting.pop_front();
    next->taken = true;
    group.push_back(next);
  }
  return group;
}

void BatchCommitter::CommitGroup(const std::string& domain, const std::vector<Waiting*>& group) {
  std::vector<Record> records;
  for (const Waiting* const each : group)
    records.insert(records.end(), each->batch.records.begin(), each->batch.records.end());
  const std::optional<PackId>& prefer = group.front()->batch.prefer;
  const absl::StatusOr<WrittenBatch> written = packs_.Write(domain, records, prefer.has_value() ? &*prefer : nullptr);
  if (!written.ok()) {
    for (Waiting* const each : group) each->status = written.status();
    return;
  }
  auto location = written->locations.begin();
  for (Waiting* const each : group) {
    each->outcome.pack = written->pack;
    each->outcome.locations.assign(location, location + static_cast<std::ptrdiff_t>(each->batch.records.size()));
    location += static_cast<std::ptrdiff_t>(each->batch.records.size());
    each->batch.index.written = &*written;
    auto own = each->outcome.locations.begin();
    for (IndexEntry& entry : each->batch.index.entries) {
      if (!entry.written.has_value()) continue;
      CKPT_CHECK(own != each->outcome.locations.end());
      entry.written = *own++;
    }
  }
  IndexGroup(*written, group);
}

// In one transaction; if that fails each batch in one of its own. One that was indexed makes all of the group's bytes
// count, those of the others are dead.
void BatchCommitter::IndexGroup(const WrittenBatch& written, const std::vector<Waiting*>& group) {
  const auto index = [&](std::span<Waiting* const> some) {
    std::vector<IndexBatch*> batches;
    batches.reserve(some.size());
    for (Waiting* const each : some) batches.push_back(&each->batch.index);
    absl::StatusOr<std::vector<IndexResult>> results = index_.Index(batches);
    bool indexed = results.ok();
    for (std::size_t i = 0; i < some.size(); ++i) {
      some[i]->status = results.status();
      if (!results.ok()) continue;
      some[i]->outcome.result = std::move((*results)[i]);
      indexed = indexed && some[i]->outcome.result.gone.empty();
    }
    return indexed;
  };
  bool indexed = index(group);
  if (!indexed && group.size() > 1)
    for (std::size_t i = 0; i < group.size(); ++i) indexed |= index(std::span(group).subspan(i, 1));
  packs_.Release(written.pack, indexed);
}

}  // namespace ckpt::storage
