#include "ckpt/client.h"

#include <grpcpp/client_context.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/mutex.h"
#include "base/status.h"
#include "base/utf8.h"
#include "client/connection.h"
#include "client/grpc_status.h"
#include "client/interrupts.h"
#include "client/restore.h"
#include "client/retry.h"
#include "client/save.h"

namespace ckpt {
namespace client {
namespace {

// How a call ends, from gRPC's thread to the caller's. Thread-safe.
class Answer {
 public:
  // Locks so that ThreadSanitizer sees an order: gRPC, through which the other thread knows this, is not instrumented.
  Answer() { const MutexLock lock(mutex_); }

  void Give(absl::Status status) {
    const MutexLock lock(mutex_);
    status_ = std::move(status);
    changed_.NotifyAll();
  }

  // False if there is none yet after so long.
  bool WaitFor(std::chrono::milliseconds timeout) {
    const MutexLock lock(mutex_);
    if (!status_.has_value()) changed_.WaitFor(mutex_, timeout);
    return status_.has_value();
  }

  // Once there is one.
  absl::Status status() {
    const MutexLock lock(mutex_);
    return *status_;
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::optional<absl::Status> status_ CKPT_GUARDED_BY(mutex_);
};

// How long a read may take before it is tried again.
constexpr std::chrono::seconds kReadDeadline{10};

// How long to wait between two looks at a save that waits for others.
constexpr std::chrono::milliseconds kFirstWait{20};
constexpr std::chrono::milliseconds kLongestWait{1000};

// Messages take no other texts.
absl::Status CheckText(std::string_view text) {
  if (IsUtf8(text)) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_NAME",
                   absl::StrCat("'", PrintableUtf8(text), "' is not UTF-8, as every name and label is"));
}

absl::Status CheckTexts(const SaveOptions& options) {
  CKPT_RETURN_IF_ERROR(CheckText(options.run));
  CKPT_RETURN_IF_ERROR(CheckText(options.primary_metric));
  for (const auto& [name, value] : options.metrics) CKPT_RETURN_IF_ERROR(CheckText(name));
  for (const auto& [key, value] : options.labels) {
    CKPT_RETURN_IF_ERROR(CheckText(key));
    CKPT_RETURN_IF_ERROR(CheckText(value));
  }
  return absl::OkStatus();
}

class ConnectedClient final : public Client {
 public:
  explicit ConnectedClient(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}

  absl::StatusOr<std::unique_ptr<Save>> BeginSave(SaveOptions options) override {
    CKPT_RETURN_IF_ERROR(CheckTexts(options));
    return SaveJob::Begin(connection_, std::move(options), {}, {});
  }

  absl::StatusOr<SaveResult> SaveState(SaveOptions options, const State& state) override {
    CKPT_RETURN_IF_ERROR(CheckTexts(options));
    CKPT_ASSIGN_OR_RETURN(const auto save, SaveJob::Begin(connection_, std::move(options), state.release, state.check));
    for (const Tensor& tensor : state.tensors) CKPT_RETURN_IF_ERROR(save->AddTensor(tensor).status());
    return save->Commit(state.nodes, {});
  }

  absl::StatusOr<v1::Checkpoint> AwaitSave(std::string_view attempt_key, std::chrono::milliseconds timeout) override {
    Interrupts interrupts(connection_->options.interrupted);
    v1::GetSaveRequest request;
    request.set_attempt_key(std::string(attempt_key));
    const auto begun = std::chrono::steady_clock::now();
    for (auto wait = kFirstWait;; wait = std::min(wait * 2, kLongestWait)) {
      CKPT_ASSIGN_OR_RETURN(auto response, Call<v1::GetSaveResponse>(
                                               request, [](auto& service, auto... call) { service.GetSave(call...); }));
      if (response.has_committed()) return std::move(*response.mutable_committed()->mutable_checkpoint());
      if (std::chrono::steady_clock::now() - begun >= timeout)
        return MakeError(absl::StatusCode::kDeadlineExceeded, "WAITING",
                         absl::StrCat("the save is not complete: its ranks ",
                                      absl::StrJoin(response.waiting().ranks(), ", "), " have not committed"));
      CKPT_RETURN_IF_ERROR(interrupts.Sleep(wait));
    }
  }

  absl::Status Remember(std::string_view reference) override {
    CKPT_RETURN_IF_ERROR(CheckText(reference));
    RestoreOptions options;
    options.reference = std::string(reference);
    const absl::Status status = RestoreJob::Open(connection_, std::move(options)).status();
    return Annotate(status, absl::StrCat("looking at ", absl::string_view(reference.data(), reference.size())));
  }

