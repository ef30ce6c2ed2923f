// ckptd: the checkpoint server.
#include <fcntl.h>
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <iostream>
#include <string>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "server/server.h"

namespace {

using ckpt::MakeError;

// Writes the file whole or not at all.
absl::Status WriteAddressFile(const std::string& path, const std::string& address) {
  const std::string temporary = absl::StrCat(path, ".", getpid(), ".tmp");
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  const std::string line = address + "\n";
  int error = fd < 0 ? errno : 0;
  if (fd >= 0) (void)fchmod(fd, 0644);  // for all who want to connect
  const auto attempt = [&error](bool ok) { error = ok ? 0 : errno; };
  if (error == 0) {
    errno = EIO;  // of a write that is cut short
    attempt(write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size()) && fsync(fd) == 0);
    close(fd);
    if (error == 0) attempt(rename(temporary.c_str(), path.c_str()) == 0);
    if (error == 0) return absl::OkStatus();
    unlink(temporary.c_str());
  }
  return MakeError(absl::StatusCode::kInternal, "CANNOT_WRITE",
                   absl::StrCat("cannot write the address file ", path, ": ", std::system_category().message(error)));
}

int Serve(const ckpt::server::ServerOptions& options, const std::string& address_file, std::chrono::seconds grace) {
  // Blocked before any thread starts, so that this one alone takes them.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  struct sigaction hangup {};
  // Blocking it would end what nohup is to keep.
  if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) sigaddset(&signals, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  umask(0077);  // what is in the store is for those to whom the server gives it

  auto server = ckpt::server::Server::Start(options);
  if (!server.ok()) {
    std::cerr << "ckptd: " << server.status().message() << "\n";
    return 1;
  }
  if (!address_file.empty()) {
    if (const absl::Status status = WriteAddressFile(address_file, (*server)->address()); !status.ok()) {
      std::cerr << "ckptd: " << status.message() << "\n";
      return 1;
    }
  }
  spdlog::info("serving {} on {}", options.store.dir.string(), (*server)->address());
  int signal_number = 0;
  sigwait(&signals, &signal_number);
  spdlog::info("signal {}: finishing what is running, for {} s at most", signal_number, grace.count());
  (*server)->Shutdown(grace);
  if (!address_file.empty()) unlink(address_file.c_str());  // while the store is locked: the next server writes its own
  server->reset();
  spdlog::info("stopped");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"ckptd: stores the checkpoints that trainers stream to it, each distinct chunk once"};
  ckpt::server::ServerOptions options;
  std::string dir;
  std::string address_file;
  std::uint64_t reserve_mib = 256;
  std::uint32_t chunk_kib = 1024;
  std::int64_t lease_s = 900;
  std::int64_t grace_s = 30;
  app.add_option("--data", dir, "Folder of the store; made if it is not there")
      ->required()
      ->check([](const std::string& path) { return path.empty() ? "the folder has no name" : ""; });
  app.add_option("--listen", options.listen, "HOST:PORT; port 0 takes a free one")->capture_default_str();
  app.add_option("--address-file", address_file, "Write host:port here once ready to serve");
  app.add_flag("--insecure", options.insecure,
               "Serve on an address that can be reached from outside, unencrypted, to anybody");
  app.add_option("--reserve-mib", reserve_mib, "Disk space kept back so that the catalog never meets a full disk")
      ->check(CLI::Range(128, 1 << 20))
      ->capture_default_str();
  app.add_option("--chunk-kib", chunk_kib, "Chunk size of domains that are made from now on")
      ->check(CLI::Range(16, 1024))
      ->capture_default_str();
  app.add_option("--lease-s", lease_s,
                 "Seconds for which a broken save can be resumed, and after which an idle stream is ended")
      ->check(CLI::Range(1, 86400))
      ->capture_default_str();
  app.add_option("--max-streams", options.max_streams,
                 "Saves and restores that run at once, each with two threads and some 8 MiB; more are told to come again")
      ->check(CLI::Range(1, 16384))
      ->capture_default_str();
  app.add_option("--grace-s", grace_s, "Seconds that running calls get to finish after SIGTERM")
      ->check(CLI::Range(0, 3600))
      ->capture_default_str();
  app.add_flag("--accept-loss", options.store.accept_loss,
               "Start although checkpoints that were committed are missing from the catalog");
  app.set_version_flag("--version", "ckptd " CKPT_VERSION);
  app.footer("Example:\n  ckptd --data /var/lib/ckptd --listen 127.0.0.1:7070");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  spdlog::set_default_logger(spdlog::stderr_logger_mt("ckptd"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
  options.store.dir = dir;
  options.store.reserve_bytes = reserve_mib << 20;
  options.store.chunk_size = chunk_kib << 10;
  options.store.lease = std::chrono::seconds(lease_s);
  return Serve(options, address_file, std::chrono::seconds(grace_s));
}
