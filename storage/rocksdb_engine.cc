#include "storage/rocksdb_engine.h"

#include <fcntl.h>
#include <rocksdb/cache.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/transaction_db.h>
#include <rocksdb/utilities/write_batch_with_index.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <numeric>
#include <random>
#include <semaphore>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/parallel.h"
#include "base/status.h"

namespace ckpt::storage {
namespace {

constexpr char kDamaged[] = "CATALOG_DAMAGED";
constexpr int kMaxAttempts = 100;
constexpr std::int64_t kLockTimeoutMs = 2000;
// Of many keys, so many are read in one call.
constexpr std::size_t kKeysOfPart = 256;
// Threads that read them, also where there are fewer cores: some of them wait for the disk.
constexpr std::size_t kReadingThreads = 8;
// Reads on several threads at once, in the process; others are done by who asks.
constexpr int kThreadedReads = 2;

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
    return MakeError(absl::StatusCode::kDataLoss, kDamaged, absl::StrCat(text, "; restore the store from a backup"));
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
  // Most rows are chunks', and most of such a row is digests and names drawn at random: a sixth smaller is not worth
  // unpacking a block for each row that is read.
  options.compression = rocksdb::kNoCompression;
  rocksdb::BlockBasedTableOptions table;
  // Above all for the filters and indexes of the files, of 2 MiB for a million rows: few parts, so that one has room
  // for many of them, which are up to half a MiB each.
  constexpr int kCachePartBits = 2;
  table.block_cache = rocksdb::NewLRUCache(std::size_t{64} << 20, kCachePartBits);
  table.cache_index_and_filter_blocks = true;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  // Most reads are of single keys, many of them of chunks that nobody has stored.
  table.data_block_index_type = rocksdb::BlockBasedTableOptions::kDataBlockBinaryAndHash;
  options.memtable_whole_key_filtering = true;
  options.memtable_prefix_bloom_size_ratio = 0.05;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

// As TransactionDB::Open, but for transactions that are never prepared before they commit. Those that are may stand in
// any log of the past, so each start would keep the logs that it has recovered, and read them all again. WrapDB asks
// for allow_2pc; in RocksDB 7.8 nothing but prepared transactions needs it.
rocksdb::Status OpenDatabase(const std::filesystem::path& dir, std::unique_ptr<rocksdb::TransactionDB>& out) {
  const rocksdb::Options options = DatabaseOptions();
  rocksdb::DBOptions db_options(options);
  std::vector<rocksdb::ColumnFamilyDescriptor> families = {{rocksdb::kDefaultColumnFamilyName, options}};
  std::vector<std::size_t> compacted;
  rocksdb::TransactionDB::PrepareWrap(&db_options, &families, &compacted);
  db_options.allow_2pc = false;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  rocksdb::Status status = rocksdb::DB::Open(db_options, dir.string(), families, &handles, &db);
  if (!status.ok()) return status;
  rocksdb::TransactionDBOptions transactions;
  transactions.transaction_lock_timeout = kLockTimeoutMs;
  transactions.default_lock_timeout = kLockTimeoutMs;
  rocksdb::TransactionDB* wrapped = nullptr;
  status = rocksdb::TransactionDB::WrapDB(db, transactions, compacted, handles, &wrapped);
  if (!status.ok()) return status;  // it has deleted db
  delete handles[0];                // the database has one of its own
  out.reset(wrapped);
  return status;
}

// The file that says how far the log was on disk. It rises after the log was synced, and is not synced itself: after a
// crash it says less than is true, not more. Thread-safe.
class DurableFile {
 public:
  // A path that is empty: nothing is kept.
  static absl::StatusOr<std::unique_ptr<DurableFile>> Open(const std::filesystem::path& path) {
    if (path.empty()) return std::unique_ptr<DurableFile>(new DurableFile(-1, 0));
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    std::array<unsigned char, 8> bytes{};
    // One that a crash left shorter says nothing.
    const ssize_t size = fd < 0 ? -1 : pread(fd, bytes.data(), bytes.size(), 0);
    if (size < 0) {
      const int error = errno;
      if (fd >= 0) close(fd);
      return MakeError(absl::StatusCode::kInternal, "CANNOT_OPEN_STORE",
                       absl::StrCat("cannot read ", path.string(), ": ", std::system_category().message(error)));
    }
    std::uint64_t sequence = 0;
    for (std::size_t i = bytes.size(); i-- != 0;) sequence = sequence << 8 | bytes[i];
    return std::unique_ptr<DurableFile>(new DurableFile(fd, size == static_cast<ssize_t>(bytes.size()) ? sequence : 0));
  }

