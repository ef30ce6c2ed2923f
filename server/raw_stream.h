// A bidirectional stream of raw messages, for a handler that runs on a thread of its own and may block.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "server/patience.h"

namespace ckpt::server {

// Thread-safe. At most kReceiveQueue messages wait to be handled: a slow handler stops the reading, and so, by flow control,
// the client. A client that does not read stops a handler that Writes, but not one that Posts, and has its call
// cancelled when patience is at its end.
class RawStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  // The stream keeps itself alive until gRPC is done with it; `patience` outlives it.
  static std::shared_ptr<RawStream> Start(grpc::CallbackServerContext* context, const Patience& patience);

  enum class Event { kMessage, kTimeout, kEnd };

  // Waits for the client's next message. kEnd: it has half-closed, or the call is gone (see broken()).
  Event Read(grpc::ByteBuffer& message, std::chrono::milliseconds timeout);

  // Waits for the client's next message, within `limit` at most; false at the end. Unavailable STREAM_IDLE when
  // patience is at its end: whatever the client wants, it can begin again.
  absl::StatusOr<bool> Next(grpc::ByteBuffer& message,
                            std::chrono::milliseconds limit = std::chrono::milliseconds::max());

  // Queues a message; waits while the queue is full. False when the call is gone.
  bool Write(grpc::ByteBuffer message);

  // Queues a message, however many wait: for answers, which must not stop the handler from reading on. False when the
  // call is gone.
  bool Post(grpc::ByteBuffer message);

  // Queues an ack, added to the one that waits. Never blocks.
  void Ack(std::string digests, std::uint64_t total);

  // True when the call was cancelled, or its connection broke.
  bool broken();

  // Sends what is queued, then ends the call. Once, last.
  void Close(const absl::Status& status);

 private:
  RawStream(grpc::CallbackServerContext* context, const Patience& patience) : context_(context), patience_(patience) {}

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // Starts the next write if none is on its way.
  void Pump();

  // Waits until the client has taken what is sent, but for so many messages in the queue. False when the call is gone,
  // or is cancelled because the client takes nothing.
  bool Drain(std::size_t left) CKPT_EXCLUDES(mutex_);

  static constexpr std::size_t kReceiveQueue = 2;
  static constexpr std::size_t kSendQueue = 4;  // what a restore reads ahead of its client

  grpc::CallbackServerContext* const context_;
  const Patience& patience_;
  std::shared_ptr<RawStream> self_;

  Mutex mutex_;
  CondVar changed_;
  std::deque<grpc::ByteBuffer> in_ CKPT_GUARDED_BY(mutex_);
  grpc::ByteBuffer reading_;  // being received
  bool is_reading_ CKPT_GUARDED_BY(mutex_) = false;
  bool ended_ CKPT_GUARDED_BY(mutex_) = false;  // the client sends no more
  bool broken_ CKPT_GUARDED_BY(mutex_) = false;

  std::deque<grpc::ByteBuffer> out_ CKPT_GUARDED_BY(mutex_);
  std::string acks_ CKPT_GUARDED_BY(mutex_);
  std::uint64_t acked_ CKPT_GUARDED_BY(mutex_) = 0;
  grpc::ByteBuffer writing_;  // being sent
  bool is_writing_ CKPT_GUARDED_BY(mutex_) = false;
  std::chrono::steady_clock::time_point writing_since_ CKPT_GUARDED_BY(mutex_);
};

// A message's bytes as one.
template <typename Message>
grpc::ByteBuffer Serialize(const Message& message) {
  grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace ckpt::server
