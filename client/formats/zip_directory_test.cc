#include "client/formats/zip_directory.h"

#include <gmock/gmock.h>
#include <sys/mman.h>
#include <unistd.h>

#include "absl/cleanup/cleanup.h"
#include "client/formats/zip_writer.h"

namespace ckpt::formats {
namespace {

// What ZipWriter writes, in sparse memory.
class ZipDirectoryTest : public testing::Test {
 protected:
  ZipDirectoryTest() : fd_(memfd_create("zip", MFD_CLOEXEC)) {}
  ~ZipDirectoryTest() override {
    if (map_ != MAP_FAILED) munmap(map_, size_);
    close(fd_);
  }

  ZipWriter Writer() {
    return ZipWriter([this](std::uint64_t offset, std::string_view bytes) {
      EXPECT_EQ(pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)),
                static_cast<ssize_t>(bytes.size()));
      return absl::OkStatus();
    });
  }

  std::string_view Map(std::uint64_t size) {
    size_ = size;
    EXPECT_EQ(ftruncate(fd_, static_cast<off_t>(size)), 0);
    map_ = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd_, 0);
    EXPECT_NE(map_, MAP_FAILED);
    return {static_cast<const char*>(map_), size};
  }

 private:
  int fd_;
  void* map_ = MAP_FAILED;
  std::uint64_t size_ = 0;
};

TEST_F(ZipDirectoryTest, ReadsWhatZipWriterWrites) {
  const std::vector<ZipWriter::Entry> written = {
      {"a/data.pkl", 1000, 1},     {"a/data/0", 0xffff'fffe, 2}, {"a/data/1", 0xffff'ffff, 3},
      {"a/data/2", 5ULL << 30, 4}, {"a/data/3", 0, 5},           {"a/version", 2, 6},
  };
  ZipWriter writer = Writer();
  std::vector<std::uint64_t> offsets;
  for (const ZipWriter::Entry& entry : written) {
    const auto offset = writer.AddEntry(entry);
    ASSERT_TRUE(offset.ok()) << offset.status();
    offsets.push_back(*offset);
  }
  const auto size = writer.Finish();
  ASSERT_TRUE(size.ok()) << size.status();
  const std::string_view file = Map(*size);
  const auto read = ReadZipDirectory(file);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->size(), written.size());
  for (std::size_t i = 0; i < written.size(); ++i) {
    const ZipEntry& entry = (*read)[i];
    EXPECT_EQ(entry.name, written[i].name);
    EXPECT_EQ(entry.bytes.size(), written[i].size_bytes);
    EXPECT_EQ(entry.crc32, written[i].crc32);
    EXPECT_FALSE(entry.compressed);
    if (entry.bytes.empty()) continue;
    EXPECT_EQ(entry.bytes.data() - file.data(), static_cast<std::ptrdiff_t>(offsets[i]));
  }
}

TEST_F(ZipDirectoryTest, RefusesALocalHeaderThatIsNone) {
  ZipWriter writer = Writer();
  ASSERT_TRUE(writer.AddEntry({"a/data.pkl", 100, 1}).ok());
  const auto size = writer.Finish();
  ASSERT_TRUE(size.ok()) << size.status();
  const std::string whole(Map(*size));
  ASSERT_TRUE(ReadZipDirectory(whole).ok());
  for (const std::size_t at : {0, 3, 27, 30, 39}) {  // signature, the name's length, the name
    std::string file = whole;
    file[at] = static_cast<char>(file[at] ^ 1);
    EXPECT_EQ(ReadZipDirectory(file).status().code(), absl::StatusCode::kDataLoss) << at;
  }
}

TEST_F(ZipDirectoryTest, RefusesAFileThatWasCutAnywhere) {
  ZipWriter writer = Writer();
  ASSERT_TRUE(writer.AddEntry({"a/data.pkl", 100, 1}).ok());
  ASSERT_TRUE(writer.AddEntry({"a/version", 2, 2}).ok());
  const auto size = writer.Finish();
  ASSERT_TRUE(size.ok()) << size.status();
  const std::string_view file = Map(*size);
  for (std::size_t left = 0; left < file.size(); ++left)
    EXPECT_EQ(ReadZipDirectory(file.substr(0, left)).status().code(), absl::StatusCode::kDataLoss) << left;
}

}  // namespace
}  // namespace ckpt::formats
