#include "client/formats/zip_writer.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

// The structures are those of PKWARE's APPNOTE.TXT 6.3.10, section 4.3. minizip, which writes them too, wants to see
// every byte of an entry's content: 1.4 s per GiB.
namespace ckpt::formats {
namespace {

constexpr std::uint64_t kAlignment = 64;
constexpr std::uint64_t kLimit16 = 0xffff;  // means: see the ZIP64 record
constexpr std::uint64_t kLimit32 = 0xffffffff;
constexpr std::uint16_t kVersion = 45;                // has ZIP64
constexpr std::uint16_t kMadeBy = 3 << 8 | kVersion;  // Unix
constexpr std::uint16_t kNamesAreUtf8 = 1 << 11;
constexpr std::uint32_t kDate = (0 << 9 | 1 << 5 | 1) << 16;  // 1980-01-01, 0:00: the same input gives the same file

// Little-endian fields one after the other.
class Fields {
 public:
  Fields& U16(std::uint64_t value) { return Put(value, 2); }
  Fields& U32(std::uint64_t value) { return Put(value, 4); }
  Fields& U64(std::uint64_t value) { return Put(value, 8); }
  Fields& Text(std::string_view text) {
    bytes_ += text;
    return *this;
  }
  [[nodiscard]] std::size_t size() const { return bytes_.size(); }
  [[nodiscard]] const std::string& bytes() const { return bytes_; }

 private:
  Fields& Put(std::uint64_t value, int width) {
    for (int i = 0; i < width; ++i) bytes_ += static_cast<char>(value >> 8 * i);
    return *this;
  }

  std::string bytes_;
};

// The extra field with those values that do not fit in 32 bits; nothing if all do.
std::string Zip64Extra(std::initializer_list<std::uint64_t> values) {
  Fields large;
  for (const std::uint64_t value : values)
    if (value >= kLimit32) large.U64(value);
  return large.size() == 0 ? "" : Fields().U16(1).U16(large.size()).Text(large.bytes()).bytes();
}

// The fields that an entry's local header and its place in the directory have in common.
std::string CommonFields(const ZipWriter::Entry& entry, std::size_t extra_size) {
  const std::uint64_t size = std::min(entry.size_bytes, kLimit32);
  Fields fields;
  fields.U16(kVersion).U16(kNamesAreUtf8).U16(0 /* stored */).U32(kDate).U32(entry.crc32).U32(size).U32(size);
  return fields.U16(entry.name.size()).U16(extra_size).bytes();
}

}  // namespace

ZipWriter::ZipWriter(Sink sink) : sink_(std::move(sink)) {}

absl::Status ZipWriter::Write(std::string_view bytes) {
  if (sink_ != nullptr) CKPT_RETURN_IF_ERROR(sink_(position_, bytes));
  position_ += bytes.size();
  return absl::OkStatus();
}

absl::StatusOr<std::uint64_t> ZipWriter::AddEntry(const Entry& entry) {
  const std::uint64_t header_offset = position_;
  constexpr std::size_t kLocalHeaderSize = 30;
  constexpr std::size_t kExtraHeaderSize = 4;
  std::string extra = Zip64Extra({entry.size_bytes, entry.size_bytes});
  // Padding as torch writes it: an extra field "FB".
  const std::uint64_t bare = position_ + kLocalHeaderSize + entry.name.size() + extra.size() + kExtraHeaderSize;
  const std::string padding((kAlignment - bare % kAlignment) % kAlignment, 'Z');
  extra += Fields().Text("FB").U16(padding.size()).Text(padding).bytes();
  Fields local;
  local.U32(0x04034b50).Text(CommonFields(entry, extra.size())).Text(entry.name).Text(extra);
  CKPT_RETURN_IF_ERROR(Write(local.bytes()));
  const std::uint64_t begin = position_;
  CKPT_CHECK(begin % kAlignment == 0);
  position_ += entry.size_bytes;

  const std::string large = Zip64Extra({entry.size_bytes, entry.size_bytes, header_offset});
  Fields central;
  central.U32(0x02014b50).U16(kMadeBy).Text(CommonFields(entry, large.size()));
  central.U16(0).U16(0).U16(0).U32(0);  // comment's size, disk, attributes
  central.U32(std::min(header_offset, kLimit32)).Text(entry.name).Text(large);
  directory_ += central.bytes();
  ++entries_;
  return begin;
}

absl::StatusOr<std::uint64_t> ZipWriter::Finish() {
  const std::uint64_t begin = position_;
  CKPT_RETURN_IF_ERROR(Write(directory_));
  const std::uint64_t end = position_;
  Fields tail;
  if (entries_ >= kLimit16 || begin >= kLimit32 || directory_.size() >= kLimit32) {
    constexpr std::uint64_t kBytesThatFollow = 44;
    tail.U32(0x06064b50).U64(kBytesThatFollow).U16(kMadeBy).U16(kVersion).U32(0).U32(0);  // disks
    tail.U64(entries_).U64(entries_).U64(directory_.size()).U64(begin);
    tail.U32(0x07064b50).U32(0).U64(end).U32(1);  // disks
  }
  const std::uint64_t entries = std::min(entries_, kLimit16);
  tail.U32(0x06054b50).U16(0).U16(0).U16(entries).U16(entries);
  tail.U32(std::min<std::uint64_t>(directory_.size(), kLimit32)).U32(std::min(begin, kLimit32)).U16(0);
  CKPT_RETURN_IF_ERROR(Write(tail.bytes()));
  return position_;
}

}  // namespace ckpt::formats
