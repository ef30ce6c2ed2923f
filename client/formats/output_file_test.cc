#include "client/formats/output_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace ckpt::formats {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::IsEmpty;

// With files without a name, and as on file systems that have none.
class OutputFileTest : public testing::TestWithParam<bool> {
 protected:
  OutputFileTest() {
    std::string name = testing::TempDir() + "/output_fileXXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~OutputFileTest() override { fs::remove_all(folder_); }

  [[nodiscard]] std::string Path(const std::string& name) const { return folder_ / name; }

  [[nodiscard]] std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.push_back(entry.path().filename());
    return names;
  }

  [[nodiscard]] std::unique_ptr<OutputFile> Begin(const std::string& name, bool overwrite) const {
    auto file = OutputFile::Create(Path(name), {.overwrite = overwrite, .nameless = GetParam()});
    EXPECT_TRUE(file.ok()) << file.status();
    EXPECT_TRUE((*file)->WriteAt(0, "new bytes and more").ok());
    return *std::move(file);
  }

  void Put(const std::string& name, std::string_view content) const { std::ofstream(Path(name)) << content; }

  [[nodiscard]] std::string Content(const std::string& name) const {
    std::ifstream in(Path(name));
    return {std::istreambuf_iterator<char>(in), {}};
  }

 private:
  fs::path folder_;
};

INSTANTIATE_TEST_SUITE_P(Files, OutputFileTest, testing::Bool(),
                         [](const auto& test) { return test.param ? "Nameless" : "Temporary"; });

TEST_P(OutputFileTest, IsThereWhenItIsFinished) {
  const auto file = Begin("new", false);
  ASSERT_TRUE(file->Finish(9).ok());
  EXPECT_EQ(Content("new"), "new bytes");
  EXPECT_THAT(Names(), ElementsAre("new"));
}

TEST_P(OutputFileTest, TakesThePlaceOfAFile) {
  Put("old", "old");
  const auto file = Begin("old", true);
  EXPECT_EQ(Content("old"), "old");
  ASSERT_TRUE(file->Finish(9).ok());
  EXPECT_EQ(Content("old"), "new bytes");
  EXPECT_THAT(Names(), ElementsAre("old"));
}

TEST_P(OutputFileTest, HasTheRightsOfTheFileThatItReplaces) {
  for (const auto rights : {fs::perms{0600}, fs::perms{0640}, fs::perms{0666}, fs::perms{0444}}) {
    Put("old", "old");
    fs::permissions(Path("old"), rights);
    ASSERT_TRUE(Begin("old", true)->Finish(9).ok());
    EXPECT_EQ(Content("old"), "new bytes");
    EXPECT_EQ(fs::status(Path("old")).permissions(), rights);
    fs::remove(Path("old"));
  }
}

TEST_P(OutputFileTest, LeavesAFileThatCameMeanwhile) {
  {
    const auto file = Begin("new", false);
    Put("new", "another's");
    EXPECT_EQ(file->Finish(9).code(), absl::StatusCode::kAlreadyExists);
  }
  EXPECT_EQ(Content("new"), "another's");
  EXPECT_THAT(Names(), ElementsAre("new"));
}

TEST_P(OutputFileTest, LeavesNothingUnlessItIsFinished) {
  Begin("new", false).reset();
  EXPECT_THAT(Names(), IsEmpty());
  fs::create_directory(Path("folder"));
  {
    const auto file = Begin("new", true);
    fs::rename(Path("folder"), Path("new"));
    EXPECT_FALSE(file->Finish(9).ok());  // a file replaces no folder
  }
  EXPECT_THAT(Names(), ElementsAre("new"));
}

TEST_P(OutputFileTest, HasANameOnlyWhereItMust) {
  const int fd = open(Path("").c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
  if (fd < 0) GTEST_SKIP() << "this file system has no files without a name";
  close(fd);
  const auto file = Begin("new", false);
  EXPECT_EQ(Names().empty(), GetParam());
}

}  // namespace
}  // namespace ckpt::formats