  ~DurableFile() {
    if (fd_ >= 0) close(fd_);
  }
  DurableFile(const DurableFile&) = delete;
  DurableFile& operator=(const DurableFile&) = delete;

  std::uint64_t sequence() {
    const MutexLock lock(mutex_);
    return sequence_;
  }

  // At once and durably: what it said before may be more.
  absl::Status Set(std::uint64_t sequence) {
    const MutexLock lock(mutex_);
    if (Write(sequence) && (fd_ < 0 || fdatasync(fd_) == 0)) return absl::OkStatus();
    const bool full = errno == ENOSPC || errno == EDQUOT;
    return MakeError(
        full ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInternal,
        full ? "DISK_FULL" : "CANNOT_OPEN_STORE",
        absl::StrCat("cannot write how far the catalog is on disk: ", std::system_category().message(errno)));
  }

  void Raise(std::uint64_t sequence) {
    const MutexLock lock(mutex_);
    if (sequence > sequence_) (void)Write(sequence);  // one that fails says less, which is true too
  }

 private:
  DurableFile(int fd, std::uint64_t sequence) : fd_(fd), sequence_(sequence) {}

  bool Write(std::uint64_t sequence) CKPT_REQUIRES(mutex_) {
    sequence_ = sequence;
    std::array<unsigned char, 8> bytes;
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<unsigned char>(sequence >> 8 * i);
    return fd_ < 0 || pwrite(fd_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size());
  }

  const int fd_;
  Mutex mutex_;
  std::uint64_t sequence_ CKPT_GUARDED_BY(mutex_);
};

// DataLoss if the database ends before the sequence number, unless that is accepted. Changes nothing in its folder.
// Goes by the last sequence number that RocksDB recovers, which since 6.29 its MANIFEST has exactly.
absl::Status CheckReaches(const std::filesystem::path& dir, std::uint64_t sequence, bool accept_loss) {
  std::uint64_t end = 0;
  std::error_code error;
  const bool exists = std::filesystem::exists(dir / "CURRENT", error);
  if (error)
    return MakeError(absl::StatusCode::kInternal, "CANNOT_OPEN_STORE",
                     absl::StrCat("cannot look into ", dir.string(), ": ", error.message()));
  // Files without a CURRENT: RocksDB refuses those of a database, and goes on with what a first start left that was
  // cut.
  if (sequence != 0 && !exists && std::filesystem::exists(dir, error) && !std::filesystem::is_empty(dir, error))
    return MakeError(absl::StatusCode::kDataLoss, kDamaged,
                     absl::StrCat(dir.string(),
                                  " is no catalog: it has files, but no CURRENT; nothing was changed. "
                                  "Restore the store from a backup"));
  if (exists) {
    rocksdb::DB* opened = nullptr;
    CKPT_RETURN_IF_ERROR(Convert(rocksdb::DB::OpenForReadOnly(DatabaseOptions(), dir.string(), &opened)));
    end = std::unique_ptr<rocksdb::DB>(opened)->GetLatestSequenceNumber();
  }
  if (end >= sequence) return absl::OkStatus();
  const std::string loss =
      absl::StrCat(dir.string(), " lacks what was on disk before: it ends at write ", end, " of ", sequence);
  if (!accept_loss)
    return MakeError(absl::StatusCode::kDataLoss, kDamaged,
                     absl::StrCat(loss,
                                  "; nothing was changed. Restore the store from a backup, or serve what is left "
                                  "of it with --accept-loss"));
  spdlog::warn("{}: accepted", loss);
  return absl::OkStatus();
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
  RocksDbTransaction(rocksdb::TransactionDB& db, rocksdb::Transaction& txn) : db_(db), txn_(txn) {}

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key, Hold hold) override {
    std::string value;
    const rocksdb::Slice slice(key.data(), key.size());
    const rocksdb::Status status = hold == Hold::kNone ? txn_.Get({}, slice, &value)
                                                       : txn_.GetForUpdate({}, slice, &value, hold == Hold::kExclusive);
    if (status.IsNotFound()) return std::optional<std::string>();
    CKPT_RETURN_IF_ERROR(Convert(status));
    return std::optional(std::move(value));
  }

