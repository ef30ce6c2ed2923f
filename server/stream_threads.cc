#include "server/stream_threads.h"

#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::server {
namespace {

absl::Status NoThread(const std::system_error& error) {
  return MakeError(absl::StatusCode::kUnavailable, "TOO_MANY_STREAMS",
                   absl::StrCat("this server's machine has no more threads (", error.what(), "); try again later"));
}

// A stream makes threads of its own.
absl::Status ServeOn(RawStream& stream, const std::function<absl::Status(RawStream&)>& serve) {
  try {
    return serve(stream);
  } catch (const std::system_error& error) {
    return NoThread(error);
  }
}

}  // namespace

StreamThreads::~StreamThreads() {
  const MutexLock lock(mutex_);
  while (running_ != 0) changed_.Wait(mutex_);
}

void StreamThreads::Stop(std::chrono::milliseconds grace) {
  const auto deadline = std::chrono::steady_clock::now() + grace;
  const MutexLock lock(mutex_);
  stopping_ = true;
  while (running_ != 0) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= left.zero()) return;
    changed_.WaitFor(mutex_, left);
  }
}

void StreamThreads::Run(std::shared_ptr<RawStream> stream, std::function<absl::Status(RawStream&)> serve) {
  bool taken = false;
  bool stopping = false;
  {
    const MutexLock lock(mutex_);
    stopping = stopping_;
    taken = !stopping && running_ < limit_;
    if (taken) ++running_;
  }
  if (stopping) {
    stream->Close(MakeError(absl::StatusCode::kUnavailable, "SERVER_STOPS", "this server stops; try the next one"));
    return;
  }
  if (!taken) {
    stream->Close(
        MakeError(absl::StatusCode::kUnavailable, "TOO_MANY_STREAMS",
                  absl::StrCat("this server serves ", limit_, " saves and restores at once; try again later")));
    return;
  }
  try {
    std::thread([this, stream, serve = std::move(serve)] {
      stream->Close(ServeOn(*stream, serve));
      Leave();
    }).detach();
  } catch (const std::system_error& error) {
    stream->Close(NoThread(error));
    Leave();
  }
}

void StreamThreads::Leave() {
  const MutexLock lock(mutex_);
  --running_;
  changed_.NotifyAll();  // under the lock: after it this may be gone
}

}  // namespace ckpt::server
