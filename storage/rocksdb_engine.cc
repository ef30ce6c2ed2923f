#include "storage/rocksdb_engine.h"

#include <rocksdb/cache.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/transaction_db.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <random>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::storage {
namespace {

constexpr int kMaxAttempts = 100;
constexpr std::int64_t kLockTimeoutMs = 2000;

// True for what running the transaction again may mend.
bool IsConflict(const rocksdb::Status& status) {
  return status.IsBusy() || status.IsTimedOut() || status.IsTryAgain() || status.IsAborted() ||
         status.IsMergeInProgress();
}

absl::Status Convert(const rocksdb::Status& status) {
  if (status.ok()) return absl::OkStatus();
  if (IsConflict(status)) return Conflict();
  const std::string text = absl::StrCat("the catalog: ", status.ToString());
  if (status.IsNoSpace()) return MakeError(absl::StatusCode::kResourceExhausted, "DISK_FULL", text);
  if (status.IsCorruption())
    return MakeError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED",
                     absl::StrCat(text, "; restore the catalog folder from a backup, or rebuild it from the packs"));
  return MakeError(absl::StatusCode::kInternal, "CATALOG_FAILED", text);
}

[[noreturn]] void Die(const absl::Status& status) {
  std::fprintf(
      stderr,
      "ckptd: a write to the catalog failed: %s\nckptd: stopping at once; nothing that was promised is lost, and "
      "the next start recovers\n",
      status.ToString().c_str());
  _exit(1);
}

rocksdb::Options DatabaseOptions() {
  rocksdb::Options options;
  options.create_if_missing = true;
  options.paranoid_checks = true;
  options.write_buffer_size = kRocksDbWriteBufferBytes;
  options.max_write_buffer_number = 2;
  options.max_total_wal_size = std::uint64_t{64} << 20;
  options.target_file_size_base = std::uint64_t{16} << 20;
  options.max_open_files = 256;
  options.keep_log_file_num = 4;
  options.max_log_file_size = std::size_t{4} << 20;
  options.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(std::size_t{64} << 20);
  table.cache_index_and_filter_blocks = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

// The first key after all that start with the prefix; empty if there is none.
std::string PrefixEnd(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && end.back() == '\xff') end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(end.back() + 1);
  return end;
}

class RocksDbTransaction final : public Transaction {
 public:
  explicit RocksDbTransaction(rocksdb::Transaction& txn) : txn_(txn) {}

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key, Hold hold) override {
    std::string value;
    const rocksdb::Slice slice(key.data(), key.size());
    const rocksdb::Status status = hold == Hold::kNone ? txn_.Get({}, slice, &value)
                                                       : txn_.GetForUpdate({}, slice, &value, hold == Hold::kExclusive);
    if (status.IsNotFound()) return std::optional<std::string>();
    CKPT_RETURN_IF_ERROR(Convert(status));
    return std::optional(std::move(value));
  }

  absl::StatusOr<std::vector<std::optional<std::string>>> MultiGet(std::span<const std::string> keys) override {
    const std::vector<rocksdb::Slice> slices(keys.begin(), keys.end());
    std::vector<std::string> values;
    const std::vector<rocksdb::Status> statuses = txn_.MultiGet({}, slices, &values);
    std::vector<std::optional<std::string>> out(keys.size());
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (statuses[i].IsNotFound()) continue;
      CKPT_RETURN_IF_ERROR(Convert(statuses[i]));
      out[i] = std::move(values[i]);
    }
    return out;
  }

  absl::Status Put(std::string_view key, std::string_view value) override {
    wrote_ = true;
    return Convert(txn_.Put({key.data(), key.size()}, {value.data(), value.size()}));
  }

  absl::Status Delete(std::string_view key) override {
    wrote_ = true;
    return Convert(txn_.Delete(rocksdb::Slice(key.data(), key.size())));
  }

  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Scan(std::string_view prefix, std::string_view after,
                                                                        std::size_t limit) override {
    const std::string end = PrefixEnd(prefix);
    const rocksdb::Slice end_slice(end);
    rocksdb::ReadOptions options;
    if (!end.empty()) options.iterate_upper_bound = &end_slice;
    const std::unique_ptr<rocksdb::Iterator> it(txn_.GetIterator(options));
    std::vector<std::pair<std::string, std::string>> out;
    const std::string_view start = std::max(prefix, after);
    it->Seek({start.data(), start.size()});
    if (it->Valid() && !after.empty() && it->key() == rocksdb::Slice(after.data(), after.size())) it->Next();
    std::size_t bytes = 0;
    const auto more = [&] { return it->Valid() && it->key().starts_with({prefix.data(), prefix.size()}); };
    for (; out.size() < limit && bytes < kScanBytes && more(); it->Next()) {
      out.emplace_back(it->key().ToString(), it->value().ToString());
      bytes += out.back().first.size() + out.back().second.size();
    }
    CKPT_RETURN_IF_ERROR(Convert(it->status()));
    return out;
  }

  [[nodiscard]] bool wrote() const { return wrote_; }

 private:
  rocksdb::Transaction& txn_;
  bool wrote_ = false;
};

}  // namespace

struct RocksDbEngine::Impl {
  std::unique_ptr<rocksdb::TransactionDB> db;
  std::function<void(const absl::Status&)> on_fatal;
  std::function<void()> before_commit;
};

RocksDbEngine::RocksDbEngine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RocksDbEngine::~RocksDbEngine() = default;

absl::StatusOr<std::unique_ptr<RocksDbEngine>> RocksDbEngine::Open(const std::filesystem::path& dir,
                                                                   RocksDbOptions options) {
  rocksdb::TransactionDBOptions transactions;
  transactions.transaction_lock_timeout = kLockTimeoutMs;
  transactions.default_lock_timeout = kLockTimeoutMs;
  rocksdb::TransactionDB* db = nullptr;
  const rocksdb::Status status = rocksdb::TransactionDB::Open(DatabaseOptions(), transactions, dir.string(), &db);
  CKPT_RETURN_IF_ERROR(Convert(status));
  auto impl = std::make_unique<Impl>();
  impl->db.reset(db);
  impl->before_commit = std::move(options.before_commit);
  impl->on_fatal = options.on_fatal ? std::move(options.on_fatal) : Die;
  return std::unique_ptr<RocksDbEngine>(new RocksDbEngine(std::move(impl)));
}

absl::Status RocksDbEngine::Transact(Durability durability, const std::function<absl::Status(Transaction&)>& body) {
  rocksdb::WriteOptions write;
  write.sync = durability == Durability::kSync;
  rocksdb::TransactionOptions options;
  options.deadlock_detect = true;
  thread_local std::minstd_rand random(std::random_device{}());
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    std::unique_ptr<rocksdb::Transaction> txn(impl_->db->BeginTransaction(write, options));
    RocksDbTransaction transaction(*txn);
    absl::Status status = body(transaction);
    if (status.ok()) {
      if (!transaction.wrote()) return status;  // the locks go with txn
      if (impl_->before_commit) impl_->before_commit();
      const rocksdb::Status committed = txn->Commit();
      if (committed.ok()) return status;
      status = Convert(committed);
      if (ReasonOf(status) != kConflict) {
        impl_->on_fatal(status);
        std::abort();
      }
    }
    txn.reset();  // its locks too: whoever waits for them must not wait for the pause below
    if (ReasonOf(status) != kConflict) return status;
    const int limit_us = 100 << std::min(attempt, 7);
    std::this_thread::sleep_for(std::chrono::microseconds(std::uniform_int_distribution<int>(0, limit_us)(random)));
  }
  return Conflict();
}

}  // namespace ckpt::storage
