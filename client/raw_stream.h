// One bidirectional call whose messages are raw bytes.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/client_callback.h>

#include <deque>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "ckpt/client.h"
#include "client/interrupts.h"

namespace ckpt::client {

// gRPC's threads move the messages; the caller drives it from one thread: Wait, then Take or Write. A few messages each
// way are held, never more: a caller that takes none is not sent more than flow control allows.
class RawStream final : private grpc::ClientBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  enum class Event {
    kMessage,  // Take has one
    kRoom,     // Write takes one
    kEnded,    // the server has ended the call, and all its messages were taken; Finish has the outcome
  };

  // Starts the call. What it is made through and the options must outlive this. When the caller interrupts it, or the
  // server does not answer within the options' time, the call is cancelled and ends with the status that says so.
  RawStream(grpc::GenericStub& raw, const std::string& method, const ConnectOptions& options);

  // Cancels the call if it has not ended and waits until gRPC is done with it. Slices that were written may live until
  // this has returned.
  ~RawStream() override;

  // Waits until there is something to do. Messages come before room. Room is not waited for, nor reported, unless
  // `for_room`.
  Event Wait(bool for_room) CKPT_EXCLUDES(mutex_);

  // After kMessage: the next message.
  grpc::ByteBuffer Take() CKPT_EXCLUDES(mutex_);

  // After kRoom: queues a message. One that is written after the end is dropped: kEnded tells.
  void Write(grpc::ByteBuffer message) CKPT_EXCLUDES(mutex_);

  // No more is written.
  void HalfClose() CKPT_EXCLUDES(mutex_);

  // After kEnded: the outcome of the call.
  absl::Status Finish() CKPT_EXCLUDES(mutex_);

 private:
  static constexpr std::size_t kReadAhead = 4;
  static constexpr std::size_t kWriteAhead = 4;

  void OnReadDone(bool ok) override CKPT_EXCLUDES(mutex_);
  void OnWriteDone(bool ok) override CKPT_EXCLUDES(mutex_);
  void OnWritesDoneDone(bool ok) override CKPT_EXCLUDES(mutex_);
  void OnDone(const grpc::Status& status) override CKPT_EXCLUDES(mutex_);

  // What is to be started next, by the thread that was told so, after it has released the mutex.
  enum class Step { kNothing, kWrite, kHalfClose, kRemoveHold };
  Step NextStep() CKPT_REQUIRES(mutex_);
  void Start(Step step) CKPT_EXCLUDES(mutex_);
  void WriteEnded(bool ok) CKPT_EXCLUDES(mutex_);

  [[nodiscard]] absl::Status Silent() const;
  void CancelIf(const absl::Status& status);

  const ConnectOptions& options_;
  grpc::ClientContext context_;
  Interrupts interrupts_;     // the caller's thread's
  absl::Status given_up_;     // likewise
  grpc::ByteBuffer reading_;  // gRPC's while a read is under way
  grpc::ByteBuffer writing_;  // gRPC's while a write is under way

  Mutex mutex_;
  CondVar changed_;
  std::deque<grpc::ByteBuffer> received_ CKPT_GUARDED_BY(mutex_);
  std::deque<grpc::ByteBuffer> unsent_ CKPT_GUARDED_BY(mutex_);
  bool read_under_way_ CKPT_GUARDED_BY(mutex_) = true;
  bool write_under_way_ CKPT_GUARDED_BY(mutex_) = false;
  bool half_close_ CKPT_GUARDED_BY(mutex_) = false;   // asked for, not started
  bool reads_over_ CKPT_GUARDED_BY(mutex_) = false;   // the last read has failed
  bool writes_over_ CKPT_GUARDED_BY(mutex_) = false;  // half-closed, or a write has failed
  bool abandoned_ CKPT_GUARDED_BY(mutex_) = false;    // messages are read and dropped until the call ends
  bool hold_ CKPT_GUARDED_BY(mutex_) = true;
  bool done_ CKPT_GUARDED_BY(mutex_) = false;
  absl::Status status_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt::client
