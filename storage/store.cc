#include "storage/store.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "storage/file_pack_store.h"
#include "storage/file_system.h"
#include "storage/keys.h"
#include "storage/rocksdb_engine.h"
#include "storage/rows.h"

namespace ckpt::storage {
namespace {

constexpr std::uint32_t kFormat = 1;
constexpr std::chrono::seconds kMaintenanceInterval{1};
// The table of a write buffer that is full, and the space of the log that begins then.
constexpr std::uint64_t kReserveMarginBytes = 2 * kRocksDbWriteBufferBytes;
// What the catalog writes as it opens, besides a table of what its logs hold.
constexpr std::uint64_t kStartBytes = std::uint64_t{8} << 20;

bool HasPacks(const std::filesystem::path& packs) {
  std::error_code error;
  for (const auto& domain : std::filesystem::directory_iterator(packs, error))
    for (const auto& file : std::filesystem::directory_iterator(domain, error))
      if (file.path().extension() == ".pack") return true;
  return false;
}

// Bytes of the catalog's logs.
std::uint64_t LogBytes(const std::filesystem::path& catalog) {
  std::uint64_t bytes = 0;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(catalog, error))
    if (entry.path().extension() == ".log") bytes += entry.file_size(error);
  return bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::Open(StoreOptions options) {
  const absl::Status made = MakeFolder(options.dir);
  if (absl::IsInternal(made))
    return MakeError(absl::StatusCode::kInternal, "CANNOT_OPEN_STORE", std::string(made.message()));
  CKPT_RETURN_IF_ERROR(made);
  CKPT_ASSIGN_OR_RETURN(FolderLock lock, FolderLock::Take(options.dir));
  CKPT_ASSIGN_OR_RETURN(auto reserve, DiskReserve::Open(options.dir, {.reserve_bytes = options.reserve_bytes,
                                                                      .margin_bytes = kReserveMarginBytes}));
  CKPT_RETURN_IF_ERROR(reserve->NeedToStart(kStartBytes + LogBytes(options.dir / "catalog")));
  CKPT_ASSIGN_OR_RETURN(
      auto engine, RocksDbEngine::Open(options.dir / "catalog", {.before_commit = [r = reserve.get()] { r->Watch(); },
                                                                 .durable_file = options.dir / "durable",
                                                                 .accept_loss = options.accept_loss}));
  auto store =
      std::unique_ptr<Store>(new Store(std::move(options), std::move(lock), std::move(reserve), std::move(engine)));
  CKPT_RETURN_IF_ERROR(store->Recover());
  store->maintenance_ = std::thread([s = store.get()] { s->Maintain(); });
  return store;
}

Store::Store(StoreOptions options, FolderLock lock, std::unique_ptr<DiskReserve> reserve,
             std::unique_ptr<KvEngine> engine)
    : options_(std::move(options)),
      lock_(std::move(lock)),
      reserve_(std::move(reserve)),
      engine_(std::move(engine)),
      pack_table_(*engine_),
      chunks_(*engine_),
      sessions_(*engine_, *options_.clock, options_.lease),
      parts_(*engine_) {}

Store::~Store() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
  }
  wake_.NotifyAll();
  if (maintenance_.joinable()) maintenance_.join();
}

absl::Status Store::CheckFormat() {
  const bool has_packs = HasPacks(options_.dir / "packs");
  return engine_->Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(auto row, GetRow<v1::StoreRow>(txn, keys::Store(), Hold::kExclusive));
    if (!row.has_value()) {
      if (has_packs && !options_.accept_loss)
        return MakeError(absl::StatusCode::kDataLoss, "CATALOG_DAMAGED",
                         absl::StrCat(options_.dir.string(),
                                      " has packs, but its catalog folder is missing or empty. "
                                      "Restore the store from a backup, or begin a new catalog with --accept-loss"));
      row.emplace().set_format(kFormat);
      return PutRow(txn, keys::Store(), *row);
    }
    if (row->format() == kFormat) return absl::OkStatus();
    return MakeError(absl::StatusCode::kUnimplemented, "STORE_TOO_NEW",
                     absl::StrCat(options_.dir.string(), " has format ", row->format(),
                                  ", and this ckptd knows format ", kFormat, "; run the version that wrote it"));
  });
}

