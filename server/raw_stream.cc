#include "server/raw_stream.h"

#include <algorithm>
#include <utility>

#include "base/status.h"
#include "ckpt/v1/service.pb.h"
#include "server/grpc_status.h"

namespace ckpt::server {
namespace {

// How often patience is looked at.
constexpr std::chrono::milliseconds kLook{500};

}  // namespace

std::shared_ptr<RawStream> RawStream::Start(grpc::CallbackServerContext* context, const Patience& patience) {
  std::shared_ptr<RawStream> stream(new RawStream(context, patience));
  stream->self_ = stream;
  {
    const MutexLock lock(stream->mutex_);
    stream->is_reading_ = true;
  }
  stream->StartRead(&stream->reading_);
  return stream;
}

RawStream::Event RawStream::Read(grpc::ByteBuffer& message, std::chrono::milliseconds timeout) {
  bool start = false;
  {
    const MutexLock lock(mutex_);
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    while (in_.empty() && !ended_ && !broken_) {
      const auto left = deadline - std::chrono::steady_clock::now();
      if (left <= left.zero()) return Event::kTimeout;
      changed_.WaitFor(mutex_, left);
    }
    if (in_.empty() || broken_) return Event::kEnd;
    message = std::move(in_.front());
    in_.pop_front();
    start = !is_reading_ && !ended_;
    if (start) is_reading_ = true;
  }
  if (start) StartRead(&reading_);
  return Event::kMessage;
}

absl::StatusOr<bool> RawStream::Next(grpc::ByteBuffer& message, std::chrono::milliseconds limit) {
  const auto since = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - since < std::min(limit, patience_.limit())) {
    switch (Read(message, kLook)) {
      case Event::kMessage: return true;
      case Event::kEnd: return false;
      case Event::kTimeout: break;
    }
  }
  return MakeError(absl::StatusCode::kUnavailable, "STREAM_IDLE",
                   "the client kept its stream idle for too long, or this server stops; begin again");
}

void RawStream::OnReadDone(bool ok) {
  bool again = false;
  {
    const MutexLock lock(mutex_);
    if (ok) {
      in_.push_back(std::exchange(reading_, {}));
      again = in_.size() < kReceiveQueue && !broken_;
    } else {
      ended_ = true;
    }
    is_reading_ = again;
  }
  changed_.NotifyAll();
  if (again) StartRead(&reading_);
}

bool RawStream::Write(grpc::ByteBuffer message) {
  if (!Drain(kSendQueue - 1)) return false;
  {
    const MutexLock lock(mutex_);
    if (broken_) return false;
    out_.push_back(std::move(message));
  }
  Pump();
  return true;
}

bool RawStream::Post(grpc::ByteBuffer message) {
  {
    const MutexLock lock(mutex_);
    if (broken_) return false;
    out_.push_back(std::move(message));
  }
  Pump();
  return true;
}

void RawStream::Ack(std::string digests, std::uint64_t total) {
  {
    const MutexLock lock(mutex_);
    if (broken_) return;
    acks_ += digests;
    acked_ = total;
  }
  Pump();
}

bool RawStream::Drain(std::size_t left) {
  {
    const MutexLock lock(mutex_);
    while (!broken_) {
      if (out_.size() <= left && (left != 0 || (!is_writing_ && acks_.empty()))) return true;
      if (is_writing_ && std::chrono::steady_clock::now() - writing_since_ > patience_.limit()) break;
      changed_.WaitFor(mutex_, kLook);
    }
    if (broken_) return false;
    broken_ = true;
  }
  context_->TryCancel();
  return false;
}

void RawStream::Pump() {
  {
    const MutexLock lock(mutex_);
    if (is_writing_ || broken_ || (out_.empty() && acks_.empty())) return;
    if (!acks_.empty()) {  // before what answers a later message
      v1::SaveResponse response;
      constexpr std::size_t kMaxAck = std::size_t{32} * 32768;
      response.mutable_ack()->set_digests(acks_.substr(0, kMaxAck));
      acks_.erase(0, kMaxAck);
      response.mutable_ack()->set_total(acked_ - acks_.size() / 32);
      writing_ = Serialize(response);
    } else {
      writing_ = std::move(out_.front());
      out_.pop_front();
    }
    is_writing_ = true;
    writing_since_ = std::chrono::steady_clock::now();
  }
  changed_.NotifyAll();
  StartWrite(&writing_);
}

void RawStream::OnWriteDone(bool ok) {
  {
    const MutexLock lock(mutex_);
    is_writing_ = false;
    writing_.Clear();
    if (!ok) broken_ = true;
  }
  changed_.NotifyAll();
  Pump();
}

void RawStream::OnCancel() {
  {
    const MutexLock lock(mutex_);
    broken_ = true;
  }
  changed_.NotifyAll();
}

bool RawStream::broken() {
  const MutexLock lock(mutex_);
  return broken_;
}

void RawStream::Close(const absl::Status& status) {
  Drain(0);
  {
    const MutexLock lock(mutex_);
    in_.clear();
  }
  Finish(ToGrpc(status, *context_));
}

void RawStream::OnDone() { self_.reset(); }

}  // namespace ckpt::server
