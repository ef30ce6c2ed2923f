#include "client/formats/mapped_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <time.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <tuple>

#include "base/status.h"

namespace ckpt::formats {
namespace {

namespace fs = std::filesystem;

class MappedFileTest : public testing::Test {
 protected:
  MappedFileTest() {
    std::string name = testing::TempDir() + "/mapped_fileXXXXXX";
    folder_ = mkdtemp(name.data());
    path_ = folder_ / "in";
  }
  ~MappedFileTest() override { fs::remove_all(folder_); }

  // Why a file is refused that `change` is called on while it is open; "" if it is not.
  [[nodiscard]] std::string ReasonAfter(const std::function<void()>& change) const {
    std::ofstream(path_) << "bytes";
    const auto file = MappedFile::Open(path_);
    EXPECT_TRUE(file.ok()) << file.status();
    WaitForAnotherTime();
    change();
    return ReasonOf((*file)->CheckUnchanged());
  }

  void Rewrite() const { std::fstream(path_) << "other"; }

  fs::path folder_;
  fs::path path_;

 private:
  // The times of files come from a coarse clock.
  void WaitForAnotherTime() const {
    struct stat info {};
    ASSERT_EQ(stat(path_.c_str(), &info), 0);
    timespec now{};
    do {
      ASSERT_EQ(clock_gettime(CLOCK_REALTIME_COARSE, &now), 0);
    } while (std::tie(now.tv_sec, now.tv_nsec) <= std::tie(info.st_ctim.tv_sec, info.st_ctim.tv_nsec));
  }
};

TEST_F(MappedFileTest, NoticesAWrite) {
  EXPECT_EQ(ReasonAfter([] {}), "");
  EXPECT_EQ(ReasonAfter([&] { Rewrite(); }), "FILE_CHANGED");
  EXPECT_EQ(ReasonAfter([&] { fs::resize_file(path_, 3); }), "FILE_CHANGED");
}

TEST_F(MappedFileTest, NoticesAWriteWhoseTimeWasPutBack) {
  const auto rewrite = [&] {
    struct stat before {};
    ASSERT_EQ(stat(path_.c_str(), &before), 0);
    Rewrite();
    const timespec times[] = {before.st_atim, before.st_mtim};
    ASSERT_EQ(utimensat(AT_FDCWD, path_.c_str(), times, 0), 0);
  };
  EXPECT_EQ(ReasonAfter(rewrite), "FILE_CHANGED");
}

TEST_F(MappedFileTest, IsTheSameWhateverItsNames) {
  const fs::path other = folder_ / "other";
  EXPECT_EQ(ReasonAfter([&] { fs::create_hard_link(path_, other); }), "");
  EXPECT_EQ(ReasonAfter([&] { fs::remove(other); }), "");
  EXPECT_EQ(ReasonAfter([&] { fs::remove(path_); }), "");
  EXPECT_EQ(ReasonAfter([&] { fs::rename(path_, other); }), "");
  EXPECT_EQ(ReasonAfter([&] { fs::rename(other, path_); }), "");  // another's
}

}  // namespace
}  // namespace ckpt::formats
