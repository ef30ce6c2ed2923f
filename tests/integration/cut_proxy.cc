#include "tests/integration/cut_proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::testing {
namespace {

sockaddr_in AddressOf(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(text.substr(colon + 1))));
  CKPT_CHECK(inet_pton(AF_INET, text.substr(0, colon).c_str(), &address.sin_addr) == 1);
  return address;
}

}  // namespace

CutProxy::CutProxy(std::string target) : target_(std::move(target)) {
  listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = AddressOf("127.0.0.1:0");
  socklen_t size = sizeof address;
  CKPT_CHECK(bind(listener_, reinterpret_cast<sockaddr*>(&address), size) == 0);
  CKPT_CHECK(listen(listener_, 16) == 0);
  CKPT_CHECK(getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  address_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  accepting_ = std::thread([this] { Accept(); });
}

CutProxy::~CutProxy() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    CutAll();
  }
  shutdown(listener_, SHUT_RDWR);
  accepting_.join();
  close(listener_);
  std::vector<std::thread> threads;
  {
    const MutexLock lock(mutex_);
    threads.swap(threads_);
  }
  for (std::thread& thread : threads) thread.join();
  const MutexLock lock(mutex_);
  for (const int fd : open_) close(fd);
}

void CutProxy::Accept() {
  for (;;) {
    const int client = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (client < 0) return;
    const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = AddressOf(target_);
    const bool connected = connect(server, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    const MutexLock lock(mutex_);
    if (!connected || stopping_) {
      close(client);
      close(server);
      continue;
    }
    open_.push_back(client);
    open_.push_back(server);
    threads_.emplace_back([this, client, server] { Forward(client, server, Way::kSent); });
    threads_.emplace_back([this, client, server] { Forward(server, client, Way::kReceived); });
  }
}

// Sockets are shut down, never closed, while a thread may use them.
void CutProxy::Forward(int from, int to, Way way) {
  std::array<char, 65536> buffer;
  for (;;) {
    const ssize_t got = recv(from, buffer.data(), buffer.size(), 0);
    if (got <= 0) break;
    FlipIfDue(way, std::span(buffer).first(static_cast<std::size_t>(got)));
    const std::size_t admitted = Admit(way, static_cast<std::size_t>(got));
    std::size_t sent = 0;
    while (sent < admitted) {
      const ssize_t n = send(to, buffer.data() + sent, admitted - sent, MSG_NOSIGNAL);
      if (n <= 0) break;
      sent += static_cast<std::size_t>(n);
    }
    if (sent < static_cast<std::size_t>(got)) break;
  }
  shutdown(from, SHUT_RDWR);
  shutdown(to, SHUT_RDWR);
}

std::size_t CutProxy::Admit(Way way, std::size_t bytes) {
  const MutexLock lock(mutex_);
  std::uint64_t& left = left_[static_cast<int>(way)];
  if (left == UINT64_MAX) {
    passed_[static_cast<int>(way)] += bytes;
    return bytes;
  }
  const std::size_t admitted = std::min<std::uint64_t>(left, bytes);
  passed_[static_cast<int>(way)] += admitted;
  left -= admitted;
  if (admitted < bytes) CutAll();
  return admitted;
}

void CutProxy::FlipIfDue(Way way, std::span<char> passing) {
  const MutexLock lock(mutex_);
  const std::uint64_t passed = passed_[static_cast<int>(Way::kReceived)];
  if (way != Way::kReceived || flip_at_ - passed >= passing.size()) return;
  char& byte = passing[flip_at_ - passed];
  byte = static_cast<char>(byte ^ 1);
  flip_at_ = UINT64_MAX;
}

void CutProxy::CutAll() {
  for (const int fd : open_) shutdown(fd, SHUT_RDWR);
  left_[0] = left_[1] = UINT64_MAX;
  ++cuts_;
}

void CutProxy::CutAfterSent(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  left_[0] = bytes;
  if (bytes == 0) CutAll();
}

void CutProxy::CutAfterReceived(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  left_[1] = bytes;
}

void CutProxy::FlipAfterReceived(std::uint64_t bytes) {
  const MutexLock lock(mutex_);
  flip_at_ = passed_[1] + bytes;
}

int CutProxy::cuts() const {
  const MutexLock lock(mutex_);
  return cuts_;
}

std::uint64_t CutProxy::received_bytes() const {
  const MutexLock lock(mutex_);
  return passed_[1];
}

}  // namespace ckpt::testing
