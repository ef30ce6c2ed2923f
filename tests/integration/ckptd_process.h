// A real ckptd for a test, on a folder that goes with it.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <string>
#include <vector>

namespace ckpt::testing {

// A fresh folder, removed with all that is in it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Runs ckptd on a folder of its own. Failures to start or stop it fail the test.
class CkptdProcess {
 public:
  // Starts it with these options besides the folder and the address; returns when it serves.
  explicit CkptdProcess(std::vector<std::string> options = {});
  ~CkptdProcess();
  CkptdProcess(const CkptdProcess&) = delete;
  CkptdProcess& operator=(const CkptdProcess&) = delete;

  // HOST:PORT; stays the same over Start.
  [[nodiscard]] const std::string& address() const { return address_; }
  [[nodiscard]] std::filesystem::path data() const { return folder_.path() / "data"; }

  // kill -9.
  void Kill();
  // SIGTERM; returns the exit code.
  int Terminate();
  // SIGSTOP: it is there, but answers nothing; and on it goes.
  void Pause();
  void Continue();
  // Starts it again on the same folder and address.
  void Start();

 private:
  int Reap();

  const TemporaryFolder folder_;
  const std::vector<std::string> options_;
  std::string address_ = "127.0.0.1:0";
  pid_t pid_ = -1;
};

}  // namespace ckpt::testing
