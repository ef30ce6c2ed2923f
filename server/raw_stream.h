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
#include "base/mutex.h"

namespace ckpt::server {

// Thread-safe. At most kQueue messages wait to be handled: a slow handler stops the reading, and so, by flow control,
// the client. A client that does not read stops a handler that Writes, but not one that Posts.
class RawStream final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer> {
 public:
  // The stream keeps itself alive until gRPC is done with it.
  static std::shared_ptr<RawStream> Start(grpc::CallbackServerContext* context);

  enum class Event { kMessage, kTimeout, kEnd };

  // Waits for the client's next message. kEnd: it has half-closed, or the call is gone (see broken()).
  Event Read(grpc::ByteBuffer& message, std::chrono::milliseconds timeout);

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
  explicit RawStream(grpc::CallbackServerContext* context) : context_(context) {}

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // Starts the next write if none is on its way.
  void Pump();

  static constexpr std::size_t kQueue = 4;

  grpc::CallbackServerContext* const context_;
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
};

// A message's bytes as one.
template <typename Message>
grpc::ByteBuffer Serialize(const Message& message) {
  grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace ckpt::server
