#include "client/formats/zip_writer.h"

#include <minizip/zip.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/status.h"

namespace ckpt::formats {
namespace {

constexpr std::uint64_t kAlignment = 64;
constexpr std::size_t kLocalHeaderSize = 30;
constexpr std::size_t kZip64ExtraSize = 20;  // of a local header
constexpr std::uint64_t kZip64Limit = 0xffffffff;
constexpr std::uint64_t kZip64Entries = 0xffff;
constexpr std::size_t kEndSize = 22;  // of the end record, without a comment

// Padding as torch writes it: an extra field "FB".
std::string Padding(std::size_t size) {
  std::string field = "FB";
  const std::size_t content = size - 4;
  field += static_cast<char>(content & 0xff);
  field += static_cast<char>(content >> 8);
  field.append(content, 'Z');
  return field;
}

// The directory, which ends right before the end record.
struct Directory {
  std::uint64_t entries;
  std::uint64_t begin;
  std::uint64_t end;
};

// The ZIP64 end record, its locator and the end record (APPNOTE.TXT 4.3.14 to 4.3.16).
std::string Zip64End(const Directory& directory) {
  std::string out;
  const auto put = [&](std::uint64_t value, int width) {
    for (int i = 0; i < width; ++i) out += static_cast<char>(value >> 8 * i);
  };
  put(0x06064b50, 4);
  put(44, 8);  // bytes of the record that follow
  put(45, 2);  // made by and needed: version 4.5
  put(45, 2);
  put(0, 8);  // disks
  put(directory.entries, 8);
  put(directory.entries, 8);
  put(directory.end - directory.begin, 8);
  put(directory.begin, 8);
  put(0x07064b50, 4);
  put(0, 4);
  put(directory.end, 8);
  put(1, 4);
  put(0x06054b50, 4);
  put(0, 4);  // disks
  put(kZip64Entries, 2);
  put(kZip64Entries, 2);
  put(kZip64Limit, 4);
  put(kZip64Limit, 4);
  put(0, 2);
  return out;
}

}  // namespace

// The file as minizip sees it. What minizip writes as an entry's bytes is dropped: the entry's bytes are there already.
class ZipWriter::Stream {
 public:
  explicit Stream(Sink sink) : sink_(std::move(sink)) {}

  zlib_filefunc64_def Functions() {
    zlib_filefunc64_def functions{};
    functions.zopen64_file = [](voidpf opaque, const void*, int) { return opaque; };
    functions.zread_file = [](voidpf, voidpf, void*, uLong) -> uLong { return 0; };
    functions.zwrite_file = [](voidpf, voidpf stream, const void* data, uLong size) -> uLong {
      return From(stream).Write({static_cast<const char*>(data), size}) ? size : 0;
    };
    functions.ztell64_file = [](voidpf, voidpf stream) -> ZPOS64_T { return From(stream).position_; };
    functions.zseek64_file = [](voidpf, voidpf stream, ZPOS64_T offset, int origin) -> long {
      return From(stream).Seek(offset, origin);
    };
    functions.zclose_file = [](voidpf, voidpf) { return 0; };
    functions.zerror_file = [](voidpf, voidpf) { return 0; };
    functions.opaque = this;
    return functions;
  }

  // Hands what is collected to the sink.
  bool Flush() {
    if (!pending_.empty() && sink_ != nullptr && status_.ok()) status_ = sink_(pending_offset_, pending_);
    pending_.clear();
    return status_.ok();
  }

  [[nodiscard]] bool only_layout() const { return sink_ == nullptr; }
  [[nodiscard]] std::uint64_t position() const { return position_; }
  [[nodiscard]] std::uint64_t end() const { return end_; }
  [[nodiscard]] const absl::Status& status() const { return status_; }
  void Skip(std::uint64_t size) { end_ = std::max(end_, position_ += size); }

  // What is written there is dropped.
  void SetPayload(std::uint64_t begin, std::uint64_t size) {
    payload_begin_ = begin;
    payload_end_ = begin + size;
  }

  // Puts bytes at the end, over the last `size` ones.
  bool ReplaceEnd(std::uint64_t size, std::string_view bytes) {
    position_ = end_ - size;
    return Write(bytes);
  }

  // Nothing goes to the sink any more.
  void Abandon() { sink_ = nullptr; }

 private:
  static Stream& From(voidpf stream) { return *static_cast<Stream*>(stream); }

