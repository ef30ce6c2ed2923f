// How a batch becomes durable:
//   1. a new pack's row                       PackRegistry::Announce
//   2. its file, exclusively; its header
//   3. fsync of the domain's folder, and of the root
//   4. the records, one after the other       pwrite, of whole blocks
//   5. fdatasync of the file
// The folders above the root are made and synced when the store is opened.
// A file that failed to be written or synced is never written again: what the kernel dropped cannot be known.
#include "storage/file_pack_store.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/random.h"
#include "base/status.h"
#include "storage/file_system.h"
#include "storage/names.h"

namespace ckpt::storage {
namespace {

constexpr std::size_t kMaxReadFiles = 128;
// Buffers that are kept for the next write.
constexpr std::size_t kMaxBuffers = 4;
// Of a pack that is not sealed yet: a reference's bitmap has a bit for each.
constexpr std::uint32_t kMaxRecords = 16384;
constexpr std::uint64_t kMaxOffset = std::uint64_t{1} << 62;  // far beyond any file, far below the end of off_t
constexpr char kEnding[] = ".pack";

// The id that a pack's file is named for; nullopt for any other name.
std::optional<PackId> PackNamed(const std::string& name) {
  if (!absl::EndsWith(name, kEnding) || name.size() != 2 * PackId::kSize + sizeof(kEnding) - 1) return std::nullopt;
  const auto id = PackId::From(absl::HexStringToBytes(name.substr(0, 2 * PackId::kSize)));
  return id.has_value() && id->ToHex() + kEnding == name ? id : std::nullopt;
}

absl::Status ListDomain(const std::filesystem::path& path, std::vector<PackStore::Listed>& out) {
  std::error_code error;
  std::filesystem::directory_iterator file(path, error);
  for (; !error && file != std::filesystem::directory_iterator(); file.increment(error)) {
    const std::optional<PackId> id = PackNamed(file->path().filename().string());
    if (!id.has_value()) continue;
    std::error_code look;
    const bool regular = file->is_regular_file(look);
    const std::uint64_t size_bytes = regular ? file->file_size(look) : 0;
    if (look == std::errc::no_such_file_or_directory) continue;  // deleted meanwhile
    if (look) return SystemError("cannot look at", file->path(), look.value());
    if (regular) out.push_back({path.filename().string(), *id, size_bytes});
  }
  return error ? SystemError("cannot list", path, error.value()) : absl::OkStatus();
}

}  // namespace

FilePackStore::ReadFile::~ReadFile() { close(fd); }

absl::StatusOr<std::unique_ptr<FilePackStore>> FilePackStore::Open(FilePackStoreOptions options,
                                                                   PackRegistry& registry) {
  CKPT_RETURN_IF_ERROR(MakeFolder(options.root));
  return std::unique_ptr<FilePackStore>(new FilePackStore(std::move(options), registry));
}

FilePackStore::~FilePackStore() {
  while (true) {
    OpenPack* pack = nullptr;
    {
      const MutexLock lock(mutex_);
      if (open_.empty()) return;
      pack = open_.front().get();
      CKPT_CHECK(!pack->busy);
    }
    if (!Seal(pack).ok()) Close(pack);  // the next start finds what is lost
  }
}

std::filesystem::path FilePackStore::PathOf(std::string_view domain, const PackId& pack) const {
  CKPT_CHECK(!domain.empty() && domain[0] != '.' && domain.find('/') == domain.npos);
  return options_.root / domain / (pack.ToHex() + kEnding);
}

// A pack to append to, busy: the preferred one, another that is free, a new one, or after a wait.
absl::StatusOr<FilePackStore::OpenPack*> FilePackStore::Borrow(std::string_view domain, const PackId* prefer) {
  OpenPack* fresh = nullptr;
  {
    const MutexLock lock(mutex_);
    while (true) {
      OpenPack* found = nullptr;
      std::size_t count = 0;
      for (const auto& pack : open_) {
        if (pack->domain != domain) continue;
        ++count;
        if (!pack->busy && (found == nullptr || (prefer != nullptr && pack->id == *prefer))) found = pack.get();
      }
      if (found != nullptr) {
        found->busy = true;
        return found;
      }
      if (count < options_.max_open_packs) break;
      released_.Wait(mutex_);
    }
    open_.push_back(std::make_unique<OpenPack>());
    fresh = open_.back().get();
    fresh->id = *PackId::From(RandomBytes(PackId::kSize));
    fresh->domain = std::string(domain);
  }
  if (const absl::Status status = registry_.Announce(fresh->id, fresh->domain); !status.ok()) {
    Close(fresh);
    return status;
  }
  const absl::Status status = Create(*fresh);
  if (status.ok()) return fresh;
  SealFailed(fresh, status);
  return status;
}

absl::Status FilePackStore::Create(OpenPack& pack) {
  const std::filesystem::path path = PathOf(pack.domain, pack.id);
  std::error_code error;
  std::filesystem::create_directory(path.parent_path(), error);
  if (error) return SystemError("cannot make", path.parent_path(), error.value());
  CKPT_RETURN_IF_ERROR(pack.file.Create(path));
  std::array<std::byte, kPackHeaderSize> header;
  EncodePackHeader(pack.id.view(), pack.domain, header);
  const Bytes parts[] = {header};
  CKPT_RETURN_IF_ERROR(Append(pack.file, parts));
  CKPT_RETURN_IF_ERROR(SyncFolder(path.parent_path()));
  // Also when another thread, or a process that died, has made the domain's folder: it may not have come to the sync.
  return SyncFolder(options_.root);
}

absl::Status FilePackStore::Append(BlockFile& file, std::span<const Bytes> parts) {
  std::unique_ptr<BlockBuffer> buffer;
  {
    const MutexLock lock(mutex_);
    if (!buffers_.empty()) {
      buffer = std::move(buffers_.back());
      buffers_.pop_back();
    }
  }
  if (buffer == nullptr) buffer = std::make_unique<BlockBuffer>();
  const absl::Status status = file.Append(parts, *buffer);
  const MutexLock lock(mutex_);
  if (buffers_.size() < kMaxBuffers) buffers_.push_back(std::move(buffer));
  return status;
}

absl::StatusOr<WrittenBatch> FilePackStore::WriteRecords(OpenPack& pack, std::span<const Record> records) {
  WrittenBatch out;
  out.pack = pack.id;
  std::vector<std::array<std::byte, kRecordHeaderSize>> headers(records.size());
  std::vector<Bytes> parts;
  std::uint64_t end = pack.file.size_bytes();
  for (std::size_t i = 0; i < records.size(); ++i) {
    std::uint64_t length = 0;
    for (const Bytes piece : records[i].pieces) length += piece.size();
    CKPT_CHECK(length <= kMaxRecordPayload);
    const auto ordinal = pack.records + static_cast<std::uint32_t>(i);
    const auto stored_length = static_cast<std::uint32_t>(length);
    EncodeRecordHeader(records[i], stored_length, ordinal, headers[i]);
    parts.emplace_back(headers[i]);
    parts.insert(parts.end(), records[i].pieces.begin(), records[i].pieces.end());
    out.locations.push_back({pack.id, end, ordinal, stored_length});
    end += kRecordHeaderSize + length;
  }
  CKPT_RETURN_IF_ERROR(Append(pack.file, parts));
  CKPT_RETURN_IF_ERROR(pack.file.Sync());
  out.end = end;
  pack.records += static_cast<std::uint32_t>(records.size());
  return out;
}

absl::StatusOr<WrittenBatch> FilePackStore::Write(std::string_view domain, std::span<const Record> records,
                                                  const PackId* prefer) {
  // All that are open may be lost, and one more.
  for (std::size_t tries = 0; tries <= options_.max_open_packs; ++tries) {
    CKPT_ASSIGN_OR_RETURN(OpenPack* const pack, Borrow(domain, prefer));
    if (pack->file.IsWhole()) {
      absl::StatusOr<WrittenBatch> written = WriteRecords(*pack, records);
      if (pack->file.IsWhole()) {
        if (!written.ok()) SealFailed(pack, written.status());
        return written;
      }
    }
    CKPT_RETURN_IF_ERROR(Seal(pack));
  }
  return MakeError(absl::StatusCode::kInternal, "IO_ERROR",
                   absl::StrCat("packs in ", (options_.root / domain).string(),
                                " are cut or removed as fast as they are written: look who does that"));
}

void FilePackStore::Release(const PackId& id, bool indexed) {
  OpenPack* pack = nullptr;
  {
    const MutexLock lock(mutex_);
    const auto it = std::find_if(open_.begin(), open_.end(), [&](const auto& p) { return p->id == id; });
    CKPT_CHECK(it != open_.end() && (*it)->busy);
    pack = it->get();
    if (indexed && pack->file.size_bytes() < options_.target_size_bytes && pack->records < kMaxRecords) {
      Leave(*pack);
      return;
    }
  }
  Seal(pack).IgnoreError();
}

// Ends an announced pack that nobody else uses. That one is lost must be in its row: until it is, the pack stays open,
// and whoever borrows it next comes here again.
absl::Status FilePackStore::Seal(OpenPack* pack) {
  const bool whole = pack->file.IsWhole();
  if (!whole)
    spdlog::error("{} has been cut, moved or removed: checkpoints that use it are damaged, and saves do without it",
                  PathOf(pack->domain, pack->id).string());
  const absl::Status status = whole ? registry_.Sealed(pack->id) : registry_.Lost(pack->id);
  if (!status.ok())
    spdlog::warn("pack {} is not marked as {}: {}", pack->id.ToHex(), whole ? "sealed" : "lost", status.ToString());
  if (!whole && !status.ok()) {
    const MutexLock lock(mutex_);
    Leave(*pack);
    return status;
  }
  Close(pack);  // its row may say "open" for longer: the next start seals it then
  return absl::OkStatus();
}

void FilePackStore::SealFailed(OpenPack* pack, const absl::Status& error) {
  if (absl::IsResourceExhausted(error) && options_.on_full) options_.on_full();
  Seal(pack).IgnoreError();
}

void FilePackStore::Leave(OpenPack& pack) {
  pack.busy = false;
  pack.last_used = options_.clock->Uptime();
  released_.NotifyAll();
}

void FilePackStore::Close(OpenPack* pack) {
  std::list<std::unique_ptr<OpenPack>> closed;  // its file is closed when the mutex is free
  const MutexLock lock(mutex_);
  closed.splice(closed.begin(), open_,
                std::find_if(open_.begin(), open_.end(), [&](const auto& p) { return p.get() == pack; }));
  released_.NotifyAll();
}

void FilePackStore::SealIdle() {
  std::vector<OpenPack*> idle;
  {
    const MutexLock lock(mutex_);
    const auto before = options_.clock->Uptime() - options_.seal_idle_after;
    for (const auto& pack : open_) {
      if (pack->busy || (pack->last_used > before && pack->file.IsWhole())) continue;
      pack->busy = true;
      idle.push_back(pack.get());
    }
  }
  for (OpenPack* const pack : idle) Seal(pack).IgnoreError();
}

absl::StatusOr<std::shared_ptr<FilePackStore::ReadFile>> FilePackStore::FileOf(std::string_view domain,
                                                                               const PackId& pack) const {
  const MutexLock lock(mutex_);
  const auto it = std::find_if(files_.begin(), files_.end(),
                               [&](const auto& file) { return file->pack == pack && file->domain == domain; });
  const std::filesystem::path path = PathOf(domain, pack);
  if (it != files_.end()) {
    files_.splice(files_.end(), files_, it);
    if (HasName(files_.back()->fd, path).value_or(true)) return files_.back();
    files_.pop_back();
  }
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
    return MakeError(absl::StatusCode::kNotFound, "PACK_MISSING", absl::StrCat("there is no pack ", path.string()));
  if (fd < 0) return SystemError("cannot open", path, errno);
  files_.push_back(std::make_shared<ReadFile>(fd, std::string(domain), pack));
  if (files_.size() > kMaxReadFiles) files_.pop_front();
  return files_.back();
}

absl::Status FilePackStore::Read(std::string_view domain, const PackId& pack, std::uint64_t offset,
                                 std::span<std::byte> buffer) const {
  CKPT_ASSIGN_OR_RETURN(const std::shared_ptr<ReadFile> file, FileOf(domain, pack));
  const auto beyond = [&] {
    return MakeError(absl::StatusCode::kOutOfRange, "PACK_DAMAGED",
                     absl::StrCat(PathOf(domain, pack).string(), " ends before ", offset, " + ", buffer.size()));
  };
  if (offset > kMaxOffset) return beyond();
  while (!buffer.empty()) {
    const ssize_t got = pread(file->fd, buffer.data(), buffer.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return MakeError(absl::StatusCode::kDataLoss, "IO_ERROR",
                       absl::StrCat("cannot read ", PathOf(domain, pack).string(), " at ", offset, ": ",
                                    std::system_category().message(errno)));
    if (got == 0) return beyond();
    buffer = buffer.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return absl::OkStatus();
}

absl::Status FilePackStore::Delete(std::string_view domain, const PackId& pack) {
  const MutexLock lock(mutex_);
  CKPT_CHECK(std::none_of(open_.begin(), open_.end(), [&](const auto& p) { return p->id == pack; }));
  files_.remove_if([&](const auto& file) { return file->pack == pack; });
  const std::filesystem::path path = PathOf(domain, pack);
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return SystemError("cannot delete", path, errno);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<PackStore::Listed>> FilePackStore::List() const {
  std::vector<Listed> out;
  std::error_code error;
  std::filesystem::directory_iterator domain(options_.root, error);
  for (; !error && domain != std::filesystem::directory_iterator(); domain.increment(error)) {
    // Other folders may be the file system's own (lost+found) and closed to us.
    if (!CheckDomain(domain->path().filename().string()).ok()) continue;
    std::error_code look;
    const bool folder = domain->is_directory(look);
    if (look && look != std::errc::no_such_file_or_directory)
      return SystemError("cannot look at", domain->path(), look.value());
    if (folder) CKPT_RETURN_IF_ERROR(ListDomain(domain->path(), out));
  }
  if (error) return SystemError("cannot list", options_.root, error.value());
  return out;
}

}  // namespace ckpt::storage
