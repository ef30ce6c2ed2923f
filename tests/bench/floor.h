// What the two halves of the floor have in common.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstddef>
#include <deque>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/mutex.h"
#include "base/status.h"

namespace ckpt::bench {

inline constexpr std::size_t kMessage = 1 << 20;
// Of HTTP/2. With gRPC's default, 16 KiB, all is slower.
inline constexpr int kFrame = 1 << 20;

inline Bytes BytesOf(const grpc::Slice& slice) {
  return {reinterpret_cast<const std::byte*>(slice.begin()), slice.size()};
}

// A message as it was received, without a copy.
struct Received {
  explicit Received(const grpc::ByteBuffer& message) {
    CKPT_CHECK(message.Dump(&slices).ok());
    for (const grpc::Slice& slice : slices) pieces.push_back(BytesOf(slice));
  }
  std::vector<grpc::Slice> slices;
  std::vector<Bytes> pieces;
};

// A stream for one thread that may block, while gRPC's threads receive and send beside it. Reactor: gRPC's, of a client
// or of a server.
template <typename Reactor>
class Stream : public Reactor {
 public:
  // Waits for the next message; false after the last.
  bool Read(grpc::ByteBuffer& message) {
    bool start = false;
    {
      const MutexLock lock(mutex_);
      while (in_.empty() && !ended_) changed_.Wait(mutex_);
      if (in_.empty()) return false;
      message = std::move(in_.front());
      in_.pop_front();
      start = !is_reading_ && !ended_;
      if (start) is_reading_ = true;
    }
    if (start) this->StartRead(&reading_);
    return true;
  }

  // Waits for room; false when the call is gone.
  bool Write(grpc::ByteBuffer message) {
    {
      const MutexLock lock(mutex_);
      while (out_.size() >= kAhead && !broken_) changed_.Wait(mutex_);
      if (broken_) return false;
      out_.push_back(std::move(message));
    }
    Pump();
    return true;
  }

  // Waits until all is sent.
  void Drain() {
    const MutexLock lock(mutex_);
    while ((!out_.empty() || is_writing_) && !broken_) changed_.Wait(mutex_);
  }

 protected:
  // Once the call is there.
  void StartReading() { this->StartRead(&reading_); }

 private:
  static constexpr std::size_t kAhead = 4;  // messages that wait to be handled, or to be sent

  void OnReadDone(bool ok) override {
    bool again = false;
    {
      const MutexLock lock(mutex_);
      if (ok) in_.push_back(std::exchange(reading_, {}));
      ended_ = !ok;
      again = is_reading_ = ok && in_.size() < kAhead;
    }
    changed_.NotifyAll();
    if (again) this->StartRead(&reading_);
  }

  void Pump() {
    {
      const MutexLock lock(mutex_);
      if (is_writing_ || out_.empty()) return;
      writing_ = std::move(out_.front());
      out_.pop_front();
      is_writing_ = true;
    }
    changed_.NotifyAll();
    this->StartWrite(&writing_);
  }

  void OnWriteDone(bool ok) override {
    {
      const MutexLock lock(mutex_);
      is_writing_ = false;
      broken_ = broken_ || !ok;
    }
    changed_.NotifyAll();
    if (ok) Pump();
  }

  Mutex mutex_;
  CondVar changed_;
  std::deque<grpc::ByteBuffer> in_ CKPT_GUARDED_BY(mutex_);
  std::deque<grpc::ByteBuffer> out_ CKPT_GUARDED_BY(mutex_);
  bool is_reading_ CKPT_GUARDED_BY(mutex_) = true;
  bool is_writing_ CKPT_GUARDED_BY(mutex_) = false;
  bool ended_ CKPT_GUARDED_BY(mutex_) = false;
  bool broken_ CKPT_GUARDED_BY(mutex_) = false;
  grpc::ByteBuffer reading_;  // gRPC's, while it reads
  grpc::ByteBuffer writing_;  // gRPC's, while it writes
};

}  // namespace ckpt::bench
