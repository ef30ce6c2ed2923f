#include "client/chunk_memory.h"

#include "absl/strings/str_cat.h"
#include "client/chunk_layout.h"
#include "gtest/gtest.h"

namespace ckpt::client {
namespace {

TensorChunks Chunks(std::size_t count, std::string_view text) {
  return TensorChunks(count, {Xxh3(text), Sha256(text)});
}

TEST(ChunkLayout, NumbersChunksThrough) {
  ChunkLayout layout(100);
  for (const std::uint64_t size : {0U, 100U, 250U, 0U, 1U}) layout.Add(size);
  EXPECT_EQ(layout.chunk_count(), 5U);
  EXPECT_EQ(layout.chunk_count(2), 3U);
  const std::vector<std::pair<std::uint64_t, std::uint64_t>> places = {{1, 0}, {2, 0}, {2, 1}, {2, 2}, {4, 0}};
  const std::vector<ByteRange> ranges = {{0, 100}, {0, 100}, {100, 100}, {200, 50}, {0, 1}};
  for (std::uint64_t i = 0; i < 5; ++i) {
    const auto place = layout.At(i);
    EXPECT_EQ(std::make_pair(place.tensor, place.index), places[i]);
    EXPECT_EQ(layout.InBox(place).range.offset_bytes, ranges[i].offset_bytes);
    EXPECT_EQ(layout.InBox(place).range.size_bytes, ranges[i].size_bytes);
    EXPECT_EQ(layout.first(place.tensor) + place.index, i);
  }
}

TEST(ChunkLayout, CutsEachBoxByItself) {
  ChunkLayout layout(100);
  layout.Add(50);
  layout.Add(std::vector<std::uint64_t>{150, 10, 200});
  layout.Add(std::vector<std::uint64_t>{});
  layout.Add(30);
  EXPECT_EQ(layout.chunk_count(1), 5U);
  EXPECT_EQ(layout.box_count(1), 3U);
  EXPECT_EQ(layout.box_chunk_count(1, 2), 2U);
  EXPECT_EQ(layout.first(1, 2), 4U);
  EXPECT_EQ(layout.chunk_count(2), 0U);
  const std::vector<std::array<std::uint64_t, 4>> boxes = {
      {0, 0, 0, 100}, {0, 1, 100, 50}, {1, 0, 0, 10}, {2, 0, 0, 100}, {2, 1, 100, 100}};
  for (std::uint64_t index = 0; index < boxes.size(); ++index) {
    const auto place = layout.InBox({1, index});
    EXPECT_EQ((std::array<std::uint64_t, 4>{place.box, place.index, place.range.offset_bytes, place.range.size_bytes}),
              boxes[index]);
  }
  EXPECT_EQ(layout.At(6).tensor, 3U);
}

TEST(ChunkLayout, HoldsSizesNearTheLimitOfShapes) {
  ChunkLayout layout(1 << 20);
  layout.Add((std::uint64_t{1} << 63) - 1);
  EXPECT_EQ(layout.chunk_count(), std::uint64_t{1} << 43);
  EXPECT_EQ(layout.InBox(layout.At(layout.chunk_count() - 1)).range.size_bytes, (1U << 20) - 1);
}

TEST(ChunkMemory, ABoxThatIsNotTheWholeHasAKeyOfItsOwn) {
  v1::Tensor tensor;
  tensor.set_path("w");
  tensor.set_dtype(v1::DTYPE_FLOAT32);
  tensor.add_shape(8);
  EXPECT_EQ(BoxKey(tensor, 0), "w");
  for (const std::uint64_t extent : {8U, 4U}) {
    v1::Box& box = *tensor.add_boxes();
    box.add_offset(8 - extent);
    box.add_shape(extent);
  }
  EXPECT_EQ(BoxKey(tensor, 0), "w");
  EXPECT_EQ(BoxKey(tensor, 1), "w@4+4");
}

TEST(ChunkMemory, RemembersTheLastOfEachTensor) {
  ChunkMemory memory;
  EXPECT_EQ(memory.Find("a"), nullptr);
  memory.Learn({{"a", Chunks(1, "old")}, {"b", Chunks(1, "b")}});
  memory.Learn({{"a", Chunks(2, "new")}});
  ASSERT_NE(memory.Find("a"), nullptr);
  EXPECT_EQ(memory.Find("a")->size(), 2U);
  EXPECT_EQ(memory.Find("a")->front().digest, Sha256("new"));
  EXPECT_NE(memory.Find("b"), nullptr);
}

TEST(ChunkMemory, ForgetsWhatIsOldWhenItIsFull) {
  ChunkMemory memory(7000);
  memory.Learn({{"old", Chunks(100, "x")}});
  EXPECT_NE(memory.Find("old"), nullptr);
  memory.Learn({{"new", Chunks(100, "x")}});
  EXPECT_EQ(memory.Find("old"), nullptr);
  EXPECT_NE(memory.Find("new"), nullptr);
}

TEST(ChunkMemory, KeepsWhatFitsOfTooMuch) {
  ChunkMemory memory(10000);
  std::vector<std::pair<std::string, TensorChunks>> tensors;
  for (int i = 0; i < 100; ++i) tensors.emplace_back(absl::StrCat("t", i), Chunks(10, "x"));
  for (int round = 0; round < 3; ++round) {
    memory.Learn(tensors);
    int known = 0;
    for (int i = 0; i < 100; ++i) known += memory.Find(absl::StrCat("t", i)) != nullptr ? 1 : 0;
    EXPECT_GE(known, 14);
    EXPECT_LE(known, 17);
  }
}

}  // namespace
}  // namespace ckpt::client
