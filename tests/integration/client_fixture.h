// A server and a client of it.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "ckpt/client.h"
#include "gtest/gtest.h"
#include "tests/integration/ckptd_process.h"
#include "tests/integration/states.h"

namespace ckpt::testing {

inline std::unique_ptr<Client> ConnectTo(const std::string& address,
                                         std::chrono::milliseconds retry_for = std::chrono::seconds(30)) {
  ConnectOptions options;
  options.address = address;
  options.retry_for = retry_for;
  auto client = Client::Connect(options);
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

inline SaveOptions At(std::string run, std::int64_t epoch) {
  SaveOptions options;
  options.run = std::move(run);
  options.epoch = epoch;
  return options;
}

inline RestoreOptions Of(std::string reference) {
  RestoreOptions options;
  options.reference = std::move(reference);
  return options;
}

// Saves as run@epoch, which must succeed.
inline SaveResult SaveOk(Client& client, std::int64_t epoch, const State& state) {
  auto saved = client.SaveState(At("run", epoch), state);
  EXPECT_TRUE(saved.ok()) << saved.status();
  return saved.ok() ? *std::move(saved) : SaveResult();
}

class ClientTest : public ::testing::Test {
 protected:
  CkptdProcess server_;
  std::unique_ptr<Client> client_ = ConnectTo(server_.address());
  Memory memory_;
};

}  // namespace ckpt::testing
