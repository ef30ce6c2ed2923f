#include "client/raw_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "client/grpc_status.h"

namespace ckpt::client {

RawStream::RawStream(grpc::GenericStub& raw, const std::string& method, const ConnectOptions& options)
    : options_(options), interrupts_(options.interrupted) {
  // So that ThreadSanitizer sees an order: gRPC, through which the callbacks know this object, is not instrumented.
  { const MutexLock lock(mutex_); }
  raw.PrepareBidiStreamingCall(&context_, method, {}, this);
  AddHold();  // operations start from the caller's thread; removed after the last read and write
  StartRead(&reading_);
  StartCall();
}

RawStream::~RawStream() {
  context_.TryCancel();
  bool read = false;
  {
    const MutexLock lock(mutex_);
    abandoned_ = true;
    received_.clear();
    unsent_.clear();
    if (!reads_over_ && !read_under_way_) read = read_under_way_ = true;
  }
  if (read) StartRead(&reading_);
  const MutexLock lock(mutex_);
  while (!done_) changed_.Wait(mutex_);
}

RawStream::Event RawStream::Wait(bool for_room) {
  const auto since = std::chrono::steady_clock::now();
  for (;;) {
    CancelIf(interrupts_.Check());
    {
      const MutexLock lock(mutex_);
      if (!received_.empty()) return Event::kMessage;
      if (done_) return Event::kEnded;
      if (for_room && !reads_over_ && !writes_over_ && unsent_.size() < kWriteAhead) return Event::kRoom;
      changed_.WaitFor(mutex_, Interrupts::kEvery);
      if (!received_.empty()) continue;
    }
    if (std::chrono::steady_clock::now() - since > options_.answer_within) CancelIf(Silent());
  }
}

absl::Status RawStream::Silent() const {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(options_.answer_within);
  return MakeError(absl::StatusCode::kUnavailable, "SERVER_SILENT",
                   absl::StrCat("the server at ", options_.address, " is connected and has said nothing for ",
                                seconds.count(), " s"));
}

void RawStream::CancelIf(const absl::Status& status) {
  if (status.ok() || !given_up_.ok()) return;
  given_up_ = status;
  context_.TryCancel();
}

grpc::ByteBuffer RawStream::Take() {
  bool read = false;
  grpc::ByteBuffer message;
  {
    const MutexLock lock(mutex_);
    CKPT_CHECK(!received_.empty());
    message.Swap(&received_.front());
    received_.pop_front();
    if (!reads_over_ && !read_under_way_) read = read_under_way_ = true;
  }
  if (read) StartRead(&reading_);
  return message;
}

void RawStream::Write(grpc::ByteBuffer message) {
  Step step;
  {
    const MutexLock lock(mutex_);
    if (reads_over_ || writes_over_) return;
    unsent_.push_back(std::move(message));
    step = NextStep();
  }
  Start(step);
}

void RawStream::HalfClose() {
  Step step;
  {
    const MutexLock lock(mutex_);
    if (reads_over_ || writes_over_) return;
    half_close_ = true;
    step = NextStep();
  }
  Start(step);
}

absl::Status RawStream::Finish() {
  const MutexLock lock(mutex_);
  CKPT_CHECK(done_);
  return given_up_.ok() || status_.ok() ? status_ : given_up_;
}

RawStream::Step RawStream::NextStep() {
  if (write_under_way_) return Step::kNothing;
  if (!reads_over_ && !writes_over_) {
    if (!unsent_.empty()) {
      writing_.Swap(&unsent_.front());
      unsent_.pop_front();
      write_under_way_ = true;
      return Step::kWrite;
    }
    if (half_close_) {
      half_close_ = false;
      writes_over_ = true;
      write_under_way_ = true;
      return Step::kHalfClose;
    }
  }
  if (reads_over_ && hold_) {
    hold_ = false;
    return Step::kRemoveHold;
  }
  return Step::kNothing;
}

void RawStream::Start(Step step) {
  switch (step) {
    case Step::kNothing: return;
    case Step::kWrite: return StartWrite(&writing_);
    case Step::kHalfClose: return StartWritesDone();
    case Step::kRemoveHold: return RemoveHold();
  }
}

void RawStream::OnReadDone(bool ok) {
  Step step = Step::kNothing;
  bool read = false;
  {
    const MutexLock lock(mutex_);
    read_under_way_ = false;
    if (ok) {
      received_.emplace_back();
      received_.back().Swap(&reading_);
      if (abandoned_) received_.clear();
      if (received_.size() < kReadAhead) read = read_under_way_ = true;
    } else {
      reads_over_ = true;
      unsent_.clear();
      step = NextStep();
    }
    changed_.NotifyAll();
  }
  if (read) StartRead(&reading_);
  Start(step);
}

void RawStream::WriteEnded(bool ok) {
  Step step;
  {
    const MutexLock lock(mutex_);
    write_under_way_ = false;
    writing_.Clear();
    if (!ok) writes_over_ = true;
    step = NextStep();
    changed_.NotifyAll();
  }
  Start(step);
}

void RawStream::OnWriteDone(bool ok) { WriteEnded(ok); }
void RawStream::OnWritesDoneDone(bool ok) { WriteEnded(ok); }

void RawStream::OnDone(const grpc::Status& status) {
  const MutexLock lock(mutex_);
  status_ = FromGrpc(status, context_);
  done_ = true;
  changed_.NotifyAll();
}

}  // namespace ckpt::client
