// A folder of a test's own, gone with it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/status.h"

namespace ckpt::storage {

class FreshFolder {
 public:
  FreshFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "ckpt-test-XXXXXX").string();
    CKPT_CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~FreshFolder() { std::filesystem::remove_all(path_); }
  FreshFolder(const FreshFolder&) = delete;
  FreshFolder& operator=(const FreshFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace ckpt::storage
