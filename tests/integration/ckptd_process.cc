#include "tests/integration/ckptd_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>

#include "gtest/gtest.h"

extern char** environ;

namespace ckpt::testing {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "ckpt-test-XXXXXX").string();
  EXPECT_NE(mkdtemp(pattern.data()), nullptr);
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

CkptdProcess::CkptdProcess(std::vector<std::string> options) : options_(std::move(options)) { Start(); }

CkptdProcess::~CkptdProcess() { Kill(); }

void CkptdProcess::Start() {
  ASSERT_EQ(pid_, -1);
  const std::filesystem::path file = folder_.path() / "address";
  std::filesystem::remove(file);
  // The file is renamed into place when the server is ready.
  const int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
  ASSERT_GE(inotify_add_watch(watch, folder_.path().c_str(), IN_MOVED_TO), 0);

  std::vector<std::string> args = {CKPTD_PATH, "--data",         data().string(), "--listen",
                                   address_,   "--address-file", file.string()};
  args.insert(args.end(), options_.begin(), options_.end());
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const std::string log = (folder_.path() / "log").string();
  posix_spawn_file_actions_addopen(&actions, 2, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  const int error = posix_spawn(&pid_, CKPTD_PATH, &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ASSERT_EQ(error, 0);

  const int process = static_cast<int>(syscall(SYS_pidfd_open, pid_, 0));
  std::array<pollfd, 2> fds = {pollfd{watch, POLLIN, 0}, pollfd{process, POLLIN, 0}};
  constexpr int kStartTimeoutMs = 60000;
  while (!std::filesystem::exists(file)) {
    const int ready = poll(fds.data(), fds.size(), kStartTimeoutMs);
    std::array<char, 4096> events;
    while (read(watch, events.data(), events.size()) > 0) {
    }
    if (ready > 0 && fds[1].revents == 0) continue;
    std::ifstream text(log);
    FAIL() << "ckptd did not start:\n" << text.rdbuf();
  }
  close(watch);
  close(process);
  std::ifstream(file) >> address_;
}

int CkptdProcess::Reap() {
  int status = 0;
  EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
  pid_ = -1;
  return status;
}

void CkptdProcess::Kill() {
  if (pid_ == -1) return;
  kill(pid_, SIGKILL);
  Reap();
}

int CkptdProcess::Terminate() {
  kill(pid_, SIGTERM);
  const int status = Reap();
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void CkptdProcess::Pause() { kill(pid_, SIGSTOP); }
void CkptdProcess::Continue() { kill(pid_, SIGCONT); }

}  // namespace ckpt::testing