absl::Status Store::Recover() {
  CKPT_RETURN_IF_ERROR(CheckFormat());
  const FilePackStoreOptions packs{.root = options_.dir / "packs",
                                   .target_size_bytes = options_.pack_target_bytes,
                                   .seal_idle_after = options_.seal_idle_after,
                                   .on_full = [this] { reserve_->GiveUp(); },
                                   .clock = options_.clock};
  CKPT_ASSIGN_OR_RETURN(packs_, FilePackStore::Open(packs, pack_table_));
  committer_ = std::make_unique<BatchCommitter>(*packs_, chunks_, packs.max_open_packs);
  versions_ = std::make_unique<VersionTable>(*engine_, *packs_, *options_.clock);
  CKPT_RETURN_IF_ERROR(pack_table_.Recover(*packs_));
  CKPT_RETURN_IF_ERROR(sessions_.Recover());
  // Not fatal: a full disk must not keep anybody from restoring.
  if (const absl::Status status = WriteMarkers(); !status.ok()) {
    spdlog::warn("commit markers are not written yet: {}", status.ToString());
    MarkCommits();
  }
  return absl::OkStatus();
}

Store::MergeTurn::MergeTurn(Store& store, const std::function<void()>& at_work) : store_(store) {
  const MutexLock lock(store_.merge_mutex_);
  while (store_.is_merging_) {
    store_.merged_.WaitFor(store_.merge_mutex_, std::chrono::seconds(1));
    at_work();
  }
  store_.is_merging_ = true;
}

Store::MergeTurn::~MergeTurn() {
  const MutexLock lock(store_.merge_mutex_);
  store_.is_merging_ = false;
  store_.merged_.NotifyAll();
}

absl::StatusOr<std::uint32_t> Store::OpenDomain(const std::string& domain) {
  std::uint32_t chunk_size = 0;
  CKPT_RETURN_IF_ERROR(engine_->Transact(KvEngine::Durability::kSync, [&](Transaction& txn) -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(auto row, GetRow<v1::DomainRow>(txn, keys::Domain(domain), Hold::kShared));
    if (!row.has_value()) {
      row.emplace().set_chunk_size(options_.chunk_size);
      CKPT_RETURN_IF_ERROR(PutRow(txn, keys::Domain(domain), *row));
    }
    chunk_size = row->chunk_size();
    return absl::OkStatus();
  }));
  return chunk_size;
}

void Store::MarkCommits() {
  const MutexLock lock(mutex_);
  marks_due_ = true;
  wake_.NotifyAll();
}

// Not on a full disk: each try would leave the row of a pack that could not be made.
absl::Status Store::WriteMarkers() {
  CKPT_RETURN_IF_ERROR(reserve_->Admit(0));
  return versions_->WriteMarkers();
}

// The disk's space, commit markers, leases, and packs that nobody writes to any more.
void Store::Maintain() {
  const auto report = [](const char* what, const absl::Status& status) {
    if (!status.ok()) spdlog::warn("{}: {}; it is tried again", what, status.ToString());
  };
  bool marks_failed = false;
  while (true) {
    bool marks_due = false;
    bool stop = false;
    {
      const MutexLock lock(mutex_);
      if (!stop_ && !marks_due_) wake_.WaitFor(mutex_, kMaintenanceInterval);
      marks_due = std::exchange(marks_due_, false) || marks_failed;
      stop = stop_;
    }
    // Before anything that writes to the catalog.
    if (const absl::Status room = reserve_->Admit(0); !absl::IsResourceExhausted(room)) report("disk space", room);
    if (marks_due) {
      const absl::Status marked = WriteMarkers();
      if (!marks_failed) report("commit markers", marked);  // of a row of failures the first
      marks_failed = !marked.ok();
    }
    if (stop) return;  // what is left, the next start writes
    report("leases", sessions_.ExpireIdle());
    packs_->SealIdle();
  }
}

}  // namespace ckpt::storage
