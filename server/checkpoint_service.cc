#include "server/checkpoint_service.h"

#include <utility>

#include "base/status.h"
#include "server/grpc_status.h"
#include "server/restore_handler.h"
#include "server/save_handler.h"
#include "storage/checkpoint_reads.h"
#include "storage/save_stream.h"

namespace ckpt::server {
namespace {

// Ends a unary call with what a read of the store gave.
template <typename T>
grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* context, absl::StatusOr<T> result, T* out) {
  if (result.ok()) *out = *std::move(result);
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpc(result.status(), *context));
  return reactor;
}

}  // namespace

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* CheckpointService::Save(
    grpc::CallbackServerContext* context) {
  const std::shared_ptr<RawStream> stream = RawStream::Start(context, patience_);
  threads_.Run(stream, [this](RawStream& s) { return ServeSave(store_, s); });
  return stream.get();
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* CheckpointService::Restore(
    grpc::CallbackServerContext* context) {
  const std::shared_ptr<RawStream> stream = RawStream::Start(context, patience_);
  threads_.Run(stream, [this](RawStream& s) { return ServeRestore(store_, s); });
  return stream.get();
}

grpc::ServerUnaryReactor* CheckpointService::GetSave(grpc::CallbackServerContext* context,
                                                     const v1::GetSaveRequest* request, v1::GetSaveResponse* response) {
  return Answer(context, storage::GetSave(store_, *request), response);
}

grpc::ServerUnaryReactor* CheckpointService::GetRun(grpc::CallbackServerContext* context,
                                                    const v1::GetRunRequest* request, v1::GetRunResponse* response) {
  return Answer(context, storage::GetRun(store_.engine(), request->domain(), request->run()), response->mutable_run());
}

grpc::ServerUnaryReactor* CheckpointService::ListRuns(grpc::CallbackServerContext* context,
                                                      const v1::ListRunsRequest* request,
                                                      v1::ListRunsResponse* response) {
  return Answer(context, storage::ListRuns(store_.engine(), *request), response);
}

grpc::ServerUnaryReactor* CheckpointService::GetCheckpoint(grpc::CallbackServerContext* context,
                                                           const v1::GetCheckpointRequest* request,
                                                           v1::GetCheckpointResponse* response) {
  return Answer(context, storage::Resolve(store_.engine(), request->domain(), request->reference()),
                response->mutable_checkpoint());
}

grpc::ServerUnaryReactor* CheckpointService::ListCheckpoints(grpc::CallbackServerContext* context,
                                                             const v1::ListCheckpointsRequest* request,
                                                             v1::ListCheckpointsResponse* response) {
  return Answer(context, storage::ListCheckpoints(store_.engine(), *request), response);
}

}  // namespace ckpt::server