  bool Write(std::string_view bytes) {
    const bool payload = position_ >= payload_begin_ && position_ < payload_end_;
    if (!payload && sink_ != nullptr) {  // collect it: minizip writes field by field
      if (pending_offset_ + pending_.size() != position_ || pending_.size() > (1U << 20)) {
        if (!Flush()) return false;
        pending_offset_ = position_;
      }
      pending_ += bytes;
    }
    Skip(bytes.size());
    return true;
  }

  long Seek(std::uint64_t offset, int origin) {
    if (origin == ZLIB_FILEFUNC_SEEK_SET) {
      position_ = offset;
    } else {
      position_ = (origin == ZLIB_FILEFUNC_SEEK_CUR ? position_ : end_) + offset;
    }
    return 0;
  }

  Sink sink_;
  std::uint64_t position_ = 0;
  std::uint64_t end_ = 0;
  std::uint64_t pending_offset_ = 0;
  std::string pending_;
  std::uint64_t payload_begin_ = 0;
  std::uint64_t payload_end_ = 0;
  absl::Status status_;
};

ZipWriter::ZipWriter(Sink sink) : stream_(std::make_unique<Stream>(std::move(sink))) {
  zlib_filefunc64_def functions = stream_->Functions();
  zip_ = zipOpen2_64("", APPEND_STATUS_CREATE, nullptr, &functions);
  CKPT_CHECK(zip_ != nullptr);  // opening cannot fail: the stream's open does not
}

ZipWriter::~ZipWriter() {
  if (zip_ == nullptr) return;
  stream_->Abandon();
  zipClose(zip_, nullptr);
}

absl::StatusOr<std::uint64_t> ZipWriter::AddEntry(const Entry& entry) {
  const bool zip64 = entry.size_bytes >= kZip64Limit;
  const std::uint64_t bare =
      stream_->position() + kLocalHeaderSize + entry.name.size() + (zip64 ? kZip64ExtraSize : 0) + 4;
  const std::string padding = Padding(4 + (kAlignment - bare % kAlignment) % kAlignment);
  zip_fileinfo info{};
  info.dosDate = 1 << 21 | 1 << 16;  // 1980-01-01: the same input gives the same file
  constexpr int kStored = 0;
  constexpr int kRaw = 1;
  constexpr uLong kMadeByUnix = 3 << 8 | 45;
  constexpr uLong kNamesAreUtf8 = 1 << 11;
  if (zipOpenNewFileInZip4_64(zip_, entry.name.c_str(), &info, padding.data(), static_cast<uInt>(padding.size()),
                              nullptr, 0, nullptr, kStored, 0, kRaw, -MAX_WBITS, DEF_MEM_LEVEL, Z_DEFAULT_STRATEGY,
                              nullptr, 0, kMadeByUnix, kNamesAreUtf8, zip64 ? 1 : 0) != ZIP_OK)
    return Error();
  const std::uint64_t begin = stream_->position();
  CKPT_CHECK(begin % kAlignment == 0);
  stream_->SetPayload(begin, entry.size_bytes);
  if (stream_->only_layout()) {
    stream_->Skip(entry.size_bytes);
  } else {
    // minizip counts an entry's bytes as they pass through it, so something has to.
    static constexpr std::array<char, 1 << 16> kZeros{};
    for (std::uint64_t left = entry.size_bytes; left != 0;) {
      const auto size = static_cast<unsigned>(std::min<std::uint64_t>(left, kZeros.size()));
      if (zipWriteInFileInZip(zip_, kZeros.data(), size) != ZIP_OK) return Error();
      left -= size;
    }
  }
  if (zipCloseFileInZipRaw64(zip_, entry.size_bytes, entry.crc32) != ZIP_OK) return Error();
  ++entries_;
  return begin;
}

absl::StatusOr<std::uint64_t> ZipWriter::Finish() {
  const std::uint64_t begin = stream_->end();
  if (zipClose(std::exchange(zip_, nullptr), nullptr) != ZIP_OK) return Error();
  // minizip writes the ZIP64 records for a directory beyond 4 GiB, but not for one of more entries than 16 bits count.
  if (entries_ >= kZip64Entries && begin < kZip64Limit &&
      !stream_->ReplaceEnd(kEndSize, Zip64End({entries_, begin, stream_->end() - kEndSize})))
    return Error();
  if (!stream_->Flush()) return Error();
  return stream_->end();
}

absl::Status ZipWriter::Error() const {
  if (!stream_->status().ok()) return stream_->status();
  return MakeError(absl::StatusCode::kInternal, "ZIP_ERROR", "the zip library cannot write the file");
}

}  // namespace ckpt::formats
