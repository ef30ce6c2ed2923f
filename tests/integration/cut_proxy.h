// A TCP proxy between a client and a server, which loses or changes what it is told to.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"

namespace ckpt::testing {

// Thread-safe.
class CutProxy {
 public:
  explicit CutProxy(std::string target);  // HOST:PORT, HOST an IPv4 address
  ~CutProxy();

  [[nodiscard]] std::string address() const { return address_; }

  // Once, when this many bytes from now on have gone from client to server, or from server to client, all connections
  // are cut. 0 cuts them at once.
  void CutAfterSent(std::uint64_t bytes) CKPT_EXCLUDES(mutex_);
  void CutAfterReceived(std::uint64_t bytes) CKPT_EXCLUDES(mutex_);

  // Once, when this many bytes from now on have gone from server to client, a bit of the next one is flipped.
  void FlipAfterReceived(std::uint64_t bytes) CKPT_EXCLUDES(mutex_);

  // How often connections were cut; bytes that went from server to client.
  [[nodiscard]] int cuts() const CKPT_EXCLUDES(mutex_);
  [[nodiscard]] std::uint64_t received_bytes() const CKPT_EXCLUDES(mutex_);

 private:
  enum class Way { kSent, kReceived };
  void Accept();
  void Forward(int from, int to, Way way);
  // How many of the bytes may pass; cuts when it is not all.
  std::size_t Admit(Way way, std::size_t bytes) CKPT_EXCLUDES(mutex_);
  void CutAll() CKPT_REQUIRES(mutex_);
  void FlipIfDue(Way way, std::span<char> passing) CKPT_EXCLUDES(mutex_);

  const std::string target_;
  std::string address_;
  int listener_ = -1;

  mutable Mutex mutex_;
  std::vector<int> open_ CKPT_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ CKPT_GUARDED_BY(mutex_);
  bool stopping_ CKPT_GUARDED_BY(mutex_) = false;
  std::uint64_t left_[2] CKPT_GUARDED_BY(mutex_) = {UINT64_MAX, UINT64_MAX};
  std::uint64_t passed_[2] CKPT_GUARDED_BY(mutex_) = {0, 0};
  std::uint64_t flip_at_ CKPT_GUARDED_BY(mutex_) = UINT64_MAX;  // of what is received in all
  int cuts_ CKPT_GUARDED_BY(mutex_) = 0;
  std::thread accepting_;
};

}  // namespace ckpt::testing
