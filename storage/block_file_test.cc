#include "storage/block_file.h"

#include <gtest/gtest.h>

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
  const BlockBuffer buffer_;
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
  expected_ = "mine";
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
}

TEST_F(BlockFileTest, GoesOnAfterAWriteThatEndedWithinABlock) {
  FailingDisk disk(path_);
  disk.LimitBytes(2 * BlockFile::kBlock - 1);
  BlockFile file;
  ASSERT_THAT(file.Create(path_), IsOk());
  ASSERT_THAT(Append(file, {Random(100'000)}), IsOk());
  ExpectContent();
  disk.LimitBytes(BlockFile::kBlock - 1);
  EXPECT_THAT(Append(file, {Random(100'000)}), IsError(absl::StatusCode::kInternal, "IO_ERROR"));
}

}  // namespace
}  // namespace ckpt::storage
