#include "tests/integration/states.h"

#include <cstdlib>
#include <cstring>
#include <iostream>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "gtest/gtest.h"

namespace ckpt::testing {

std::uint64_t Seed() {
  static const std::uint64_t seed = [] {
    const char* given = std::getenv("CKPT_SEED");
    const std::uint64_t value = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::cout << "CKPT_SEED=" << value << std::endl;
    return value;
  }();
  return seed;
}

Tensor Memory::Random(v1::DType dtype, std::vector<std::uint64_t> shape) {
  Tensor tensor;
  tensor.meta.set_dtype(dtype);
  for (const std::uint64_t extent : shape) tensor.meta.add_shape(extent);
  const std::uint64_t size = *SizeBytes(tensor.meta);
  blocks_.emplace_back((size + 7) / 8);
  for (std::uint64_t& word : blocks_.back()) word = random_();
  if (size != 0) tensor.data = blocks_.back().data();
  return tensor;
}

State ModelState(const std::vector<Tensor>& tensors, std::int64_t epoch) {
  StateBuilder builder;
  builder.Dict().Key("model").OrderedDict();
  for (std::size_t i = 0; i < tensors.size(); ++i) builder.Key(absl::StrCat("t", i)).Tensor(tensors[i]);
  builder.End().Key("epoch").Int(epoch).End();
  absl::StatusOr<State> state = std::move(builder).Build();
  EXPECT_TRUE(state.ok()) << state.status();
  return *std::move(state);
}

void ExpectRestores(Client& client, std::string_view reference, const State& state) {
  const auto restore =
      client.OpenRestore({.reference = std::string(reference), .components = {}, .include = {}, .progress = {}});
  ASSERT_TRUE(restore.ok()) << restore.status();
  ASSERT_EQ((*restore)->nodes().size(), state.nodes.size());
  for (std::size_t i = 0; i < state.nodes.size(); ++i)
    ASSERT_EQ((*restore)->nodes()[i].SerializeAsString(), state.nodes[i].SerializeAsString()) << i;
  ASSERT_EQ((*restore)->tensors().size(), state.tensors.size());
  std::vector<std::vector<char>> memory(state.tensors.size());
  std::vector<void*> buffers(state.tensors.size());
  for (std::size_t i = 0; i < state.tensors.size(); ++i) {
    v1::Tensor meta = (*restore)->tensors()[i];
    meta.clear_boxes();
    meta.clear_inline_data();
    ASSERT_EQ(meta.SerializeAsString(), state.tensors[i].meta.SerializeAsString()) << meta.path();
    if (meta.has_view_of()) continue;
    memory[i].resize(*SizeBytes(meta) + 1);  // so that it has an address in any case
    buffers[i] = memory[i].data();
  }
  const absl::Status read = (*restore)->ReadInto(buffers);
  ASSERT_TRUE(read.ok()) << read;
  for (std::size_t i = 0; i < state.tensors.size(); ++i) {
    if (memory[i].size() <= 1) continue;
    ASSERT_EQ(std::memcmp(memory[i].data(), state.tensors[i].data, memory[i].size() - 1), 0)
        << state.tensors[i].meta.path();
  }
}

}  // namespace ckpt::testing
