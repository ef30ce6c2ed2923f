#include "client/formats/zip_directory.h"

#include <minizip/unzip.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/utf8.h"
#include "client/formats/file_error.h"

namespace ckpt::formats {
namespace {

constexpr std::size_t kMaxEntries = 4'000'000;
constexpr std::size_t kMaxNameSize = 1024;

// minizip's view of the memory: a stream with a position.
struct MemoryStream {
  std::string_view file;
  std::uint64_t position = 0;

  static MemoryStream& From(voidpf stream) { return *static_cast<MemoryStream*>(stream); }

  static uLong Read(voidpf, voidpf stream, void* out, uLong size) {
    MemoryStream& self = From(stream);
    const std::uint64_t left = self.file.size() - self.position;
    const std::uint64_t count = std::min<std::uint64_t>(size, left);
    std::memcpy(out, self.file.data() + self.position, count);
    self.position += count;
    return count;
  }

  static long Seek(voidpf, voidpf stream, ZPOS64_T offset, int origin) {
    MemoryStream& self = From(stream);
    const std::uint64_t from = origin == ZLIB_FILEFUNC_SEEK_SET   ? 0
                               : origin == ZLIB_FILEFUNC_SEEK_CUR ? self.position
                                                                  : self.file.size();
    std::uint64_t to = 0;
    if (__builtin_add_overflow(from, offset, &to) || to > self.file.size()) return -1;
    self.position = to;
    return 0;
  }

  zlib_filefunc64_def Functions() {
    zlib_filefunc64_def functions{};
    functions.zopen64_file = [](voidpf opaque, const void*, int) { return opaque; };
    functions.zread_file = Read;
    functions.zwrite_file = [](voidpf, voidpf, const void*, uLong) -> uLong { return 0; };
    functions.ztell64_file = [](voidpf, voidpf stream) -> ZPOS64_T { return From(stream).position; };
    functions.zseek64_file = Seek;
    functions.zclose_file = [](voidpf, voidpf) { return 0; };
    functions.zerror_file = [](voidpf, voidpf) { return 0; };
    functions.opaque = this;
    return functions;
  }
};

// The entry that minizip stands at.
absl::StatusOr<ZipEntry> ReadEntry(unzFile zip, std::string_view file) {
  unz_file_info64 info{};
  std::array<char, kMaxNameSize> name;
  if (unzGetCurrentFileInfo64(zip, &info, name.data(), name.size(), nullptr, 0, nullptr, 0) != UNZ_OK)
    return DamagedFile("its zip directory is damaged");
  if (info.size_filename == 0 || info.size_filename > kMaxNameSize)
    return BadFile(absl::StrCat("an entry's name has ", info.size_filename, " bytes"));
  ZipEntry entry{.name = std::string(name.data(), info.size_filename)};
  if (!IsPrintableUtf8(entry.name)) return BadFile(absl::StrCat("an entry has the name ", PrintableUtf8(entry.name)));
  if ((info.flag & 1) != 0) return BadFile(absl::StrCat("entry ", entry.name, " is encrypted"));
  entry.compressed = info.compression_method != 0 || info.compressed_size != info.uncompressed_size;
  // Also checks the local header, against which the directory's offset is worth something.
  if (unzOpenCurrentFile2(zip, nullptr, nullptr, 1) != UNZ_OK)
    return DamagedFile(absl::StrCat("entry ", entry.name, " has a damaged header"));
  const std::uint64_t offset = unzGetCurrentFileZStreamPos64(zip);
  unzCloseCurrentFile(zip);
  if (offset > file.size() || info.compressed_size > file.size() - offset)
    return DamagedFile(absl::StrCat("entry ", entry.name, " goes beyond the end of the file"));
  entry.bytes = file.substr(offset, info.compressed_size);
  entry.crc32 = static_cast<std::uint32_t>(info.crc);
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
  MemoryStream stream{file};
  zlib_filefunc64_def functions = stream.Functions();
  unzFile zip = unzOpen2_64("", &functions);
  if (zip == nullptr) return DamagedFile("its zip directory is missing or damaged; the file may be truncated");
  const absl::Cleanup closer = [zip] { unzClose(zip); };
  unz_global_info64 global{};
  if (unzGetGlobalInfo64(zip, &global) != UNZ_OK) return DamagedFile("its zip directory is damaged");
  if (global.number_entry > kMaxEntries)
    return BadFile(absl::StrCat("it has ", global.number_entry, " entries; at most ", kMaxEntries, " are read"));
  std::vector<ZipEntry> entries;
  // Of just 65,535 entries minizip does not know by itself which is the last.
  const auto all = [&] { return global.number_entry == 0xffff && entries.size() == 0xffff; };
  for (int step = unzGoToFirstFile(zip); step != UNZ_END_OF_LIST_OF_FILE && !all(); step = unzGoToNextFile(zip)) {
    if (step != UNZ_OK || entries.size() >= global.number_entry) return DamagedFile("its zip directory is damaged");
    CKPT_ASSIGN_OR_RETURN(ZipEntry entry, ReadEntry(zip, file));
    entries.push_back(std::move(entry));
  }
  // The end record must be whole, and the file's end: minizip does not look at its last bytes.
  constexpr std::size_t kEndRecordSize = 22;
  const std::uint64_t tail = kEndRecordSize + global.size_comment;
  if (tail > file.size() || !file.substr(file.size() - tail).starts_with("PK\x05\x06"))
    return DamagedFile("its zip directory does not end with the file; the file may be truncated");
  if (entries.size() != global.number_entry) return DamagedFile("its zip directory is damaged");
  CKPT_RETURN_IF_ERROR(CheckApart(entries));
  return entries;
}

}  // namespace ckpt::formats