  absl::StatusOr<std::unique_ptr<Restore>> OpenRestore(RestoreOptions options) override {
    CKPT_RETURN_IF_ERROR(CheckText(options.reference));
    const std::string what = absl::StrCat("reading ", options.reference);
    auto restore = RestoreJob::Open(connection_, std::move(options));
    if (!restore.ok()) return Annotate(restore.status(), what);
    return restore;
  }

  absl::StatusOr<v1::Checkpoint> GetCheckpoint(std::string_view reference) override {
    CKPT_RETURN_IF_ERROR(CheckText(reference));
    v1::GetCheckpointRequest request;
    request.set_reference(std::string(reference));
    CKPT_ASSIGN_OR_RETURN(auto response,
                          Call<v1::GetCheckpointResponse>(
                              std::move(request), [](auto& service, auto... call) { service.GetCheckpoint(call...); }));
    return std::move(*response.mutable_checkpoint());
  }

  absl::StatusOr<v1::Run> GetRun(std::string_view run) override {
    CKPT_RETURN_IF_ERROR(CheckText(run));
    v1::GetRunRequest request;
    request.set_run(std::string(run));
    CKPT_ASSIGN_OR_RETURN(auto response, Call<v1::GetRunResponse>(std::move(request), [](auto& service, auto... call) {
                            service.GetRun(call...);
                          }));
    return std::move(*response.mutable_run());
  }

  absl::StatusOr<Page<v1::Run>> ListRuns(std::string_view page, std::uint32_t page_size) override {
    v1::ListRunsRequest request;
    request.set_page_token(std::string(page));
    request.set_page_size(page_size);
    CKPT_ASSIGN_OR_RETURN(
        auto response,
        Call<v1::ListRunsResponse>(std::move(request), [](auto& service, auto... call) { service.ListRuns(call...); }));
    return MakePage(*response.mutable_runs(), *response.mutable_next_page_token());
  }

  absl::StatusOr<Page<v1::Checkpoint>> ListCheckpoints(std::string_view run, std::string_view page,
                                                       std::uint32_t page_size) override {
    CKPT_RETURN_IF_ERROR(CheckText(run));
    v1::ListCheckpointsRequest request;
    request.set_run(std::string(run));
    request.set_page_token(std::string(page));
    request.set_page_size(page_size);
    CKPT_ASSIGN_OR_RETURN(
        auto response, Call<v1::ListCheckpointsResponse>(
                           std::move(request), [](auto& service, auto... call) { service.ListCheckpoints(call...); }));
    return MakePage(*response.mutable_checkpoints(), *response.mutable_next_page_token());
  }

 private:
  template <typename T>
  static Page<T> MakePage(google::protobuf::RepeatedPtrField<T>& items, std::string& next) {
    Page<T> page;
    page.items.assign(std::make_move_iterator(items.begin()), std::make_move_iterator(items.end()));
    page.next = std::move(next);
    return page;
  }

  // Makes a read, again and again while the server cannot be reached.
  template <typename Response, typename Request, typename Method>
  absl::StatusOr<Response> Call(Request request, Method method) {
    request.set_domain(connection_->options.domain);
    Backoff backoff(connection_->options.retry_for, Backoff::Clock::now());
    Response response;
    CKPT_RETURN_IF_ERROR(Retry(backoff, connection_->options, [&]() -> absl::Status {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + kReadDeadline);
      const auto answer = std::make_shared<Answer>();
      method(*connection_->service->async(), &context, &request, &response,
             [answer, &context](const grpc::Status& status) { answer->Give(FromGrpc(status, context)); });
      Interrupts interrupts(connection_->options.interrupted);
      absl::Status interrupt;
      while (!answer->WaitFor(Interrupts::kEvery)) {
        interrupt.Update(interrupts.Check());
        if (!interrupt.ok()) context.TryCancel();
      }
      return interrupt.ok() ? answer->status() : interrupt;
    }));
    return response;
  }

  const std::shared_ptr<Connection> connection_;  // shared with its open saves and restores
};

}  // namespace
}  // namespace client

absl::StatusOr<std::unique_ptr<Client>> Client::Connect(ConnectOptions options) {
  CKPT_RETURN_IF_ERROR(client::CheckText(options.domain));
  CKPT_ASSIGN_OR_RETURN(auto connection, client::Connection::Open(std::move(options)));
  return std::make_unique<client::ConnectedClient>(std::move(connection));
}

}  // namespace ckpt
