#include "storage/block_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "storage/failing_disk_fixture.h"
#include "storage/fresh_folder_fixture.h"
#include "storage/status_matchers_fixture.h"

namespace ckpt::storage {
namespace {

class BlockFileTest : public testing::Test {
 protected:
  absl::Status Append(BlockFile& file, const std::vector<std::string>& texts) {
    std::vector<Bytes> pieces;
    for (const std::string& text : texts) {
      pieces.push_back(AsBytes(text));
      expected_ += text;
    }
    return file.Append(pieces, buffer_);
  }

  std::string Random(std::size_t size) {
    std::string out(size, '\0');
    for (char& c : out) c = static_cast<char>(random_());
    return out;
  }

  // Whether the folder's file system has direct I/O.
  bool HasDirect() const {
    const int fd = open(folder_.path().c_str(), O_RDWR | O_TMPFILE | O_DIRECT, 0600);
    if (fd >= 0) close(fd);
    return fd >= 0;
  }

  // The file's content: what was appended, and zeros up to a whole block.
  void ExpectContent() {
    std::ifstream in(path_, std::ios::binary);
    const std::string content{std::istreambuf_iterator<char>(in), {}};
    const std::size_t whole = (expected_.size() + BlockFile::kBlock - 1) / BlockFile::kBlock * BlockFile::kBlock;
    ASSERT_EQ(content.size(), whole);
    EXPECT_TRUE(content == expected_ + std::string(whole - expected_.size(), '\0'));
  }

  const FreshFolder folder_;
  const std::filesystem::path path_ = std::filesystem::path(folder_.path()) / "file";
  BlockBuffer buffer_;
  std::minstd_rand random_;
  std::string expected_;
};

TEST_F(BlockFileTest, HasWhatWasAppendedAfterEveryAppend) {
  BlockFile file;
  ASSERT_THAT(file.Create(path_), IsOk());
  const std::size_t block = BlockFile::kBlock;
  const std::size_t buffer = buffer_.bytes().size();
  for (const std::size_t size :
       {std::size_t{1}, block - 1, block, block + 1, std::size_t{0}, 2 * block - 1, buffer - block, buffer - 1, buffer,
        buffer + 1, 2 * buffer, 3 * buffer + 17, std::size_t{5}}) {
    ASSERT_THAT(Append(file, {Random(size / 3), "", Random(size - size / 3)}), IsOk());
    EXPECT_EQ(file.size_bytes(), expected_.size());
    ExpectContent();
  }
  EXPECT_THAT(file.Sync(), IsOk());
}

TEST_F(BlockFileTest, TakesNoFileThatIsThere) {
  std::ofstream(path_) << "mine";
  BlockFile file;
  EXPECT_THAT(file.Create(path_), IsError(absl::StatusCode::kInternal, "IO_ERROR"));
  std::ifstream in(path_);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "mine");
}

// Direct I/O may want more than this file gives, and some file systems have none.
TEST_F(BlockFileTest, WritesAsAnyFileWhereNothingIsWrittenDirectly) {
  FailingDisk disk(path_);
  disk.RefuseDirect();
  BlockFile file;
  ASSERT_THAT(file.Create(path_), IsOk());
  ASSERT_THAT(Append(file, {Random(10'000)}), IsOk());
  ASSERT_THAT(Append(file, {Random(10'000)}), IsOk());
  ExpectContent();
  EXPECT_EQ(disk.writes().direct, HasDirect() ? 1 : 0);  // once, and refused
  EXPECT_EQ(disk.writes().cached, 2);
}

TEST_F(BlockFileTest, GoesOnAfterAWriteThatEndedWithinABlock) {
  FailingDisk disk(path_);
  disk.LimitBytes(2 * BlockFile::kBlock - 512);
  BlockFile file;
  ASSERT_THAT(file.Create(path_), IsOk());
  ASSERT_THAT(Append(file, {Random(100'000)}), IsOk());
  ExpectContent();
  disk.LimitBytes(BlockFile::kBlock - 1);
  EXPECT_THAT(Append(file, {Random(100'000)}), IsError(absl::StatusCode::kInternal, "IO_ERROR"));
  EXPECT_EQ(file.size_bytes(), 100'000U);
}

TEST_F(BlockFileTest, IsNotWrittenOnceItWasCut) {
  BlockFile file;
  EXPECT_TRUE(file.IsWhole()) << "nothing is lost yet";
  ASSERT_THAT(file.Create(path_), IsOk());
  ASSERT_THAT(Append(file, {Random(100'000)}), IsOk());
  EXPECT_TRUE(file.IsWhole());
  std::filesystem::resize_file(path_, 50'000);
  EXPECT_THAT(Append(file, {Random(100'000)}), IsError(absl::StatusCode::kInternal, "IO_ERROR"));
  EXPECT_EQ(std::filesystem::file_size(path_), 50'000) << "whoever looks sees it";
  EXPECT_FALSE(file.IsWhole());
}

TEST_F(BlockFileTest, KnowsThatItsNameIsAnotherFilesNow) {
  BlockFile file;
  ASSERT_THAT(file.Create(path_), IsOk());
  ASSERT_THAT(Append(file, {Random(100)}), IsOk());
  const std::filesystem::path other = path_.string() + "2";
  std::filesystem::create_hard_link(path_, other);
  EXPECT_TRUE(file.IsWhole());
  std::filesystem::remove(path_);
  std::filesystem::copy_file(other, path_);
  EXPECT_FALSE(file.IsWhole());
  std::filesystem::rename(other, path_);
  EXPECT_FALSE(file.IsWhole()) << "what was written meanwhile may be missing";
}

TEST_F(BlockFileTest, WritesPastThePageCache) {
  if (!HasDirect()) GTEST_SKIP() << folder_.path() << " is on a file system without direct I/O";
  const FailingDisk disk(path_);
  BlockFile file;
  ASSERT_THAT(file.Create(path_), IsOk());
  ASSERT_THAT(Append(file, {Random(10)}), IsOk());
  ASSERT_THAT(Append(file, {Random(3 << 20)}), IsOk());
  EXPECT_EQ(disk.writes().direct, 2);
  EXPECT_EQ(disk.writes().cached, 0);
}

}  // namespace
}  // namespace ckpt::storage
