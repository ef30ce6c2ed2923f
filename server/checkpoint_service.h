// The gRPC service over a store: handlers that only translate.
#pragma once

#include <grpcpp/grpcpp.h>

#include "ckpt/v1/service.grpc.pb.h"
#include "server/stream_threads.h"
#include "storage/store.h"

namespace ckpt::server {

// Save and Restore take raw messages, so that payload is never copied into one; the reads take typed ones.
using ServiceBase =
    v1::CheckpointService::WithRawCallbackMethod_Save<v1::CheckpointService::WithRawCallbackMethod_Restore<
        v1::CheckpointService::WithCallbackMethod_GetSave<v1::CheckpointService::WithCallbackMethod_GetRun<
            v1::CheckpointService::WithCallbackMethod_ListRuns<v1::CheckpointService::WithCallbackMethod_GetCheckpoint<
                v1::CheckpointService::WithCallbackMethod_ListCheckpoints<v1::CheckpointService::Service>>>>>>>;

// Thread-safe. The store outlives it.
class CheckpointService final : public ServiceBase {
 public:
  // Clients may keep a stream waiting for `patience`.
  CheckpointService(storage::Store& store, int max_streams, std::chrono::milliseconds patience)
      : store_(store), patience_(patience), threads_(max_streams) {}

  // Takes no more streams and waits for those that run, for so long at most; those whose clients are not at work end at
  // once.
  void Stop(std::chrono::milliseconds grace) {
    patience_.RunOut();
    threads_.Stop(grace);
  }

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Save(grpc::CallbackServerContext* context) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Restore(grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetSave(grpc::CallbackServerContext* context, const v1::GetSaveRequest* request,
                                    v1::GetSaveResponse* response) override;
  grpc::ServerUnaryReactor* GetRun(grpc::CallbackServerContext* context, const v1::GetRunRequest* request,
                                   v1::GetRunResponse* response) override;
  grpc::ServerUnaryReactor* ListRuns(grpc::CallbackServerContext* context, const v1::ListRunsRequest* request,
                                     v1::ListRunsResponse* response) override;
  grpc::ServerUnaryReactor* GetCheckpoint(grpc::CallbackServerContext* context, const v1::GetCheckpointRequest* request,
                                          v1::GetCheckpointResponse* response) override;
  grpc::ServerUnaryReactor* ListCheckpoints(grpc::CallbackServerContext* context,
                                            const v1::ListCheckpointsRequest* request,
                                            v1::ListCheckpointsResponse* response) override;

 private:
  storage::Store& store_;
  Patience patience_;
  StreamThreads threads_;
};

}  // namespace ckpt::server