  absl::StatusOr<std::vector<std::optional<std::string>>> MultiGet(std::span<const std::string> keys,
                                                                   Hold hold) override {
    if (keys.empty()) return std::vector<std::optional<std::string>>();
    // Sorted, in one call: keys of one block are looked up together.
    std::vector<std::size_t> order(keys.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return keys[a] < keys[b]; });
    std::vector<rocksdb::Slice> slices;
    slices.reserve(keys.size());
    for (const std::size_t i : order) slices.emplace_back(keys[i]);
    if (hold != Hold::kNone) {
      std::string* const unread = nullptr;
      for (const rocksdb::Slice& key : slices)
        CKPT_RETURN_IF_ERROR(Convert(txn_.GetForUpdate({}, key, unread, hold == Hold::kExclusive)));
    }
    // In parts, as a value holds its whole block until it is copied.
    const std::size_t parts = (keys.size() + kKeysOfPart - 1) / kKeysOfPart;
    std::vector<absl::Status> statuses(parts);
    std::vector<std::optional<std::string>> out(keys.size());
    const auto read = [&](auto& from, std::size_t part) {
      const std::size_t first = part * kKeysOfPart;
      statuses[part] =
          ReadPart(from, parts == 1, std::span(slices).subspan(first, std::min(kKeysOfPart, keys.size() - first)),
                   std::span(order).subspan(first), out);
    };
    static std::counting_semaphore<> threaded_reads(kThreadedReads);
    if (wrote_ || keys.size() < 2 * kKeysOfPart || !threaded_reads.try_acquire()) {
      for (std::size_t part = 0; part < parts; ++part) read(txn_, part);
    } else {  // what it has not written is the database's, which many threads may read
      const absl::Cleanup release = [] { threaded_reads.release(); };
      ParallelFor(
          parts, [&](std::size_t part) { read(db_, part); }, kReadingThreads);
    }
    for (const absl::Status& status : statuses) CKPT_RETURN_IF_ERROR(status);
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
  // Reads keys that are sorted; the value of the i-th goes to out[places[i]].
  template <typename From>
  absl::Status ReadPart(From& from, bool fill_cache, std::span<const rocksdb::Slice> keys,
                        std::span<const std::size_t> places, std::vector<std::optional<std::string>>& out) {
    rocksdb::ReadOptions options;
    // What many keys read is not asked for again before it would leave. RocksDB 7.8 caches filters and
    // indexes all the same.
    options.fill_cache = fill_cache;
    std::vector<rocksdb::PinnableSlice> values(keys.size());
    std::vector<rocksdb::Status> statuses(keys.size());
    from.MultiGet(options, db_.DefaultColumnFamily(), keys.size(), keys.data(), values.data(), statuses.data(), true);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      if (statuses[i].IsNotFound()) continue;
      CKPT_RETURN_IF_ERROR(Convert(statuses[i]));
      out[places[i]] = values[i].ToString();
    }
    return absl::OkStatus();
  }

  rocksdb::TransactionDB& db_;
  rocksdb::Transaction& txn_;
  bool wrote_ = false;
};

}  // namespace

struct RocksDbEngine::Impl {
  std::unique_ptr<DurableFile> durable;
  std::unique_ptr<rocksdb::TransactionDB> db;
  std::function<void(const absl::Status&)> on_fatal;
  std::function<void()> before_commit;
};

RocksDbEngine::RocksDbEngine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

RocksDbEngine::~RocksDbEngine() {
  if (impl_->db->FlushWAL(/*sync=*/true).ok()) impl_->durable->Raise(impl_->db->GetLatestSequenceNumber());
}

absl::StatusOr<std::unique_ptr<RocksDbEngine>> RocksDbEngine::Open(const std::filesystem::path& dir,
                                                                   RocksDbOptions options) {
  CKPT_ASSIGN_OR_RETURN(auto durable, DurableFile::Open(options.durable_file));
  CKPT_RETURN_IF_ERROR(CheckReaches(dir, durable->sequence(), options.accept_loss));
  auto impl = std::make_unique<Impl>();
  CKPT_RETURN_IF_ERROR(Convert(OpenDatabase(dir, impl->db)));
  // RocksDB has what it recovered in new files that it synced.
  CKPT_RETURN_IF_ERROR(durable->Set(impl->db->GetLatestSequenceNumber()));
  impl->durable = std::move(durable);
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
    RocksDbTransaction transaction(*impl_->db, *txn);
    absl::Status status = body(transaction);
    if (status.ok()) {
      if (!transaction.wrote()) return status;  // the locks go with txn
      if (impl_->before_commit) impl_->before_commit();
      // Other transactions may come in between: then the log is on disk further than this says.
      const std::uint64_t end = impl_->db->GetLatestSequenceNumber() + txn->GetWriteBatch()->GetWriteBatch()->Count();
      const rocksdb::Status committed = txn->Commit();
      if (committed.ok()) {
        if (write.sync) impl_->durable->Raise(end);
        return status;
      }
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
