#include "client/tensor_region.h"

#include <numeric>
#include <random>
#include <string>

#include "base/box.h"
#include "base/data_type.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ckpt::client {
namespace {

using Shape = std::vector<std::uint64_t>;

v1::Tensor Int16(const Shape& shape) {
  v1::Tensor tensor;
  tensor.set_dtype(v1::DTYPE_INT16);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  return tensor;
}

v1::Box BoxOf(const Shape& offset, const Shape& shape) {
  v1::Box box;
  box.mutable_offset()->Add(offset.begin(), offset.end());
  box.mutable_shape()->Add(shape.begin(), shape.end());
  return box;
}

std::uint64_t Count(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>());
}

// The coordinates of the elements of a shape, row-major.
std::vector<Shape> Coordinates(const Shape& shape) {
  std::vector<Shape> out;
  for (std::uint64_t i = 0; i < Count(shape); ++i) {
    Shape at(shape.size());
    for (std::uint64_t rest = i, d = shape.size(); d-- > 0; rest /= shape[d]) at[d] = rest % shape[d];
    out.push_back(at);
  }
  return out;
}

std::vector<TensorRegion::Run> RunsOf(const TensorRegion& region, const v1::Box& box, ByteRange range) {
  std::vector<TensorRegion::Run> runs;
  EXPECT_TRUE(region
                  .ForEachRun(box, range,
                              [&](const TensorRegion::Run& run) {
                                runs.push_back(run);
                                return absl::OkStatus();
                              })
                  .ok());
  return runs;
}

TEST(TensorRegion, ABoxThatIsTheWholeIsOneRun) {
  const v1::Tensor tensor = Int16({30, 20, 10});
  const auto runs = RunsOf(TensorRegion::Whole(tensor), WholeBox(tensor), {1000, 500});
  ASSERT_EQ(runs.size(), 1U);
  EXPECT_EQ(runs[0].from, 1000U);
  EXPECT_EQ(runs[0].to, 1000);
  EXPECT_EQ(runs[0].size, 500U);
}

TEST(TensorRegion, RowsOfTheWholeAreOneRun) {
  const v1::Tensor tensor = Int16({30, 20});
  const auto runs = RunsOf(TensorRegion::Whole(tensor), BoxOf({10, 0}, {5, 20}), {0, 200});
  ASSERT_EQ(runs.size(), 1U);
  EXPECT_EQ(runs[0].to, 400);
}

TEST(TensorRegion, ColumnsOfTheWholeAreARunForEachRow) {
  const v1::Tensor tensor = Int16({30, 20});
  const auto runs = RunsOf(TensorRegion::Whole(tensor), BoxOf({0, 5}, {30, 10}), {0, 600});
  ASSERT_EQ(runs.size(), 30U);
  EXPECT_EQ(runs[1].to, 50);
  EXPECT_EQ(runs[1].size, 20U);
}

TEST(TensorRegion, AScalarIsOneElement) {
  const auto runs = RunsOf(TensorRegion::Whole(Int16({})), BoxOf({}, {}), {0, 2});
  ASSERT_EQ(runs.size(), 1U);
  EXPECT_EQ(runs[0].size, 2U);
}

TEST(TensorRegion, NothingInCommonIsNoRun) {
  const v1::Tensor tensor = Int16({30, 20});
  const Shape offset = {0, 0}, shape = {5, 20}, none = {0, 20};
  const std::vector<std::int64_t> strides = {40, 2};
  const v1::Box box = BoxOf({5, 0}, {5, 20});
  const TensorRegion region = TensorRegion::Of(tensor, {offset, shape, strides});
  EXPECT_FALSE(region.Meets(box, {0, 200}));
  EXPECT_TRUE(RunsOf(region, box, {0, 200}).empty());
  const Shape middle = {7, 0};
  EXPECT_FALSE(TensorRegion::Of(tensor, {middle, none, strides}).Meets(box, {0, 200}));
}

