// Where fuzz targets put files: in memory if the machine has such a file system, because they are written by the
// thousand.
#pragma once

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/status.h"

namespace ckpt::fuzz {

// A fresh folder, deleted with the object.
class ScratchFolder {
 public:
  ScratchFolder() {
    const std::filesystem::path memory = "/dev/shm";
    std::error_code error;
    const auto room = std::filesystem::space(memory, error);
    const bool roomy = !error && room.available > (std::uintmax_t{1} << 30) && access(memory.c_str(), W_OK) == 0;
    std::string pattern = ((roomy ? memory : std::filesystem::temp_directory_path()) / "ckpt-fuzz-XXXXXX").string();
    CKPT_CHECK(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace ckpt::fuzz
