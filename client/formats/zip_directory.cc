#include "client/formats/zip_directory.h"

#include <zip.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/utf8.h"
#include "client/formats/file_error.h"

namespace ckpt::formats {
namespace {

constexpr zip_int64_t kMaxEntries = 4'000'000;
constexpr std::size_t kMaxNameSize = 1024;

// libzip's view of the memory. libzip tells nobody where an entry's bytes lie, so this remembers where it read.
class MemorySource {
 public:
  explicit MemorySource(std::string_view file) : file_(file) { zip_error_init(&error_); }
  ~MemorySource() { zip_error_fini(&error_); }
  MemorySource(const MemorySource&) = delete;
  MemorySource& operator=(const MemorySource&) = delete;

  std::uint64_t last_read() const { return last_read_; }
  std::uint64_t read_before() const { return read_before_; }

  static zip_int64_t Call(void* self, void* data, zip_uint64_t size, zip_source_cmd_t command) {
    return static_cast<MemorySource*>(self)->Do(data, size, command);
  }

 private:
  zip_int64_t Do(void* data, zip_uint64_t size, zip_source_cmd_t command) {
    switch (command) {
      case ZIP_SOURCE_SUPPORTS:
        return zip_source_make_command_bitmap(ZIP_SOURCE_OPEN, ZIP_SOURCE_READ, ZIP_SOURCE_CLOSE, ZIP_SOURCE_STAT,
                                              ZIP_SOURCE_ERROR, ZIP_SOURCE_FREE, ZIP_SOURCE_SEEK, ZIP_SOURCE_TELL, -1);
      case ZIP_SOURCE_OPEN: position_ = 0; return 0;
      case ZIP_SOURCE_CLOSE:
      case ZIP_SOURCE_FREE: return 0;
      case ZIP_SOURCE_STAT: {
        zip_stat_t& stat = *static_cast<zip_stat_t*>(data);
        zip_stat_init(&stat);
        stat.valid = ZIP_STAT_SIZE;
        stat.size = file_.size();
        return sizeof stat;
      }
      case ZIP_SOURCE_READ: {
        const std::uint64_t count = std::min<std::uint64_t>(size, file_.size() - position_);
        std::memcpy(data, file_.data() + position_, count);
        read_before_ = std::exchange(last_read_, position_);
        position_ += count;
        return static_cast<zip_int64_t>(count);
      }
      case ZIP_SOURCE_SEEK: {
        const zip_int64_t to = zip_source_seek_compute_offset(position_, file_.size(), data, size, &error_);
        if (to < 0) return -1;
        position_ = static_cast<std::uint64_t>(to);
        return 0;
      }
      case ZIP_SOURCE_TELL: return static_cast<zip_int64_t>(position_);
      case ZIP_SOURCE_ERROR: return zip_error_to_data(&error_, data, size);
      default: zip_error_set(&error_, ZIP_ER_OPNOTSUPP, 0); return -1;
    }
  }