TEST(TensorRegion, MeetsOnlyTheChunksThatItNeeds) {
  const v1::Tensor tensor = Int16({30, 20});
  const Shape offset = {12, 3}, shape = {1, 4};
  const std::vector<std::int64_t> strides = {8, 2};
  const TensorRegion region = TensorRegion::Of(tensor, {offset, shape, strides});
  std::vector<int> met;
  for (int i = 0; i < 12; ++i)
    if (region.Meets(WholeBox(tensor), {static_cast<std::uint64_t>(i) * 100, 100})) met.push_back(i);
  EXPECT_THAT(met, testing::ElementsAre(4));
}

// Boxes, regions and ranges at random, against one element after the other.
TEST(TensorRegion, TakesEachElementToItsPlace) {
  std::mt19937 random(7);
  const auto below = [&](std::uint64_t n) { return std::uniform_int_distribution<std::uint64_t>(0, n - 1)(random); };
  for (int round = 0; round < 3000; ++round) {
    SCOPED_TRACE(round);
    const std::size_t dims = 1 + below(4);
    Shape shape, offset, extent, box_offset, box_extent;
    for (std::size_t d = 0; d < dims; ++d) {
      shape.push_back(1 + below(5));
      offset.push_back(below(shape[d]));
      extent.push_back(1 + below(shape[d] - offset[d]));
      const bool full = below(2) == 0;
      box_offset.push_back(full ? 0 : below(shape[d]));
      box_extent.push_back(full ? shape[d] : 1 + below(shape[d] - box_offset[d]));
    }
    v1::Tensor tensor = Int16(shape);
    // Memory order and the region's own layout are any.
    std::vector<std::size_t> order(dims), layout(dims);
    std::iota(order.begin(), order.end(), 0U);
    if (below(2) == 0) std::shuffle(order.begin(), order.end(), random);
    layout = order;
    if (below(2) == 0) std::shuffle(layout.begin(), layout.end(), random);
    tensor.mutable_strides()->Resize(static_cast<int>(dims), 0);
    std::int64_t stride = 1;
    for (std::size_t i = dims; i-- > 0; stride *= static_cast<std::int64_t>(shape[order[i]]))
      tensor.set_strides(static_cast<int>(order[i]), stride);
    const std::vector<int> sorted = *DenseOrder(tensor);
    std::vector<std::int64_t> strides(dims);
    stride = 2;
    for (std::size_t i = dims; i-- > 0; stride *= static_cast<std::int64_t>(extent[layout[i]]))
      strides[layout[i]] = stride;

    Shape in_order_offset, in_order_extent;
    for (const int d : sorted) {
      in_order_offset.push_back(box_offset[static_cast<std::size_t>(d)]);
      in_order_extent.push_back(box_extent[static_cast<std::size_t>(d)]);
    }
    const v1::Box box = BoxOf(in_order_offset, in_order_extent);
    const std::uint64_t size = 2 * Count(box_extent);
    const std::uint64_t begin = below(size);
    const ByteRange range{begin, 1 + below(size - begin)};

    std::vector<std::int64_t> expected(static_cast<std::size_t>(stride), -1), got = expected;
    const std::vector<Shape> elements = Coordinates(in_order_extent);
    for (std::uint64_t byte = range.offset_bytes; byte < range.offset_bytes + range.size_bytes; ++byte) {
      std::int64_t to = static_cast<std::int64_t>(byte % 2);
      bool inside = true;
      for (std::size_t i = 0; i < dims; ++i) {
        const auto d = static_cast<std::size_t>(sorted[i]);
        const std::uint64_t index = in_order_offset[i] + elements[byte / 2][i];
        inside &= index >= offset[d] && index < offset[d] + extent[d];
        to += (static_cast<std::int64_t>(index) - static_cast<std::int64_t>(offset[d])) * strides[d];
      }
      if (inside) expected[static_cast<std::size_t>(to)] = static_cast<std::int64_t>(byte);
    }
    const TensorRegion region = TensorRegion::Of(tensor, {offset, extent, strides});
    std::uint64_t last = 0;
    for (const TensorRegion::Run& run : RunsOf(region, box, range)) {
      EXPECT_GE(run.from, last);
      last = run.from + run.size;
      for (std::uint64_t i = 0; i < run.size; ++i)
        got[static_cast<std::size_t>(run.to) + i] = static_cast<std::int64_t>(run.from + i);
    }
    ASSERT_EQ(got, expected);
  }
}

}  // namespace
}  // namespace ckpt::client
