// Packs as files: ROOT/DOMAIN/ID.pack.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/mutex.h"
#include "storage/block_file.h"
#include "storage/pack_store.h"

namespace ckpt::storage {

struct FilePackStoreOptions {
  std::filesystem::path root;  // made if it is not there

  // A pack that has grown to this size is sealed.
  std::uint64_t target_size_bytes = std::uint64_t{256} << 20;

  // Packs of one domain that are open at once: so many writes can run side by side, and each may leave one half-filled.
  std::size_t max_open_packs = 4;

  // An open pack that nobody has written to for so long is sealed by SealIdle.
  std::chrono::milliseconds seal_idle_after = std::chrono::minutes(1);

  // Called when the disk had no room for a write, before the registry hears that its pack is sealed.
  std::function<void()> on_full = nullptr;

  const Clock* clock = &Clock::System();
};

class FilePackStore final : public PackStore {
 public:
  // Packs of an earlier process are only read: nothing is ever appended to one again, or cut off. `registry` outlives
  // it.
  static absl::StatusOr<std::unique_ptr<FilePackStore>> Open(FilePackStoreOptions options, PackRegistry& registry);
  ~FilePackStore() override;

  absl::StatusOr<WrittenBatch> Write(std::string_view domain, std::span<const Record> records,
                                     const PackId* prefer) override;
  void Release(const PackId& pack, bool indexed) override;
  absl::Status Read(std::string_view domain, const PackId& pack, std::uint64_t offset,
                    std::span<std::byte> buffer) const override;
  absl::Status Delete(std::string_view domain, const PackId& pack) override;
  absl::StatusOr<std::vector<Listed>> List() const override;
  void SealIdle() override;

 private:
  // A pack that this process writes.
  struct OpenPack {
    PackId id;
    std::string domain;
    BlockFile file;
    std::uint32_t records = 0;
    bool busy = true;
    std::chrono::milliseconds last_used{};
  };
  // A file that is open for reading; closed when the last who reads has let go.
  struct ReadFile {
    ReadFile(int f, std::string d, const PackId& p) : fd(f), domain(std::move(d)), pack(p) {}
    ~ReadFile();
    const int fd;
    const std::string domain;
    const PackId pack;
  };

  FilePackStore(FilePackStoreOptions options, PackRegistry& registry)
      : options_(std::move(options)), registry_(registry) {}

  [[nodiscard]] std::filesystem::path PathOf(std::string_view domain, const PackId& pack) const;
  absl::StatusOr<OpenPack*> Borrow(std::string_view domain, const PackId* prefer);
  absl::Status Create(OpenPack& pack);
  absl::Status Append(BlockFile& file, std::span<const Bytes> parts);
  absl::StatusOr<WrittenBatch> WriteRecords(OpenPack& pack, std::span<const Record> records);
  absl::Status Seal(OpenPack* pack);
  void SealFailed(OpenPack* pack, const absl::Status& error);
  void Leave(OpenPack& pack) CKPT_REQUIRES(mutex_);
  void Close(OpenPack* pack);
  absl::StatusOr<std::shared_ptr<ReadFile>> FileOf(std::string_view domain, const PackId& pack) const;

  const FilePackStoreOptions options_;
  PackRegistry& registry_;

  mutable Mutex mutex_;
  CondVar released_;
  std::list<std::unique_ptr<OpenPack>> open_ CKPT_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<BlockBuffer>> buffers_ CKPT_GUARDED_BY(mutex_);

  // The files read last, the latest at the back.
  mutable std::list<std::shared_ptr<ReadFile>> files_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt::storage
