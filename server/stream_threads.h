// The threads that streams are served on: one for each, so many at most, all gone before the store is.
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "server/raw_stream.h"

namespace ckpt::server {

// Thread-safe.
class StreamThreads {
 public:
  explicit StreamThreads(int limit) : limit_(limit) {}
  ~StreamThreads();  // waits for all

  // Takes no more streams, and waits until those that run are done, for so long at most.
  void Stop(std::chrono::milliseconds grace) CKPT_EXCLUDES(mutex_);

  // Runs serve(stream) on a thread and closes the stream with what it returns; Unavailable TOO_MANY_STREAMS when
  // too many run.
  void Run(std::shared_ptr<RawStream> stream, std::function<absl::Status(RawStream&)> serve);

 private:
  void Leave() CKPT_EXCLUDES(mutex_);

  const int limit_;
  Mutex mutex_;
  CondVar changed_;
  int running_ CKPT_GUARDED_BY(mutex_) = 0;
  bool stopping_ CKPT_GUARDED_BY(mutex_) = false;
};

}  // namespace ckpt::server
