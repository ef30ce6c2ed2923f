#include "client/formats/pth_file.h"

#include <libdeflate.h>

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "client/formats/file_error.h"
#include "client/formats/mapped_file.h"
#include "client/formats/pickle_reader.h"
#include "client/formats/pickle_state.h"
#include "client/formats/zip_directory.h"

namespace ckpt::formats {
namespace {

// How much of the file is resident, for each thread, while its checksums are computed.
constexpr std::size_t kWindowSize = 8U << 20;

// The entries of an archive, by their names without the archive's own ("archive/data/0": "data/0").
using Entries = absl::flat_hash_map<std::string_view, const ZipEntry*>;

class PthFile : public StateFile {
 public:
  PthFile(std::shared_ptr<const MappedFile> file, PickleGraph graph, State state)
      : file_(std::move(file)), graph_(std::move(graph)), state_(std::move(state)) {
    graph_.values = {};  // the texts stay: arrays' bytes are among them
    // Shared with the state, whose copies may call these after the file is gone.
    state_.release = [mapped = file_](const void* data, std::size_t size) { mapped->Release(data, size); };
    state_.check = [mapped = file_] { return mapped->CheckUnchanged(); };
  }

  [[nodiscard]] const State& state() const override { return state_; }

 private:
  const std::shared_ptr<const MappedFile> file_;
  PickleGraph graph_;
  State state_;
};

absl::Status CheckIsArchive(std::string_view file) {
  if (file.empty()) return DamagedFile("it is empty");
  if (file.starts_with("PK\x03\x04")) return absl::OkStatus();
  if (file.starts_with("\x80\x02"))
    return BadFile(
        "it is of torch.save's old format (before PyTorch 1.6); load it with torch.load and save it again with today's "
        "torch.save");
  return BadFile("it is no file of torch.save");
}

absl::StatusOr<Entries> IndexEntries(const std::vector<ZipEntry>& entries) {
  if (entries.empty()) return BadFile("its zip file has no entries");
  const std::string_view first = entries.front().name;
  const std::string_view archive = first.substr(0, first.find('/'));
  Entries index;
  for (const ZipEntry& entry : entries) {
    std::string_view name = entry.name;
    if (!name.starts_with(archive) || name.size() <= archive.size() || name[archive.size()] != '/')
      return BadFile(absl::StrCat("entry ", entry.name, " is none that torch.save writes"));
    index[name.substr(archive.size() + 1)] = &entry;
  }
  if (index.contains("constants.pkl"))
    return BadFile("it is a TorchScript archive; save the module's state_dict() with torch.save instead");
  for (const ZipEntry& entry : entries)
    if (entry.compressed)
      return BadFile(absl::StrCat(
          "entry ", entry.name, " is compressed, which torch.save never does; unzip it and pack it again with zip -0"));
  if (!index.contains("data.pkl")) return BadFile("it has no data.pkl; torch.save writes one");
  if (const auto order = index.find("byteorder"); order != index.end() && order->second->bytes != "little")
    return BadFile("it was written on a big-endian machine; load and save it again on a little-endian one");
  return index;
}

absl::Status CheckCrc(const ZipEntry& entry, const MappedFile& file) {
  std::uint32_t crc = 0;
  for (std::size_t at = 0; at < entry.bytes.size(); at += kWindowSize) {
    const std::string_view window = entry.bytes.substr(at, kWindowSize);
    crc = libdeflate_crc32(crc, window.data(), window.size());
    if (entry.bytes.size() > kWindowSize) file.Release(window.data(), window.size());
  }
  if (crc == entry.crc32) return absl::OkStatus();
  return DamagedFile(absl::StrCat("entry ", entry.name,
                                  " does not have the CRC-32 that it was written with; if torch's CRC was turned off "
                                  "when it was saved, read it without the check (check_crc; ckptctl save --no-crc)"));
}

// Checks the entries, on all cores.
absl::Status CheckCrcs(const std::vector<ZipEntry>& entries, const MappedFile& file) {
  std::vector<absl::Status> results(entries.size());
  std::atomic<std::size_t> next = 0;
  const auto check = [&] {
    for (std::size_t i = next++; i < entries.size(); i = next++) results[i] = CheckCrc(entries[i], file);
  };
  std::vector<std::thread> threads;
  try {
    const std::size_t wanted = std::min<std::size_t>(std::thread::hardware_concurrency(), entries.size());
    while (threads.size() + 1 < wanted) threads.emplace_back(check);
  } catch (const std::system_error&) {  // there are no more threads: the others do it
  }
  check();
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& result : results) CKPT_RETURN_IF_ERROR(result);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<StateFile>> Read(std::shared_ptr<const MappedFile> file,
                                                const ReadFileOptions& options) {
  CKPT_RETURN_IF_ERROR(CheckIsArchive(file->bytes()));
  CKPT_ASSIGN_OR_RETURN(const std::vector<ZipEntry> entries, ReadZipDirectory(file->bytes()));
  CKPT_ASSIGN_OR_RETURN(const Entries index, IndexEntries(entries));
  if (options.check_crc) {
    CKPT_RETURN_IF_ERROR(CheckCrcs(entries, *file));
    file->Release(file->bytes().data(), file->bytes().size());
  }
  const std::string_view pickle = index.at("data.pkl")->bytes;
  CKPT_ASSIGN_OR_RETURN(PickleGraph graph, ReadPickle(pickle));
  const auto lookup = [&](std::string_view key) -> std::optional<std::string_view> {
    const auto it = index.find(absl::StrCat("data/", std::string(key)));
    if (it == index.end()) return std::nullopt;
    return it->second->bytes;
  };
  CKPT_ASSIGN_OR_RETURN(State state, LayOutState(graph, pickle.size(), lookup));
  return std::make_unique<PthFile>(std::move(file), std::move(graph), std::move(state));
}

}  // namespace

absl::StatusOr<std::unique_ptr<StateFile>> ReadPthFile(const std::string& path, const ReadFileOptions& options) {
  CKPT_ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  auto state = Read(std::move(file), options);
  if (!state.ok()) return Annotate(state.status(), path);
  return state;
}

}  // namespace ckpt::formats