  std::string_view file_;
  std::uint64_t position_ = 0;  // at most the file's size
  std::uint64_t last_read_ = 0;
  std::uint64_t read_before_ = 0;
  zip_error_t error_;
};

absl::StatusOr<ZipEntry> ReadEntry(zip_t* zip, zip_uint64_t index, const MemorySource& source, std::string_view file) {
  zip_stat_t stat;
  if (zip_stat_index(zip, index, ZIP_FL_ENC_RAW, &stat) != 0) return DamagedFile("its zip directory is damaged");
  ZipEntry entry{.name = stat.name};
  if (entry.name.empty() || entry.name.size() > kMaxNameSize)
    return BadFile(absl::StrCat("an entry's name has ", entry.name.size(), " bytes"));
  if (!IsPrintableUtf8(entry.name)) return BadFile(absl::StrCat("an entry has the name ", PrintableUtf8(entry.name)));
  if (stat.encryption_method != ZIP_EM_NONE) return BadFile(absl::StrCat("entry ", entry.name, " is encrypted"));
  entry.compressed = stat.comp_method != ZIP_CM_STORE || stat.comp_size != stat.size;
  entry.crc32 = stat.crc;
  if (stat.comp_size == 0) return entry;
  // libzip reads two lengths of the local header, at 26, which say where the bytes begin; then the first of them.
  constexpr std::uint64_t kLengths = 26;
  constexpr std::uint64_t kName = 30;
  zip_file_t* const opened = zip_fopen_index(zip, index, ZIP_FL_COMPRESSED);
  if (opened == nullptr) return DamagedFile(absl::StrCat("entry ", entry.name, " has a damaged header"));
  char first;
  const bool read = zip_fread(opened, &first, 1) == 1;
  zip_fclose(opened);
  const std::uint64_t offset = source.last_read();
  const std::string_view header = file.substr(source.read_before() - std::min(source.read_before(), kLengths));
  const auto byte = [&](std::size_t at) { return at < header.size() ? static_cast<unsigned char>(header[at]) : 0U; };
  const std::size_t name_size = byte(kLengths) | byte(kLengths + 1) << 8;
  if (!header.starts_with("PK\x03\x04") || name_size != entry.name.size() ||
      !header.substr(std::min<std::size_t>(kName, header.size())).starts_with(entry.name))
    return DamagedFile(absl::StrCat("entry ", entry.name, " has a damaged header"));
  if (!read || stat.comp_size > file.size() - offset)
    return DamagedFile(absl::StrCat("entry ", entry.name, " goes beyond the end of the file"));
  entry.bytes = file.substr(offset, stat.comp_size);
  return entry;
}

absl::Status CheckApart(const std::vector<ZipEntry>& entries) {
  std::vector<std::string_view> ranges;
  absl::flat_hash_set<std::string_view> names;
  for (const ZipEntry& entry : entries) {
    if (!names.insert(entry.name).second) return BadFile(absl::StrCat("two entries have the name ", entry.name));
    if (!entry.bytes.empty()) ranges.push_back(entry.bytes);
  }
  std::sort(ranges.begin(), ranges.end(), [](auto a, auto b) { return a.data() < b.data(); });
  for (std::size_t i = 1; i < ranges.size(); ++i)
    if (ranges[i - 1].data() + ranges[i - 1].size() > ranges[i].data()) return BadFile("two entries share bytes");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<ZipEntry>> ReadZipDirectory(std::string_view file) {
  MemorySource source(file);
  zip_source_t* const opened = zip_source_function_create(MemorySource::Call, &source, nullptr);
  CKPT_CHECK(opened != nullptr);  // else memory is out
  zip_t* const zip = zip_open_from_source(opened, ZIP_RDONLY, nullptr);
  if (zip == nullptr) {
    zip_source_free(opened);
    return DamagedFile("its zip directory is missing or damaged; the file may be truncated");
  }
  const absl::Cleanup closer = [zip] { zip_discard(zip); };
  // The directory must end with the file.
  constexpr std::size_t kEndRecordSize = 22;
  int comment_size = 0;
  zip_get_archive_comment(zip, &comment_size, ZIP_FL_ENC_RAW);
  const std::uint64_t tail = kEndRecordSize + static_cast<std::uint64_t>(comment_size);
  if (tail > file.size() || !file.substr(file.size() - tail).starts_with("PK\x05\x06"))
    return DamagedFile("its zip directory does not end with the file; the file may be truncated");
  const zip_int64_t count = zip_get_num_entries(zip, ZIP_FL_UNCHANGED);
  if (count > kMaxEntries)
    return BadFile(absl::StrCat("it has ", count, " entries; at most ", kMaxEntries, " are read"));
  std::vector<ZipEntry> entries;
  for (zip_int64_t i = 0; i < count; ++i) {
    CKPT_ASSIGN_OR_RETURN(ZipEntry entry, ReadEntry(zip, static_cast<zip_uint64_t>(i), source, file));
    entries.push_back(std::move(entry));
  }
  CKPT_RETURN_IF_ERROR(CheckApart(entries));
  return entries;
}

}  // namespace ckpt::formats
