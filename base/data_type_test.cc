#include "base/data_type.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <initializer_list>
#include <limits>
#include <set>
#include <string>

#include "base/status.h"

namespace ckpt {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Optional;

constexpr std::uint64_t kMax63 = std::numeric_limits<std::int64_t>::max();

v1::Tensor TensorOf(std::initializer_list<std::uint64_t> shape, std::initializer_list<std::int64_t> strides = {},
                    v1::DType dtype = v1::DTYPE_FLOAT32) {
  v1::Tensor tensor;
  tensor.set_path("t");
  tensor.set_dtype(dtype);
  for (const std::uint64_t extent : shape) tensor.add_shape(extent);
  for (const std::int64_t stride : strides) tensor.add_strides(stride);
  return tensor;
}

TEST(DataType, EveryTypeHasASizeAndANameOfItsOwn) {
  std::set<std::string> names;
  for (int value = v1::DType_MIN + 1; value <= v1::DType_MAX; ++value) {
    const auto dtype = static_cast<v1::DType>(value);
    EXPECT_NE(ElementSize(dtype), 0U) << value;
    EXPECT_TRUE(names.insert(std::string(DTypeName(dtype))).second) << value;
    EXPECT_THAT(DTypeFromName(DTypeName(dtype)), Optional(dtype));
  }
  EXPECT_EQ(names.size(), 21U);
}

TEST(DataType, SizesAreTorchs) {
  const struct {
    v1::DType dtype;
    std::uint32_t size;
    const char* name;
  } cases[] = {{v1::DTYPE_BOOL, 1, "bool"},
               {v1::DTYPE_INT16, 2, "int16"},
               {v1::DTYPE_FLOAT16, 2, "float16"},
               {v1::DTYPE_BFLOAT16, 2, "bfloat16"},
               {v1::DTYPE_FLOAT32, 4, "float32"},
               {v1::DTYPE_COMPLEX32, 4, "complex32"},
               {v1::DTYPE_INT64, 8, "int64"},
               {v1::DTYPE_COMPLEX64, 8, "complex64"},
               {v1::DTYPE_COMPLEX128, 16, "complex128"},
               {v1::DTYPE_FLOAT8_E4M3FN, 1, "float8_e4m3fn"},
               {v1::DTYPE_FLOAT8_E8M0FNU, 1, "float8_e8m0fnu"}};
  for (const auto& c : cases) {
    EXPECT_EQ(ElementSize(c.dtype), c.size) << c.name;
    EXPECT_EQ(DTypeName(c.dtype), c.name);
  }
}

TEST(DataType, UnknownTypesHaveNeither) {
  for (const auto dtype : {v1::DTYPE_UNSPECIFIED, static_cast<v1::DType>(22), static_cast<v1::DType>(-1)}) {
    EXPECT_EQ(ElementSize(dtype), 0U);
    EXPECT_EQ(DTypeName(dtype), "");
    EXPECT_EQ(ReasonOf(SizeBytes(TensorOf({1}, {}, dtype)).status()), "UNKNOWN_DTYPE");
  }
  EXPECT_EQ(DTypeFromName("torch.float32"), std::nullopt);
  EXPECT_EQ(DTypeFromName("float"), std::nullopt);
  EXPECT_EQ(DTypeFromName(""), std::nullopt);
}

TEST(ElementCount, IsTheProductOfTheShape) {
  EXPECT_EQ(ElementCount(TensorOf({})).value(), 1U) << "no dimensions: one element";
  EXPECT_EQ(ElementCount(TensorOf({2, 3, 4})).value(), 24U);
  EXPECT_EQ(ElementCount(TensorOf({kMax63})).value(), kMax63);
}

TEST(ElementCount, AZeroMakesItZeroWhateverTheRest) {
  EXPECT_EQ(ElementCount(TensorOf({0})).value(), 0U);
  EXPECT_EQ(ElementCount(TensorOf({UINT64_MAX, UINT64_MAX, 0})).value(), 0U);
}

TEST(ElementCount, RefusesWhatDoesNotFit) {
  for (const auto& tensor :
       {TensorOf({kMax63 + 1}), TensorOf({1ULL << 32, 1ULL << 31}), TensorOf({1ULL << 32, 1ULL << 32}),
        TensorOf({UINT64_MAX, 2}), TensorOf({1ULL << 32, 1ULL << 32, 3})}) {
    const absl::Status status = ElementCount(tensor).status();
    EXPECT_EQ(ReasonOf(status), "SHAPE_TOO_LARGE") << tensor.ShortDebugString();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(SizeBytes, CountsTheElementsSize) {
  EXPECT_EQ(SizeBytes(TensorOf({3, 5})).value(), 60U);
  EXPECT_EQ(SizeBytes(TensorOf({3, 5}, {}, v1::DTYPE_COMPLEX128)).value(), 240U);
  EXPECT_EQ(SizeBytes(TensorOf({}, {}, v1::DTYPE_INT64)).value(), 8U);
  EXPECT_EQ(SizeBytes(TensorOf({UINT64_MAX, 0})).value(), 0U);
}

TEST(SizeBytes, RefusesBytesBeyond63Bits) {
  EXPECT_EQ(SizeBytes(TensorOf({kMax63 / 4})).value(), kMax63 / 4 * 4);
  EXPECT_EQ(ReasonOf(SizeBytes(TensorOf({kMax63 / 4 + 1})).status()), "SHAPE_TOO_LARGE") << "2^63";
  EXPECT_EQ(ReasonOf(SizeBytes(TensorOf({1ULL << 62})).status()), "SHAPE_TOO_LARGE") << "2^64";
}

TEST(ViewExtent, WithoutStridesIsTheSize) {
  EXPECT_EQ(ViewExtentBytes(TensorOf({2, 3})).value(), 24U);
  EXPECT_EQ(ViewExtentBytes(TensorOf({})).value(), 4U);
}

TEST(ViewExtent, ReachesToTheEndOfTheLastElement) {
  EXPECT_EQ(ViewExtentBytes(TensorOf({2, 3}, {10, 2})).value(), (10U + 4U + 1U) * 4U);
  EXPECT_EQ(ViewExtentBytes(TensorOf({2, 3}, {0, 0})).value(), 4U) << "expanded: one element seen six times";
  EXPECT_EQ(ViewExtentBytes(TensorOf({1, 3}, {1'000'000, 1})).value(), 12U) << "an extent of 1 reaches nowhere";
}

TEST(ViewExtent, OfNoElementsIsNothing) {
  EXPECT_EQ(ViewExtentBytes(TensorOf({0, 5}, {1'000'000, 1'000'000})).value(), 0U);
  EXPECT_EQ(ViewExtentBytes(TensorOf({0, 5}, {-1, 1})).value(), 0U);
}

TEST(ViewExtent, RefusesStridesThatDoNotFit) {
  constexpr std::int64_t kFar = std::numeric_limits<std::int64_t>::max();
  for (const auto& view : {TensorOf({2, 3}, {3}), TensorOf({2, 3}, {6, 3, 1}), TensorOf({0, 3}, {3}),
                           TensorOf({2, 3}, {-3, 1}), TensorOf({2}, {kFar}), TensorOf({3}, {kFar}),
                           TensorOf({5}, {kFar}), TensorOf({3, 2}, {kFar, kFar}), TensorOf({2}, {kFar / 4})}) {
    const absl::Status status = ViewExtentBytes(view).status();
    EXPECT_EQ(ReasonOf(status), "BAD_TENSOR") << view.ShortDebugString();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(ViewExtentBytes(TensorOf({2}, {kFar / 4 - 1})).ok());
}

TEST(RowMajor, IsWhatContiguousMemoryHolds) {
  EXPECT_TRUE(IsRowMajor(TensorOf({2, 3})));
  EXPECT_TRUE(IsRowMajor(TensorOf({2, 3}, {3, 1})));
  EXPECT_TRUE(IsRowMajor(TensorOf({2, 1, 3}, {3, 3, 1})));
  EXPECT_FALSE(IsRowMajor(TensorOf({2, 3}, {1, 2}))) << "column-major";
  EXPECT_FALSE(IsRowMajor(TensorOf({2, 3, 4, 5}, {60, 1, 15, 3}))) << "channels_last";
  EXPECT_FALSE(IsRowMajor(TensorOf({2, 3}, {6, 2}))) << "gaps";
}

TEST(RowMajor, ExtentsOfOneDoNotDecide) {
  EXPECT_TRUE(IsRowMajor(TensorOf({1, 3}, {1, 1})));
  EXPECT_TRUE(IsRowMajor(TensorOf({3, 1}, {1, 100})));
  EXPECT_TRUE(IsRowMajor(TensorOf({2, 1, 3}, {3, -7, 1})));
  EXPECT_TRUE(IsRowMajor(TensorOf({1, 1}, {5, 9})));
  EXPECT_FALSE(IsRowMajor(TensorOf({2, 1, 3}, {1, 1, 2})));
}

TEST(DenseOrder, IsTheOrderInMemory) {
  EXPECT_THAT(DenseOrder(TensorOf({2, 3})), Optional(ElementsAre(0, 1)));
  EXPECT_THAT(DenseOrder(TensorOf({2, 3}, {3, 1})), Optional(ElementsAre(0, 1)));
  EXPECT_THAT(DenseOrder(TensorOf({2, 3}, {1, 2})), Optional(ElementsAre(1, 0)));
  EXPECT_THAT(DenseOrder(TensorOf({})), Optional(IsEmpty()));
}

TEST(DenseOrder, OfChannelsLastIsNHWC) {
  EXPECT_THAT(DenseOrder(TensorOf({2, 3, 4, 5}, {60, 1, 15, 3})), Optional(ElementsAre(0, 2, 3, 1)));
  EXPECT_THAT(DenseOrder(TensorOf({2, 3, 4, 5, 6}, {360, 1, 90, 18, 3})), Optional(ElementsAre(0, 2, 3, 4, 1)))
      << "channels_last_3d";
}

TEST(DenseOrder, ExtentsOfOneMayHaveAnyStride) {
  EXPECT_TRUE(DenseOrder(TensorOf({1, 3}, {0, 1})).has_value());
  EXPECT_TRUE(DenseOrder(TensorOf({1, 3}, {-5, 1})).has_value());
  EXPECT_TRUE(DenseOrder(TensorOf({2, 1, 3}, {3, 1000, 1})).has_value());
}

TEST(DenseOrder, WithoutElementsIsDense) {
  EXPECT_THAT(DenseOrder(TensorOf({0, 3}, {17, -4})), Optional(ElementsAre(0, 1)));
}

TEST(DenseOrder, IsNoneForWhatIsNotDense) {
  for (const auto& tensor :
       {TensorOf({2, 3}, {4, 1}), TensorOf({2, 3}, {6, 2}), TensorOf({2, 2}, {1, 1}), TensorOf({2, 3}, {0, 1}),
        TensorOf({3}, {-1}), TensorOf({2, 3}, {-3, 1}), TensorOf({3}, {std::numeric_limits<std::int64_t>::min()})})
    EXPECT_EQ(DenseOrder(tensor), std::nullopt) << tensor.ShortDebugString();
}

TEST(DenseOrder, IsNoneForAnotherNumberOfStrides) {
  EXPECT_EQ(DenseOrder(TensorOf({2, 3}, {1})), std::nullopt);
  EXPECT_EQ(DenseOrder(TensorOf({2, 3}, {6, 3, 1})), std::nullopt);
  EXPECT_EQ(DenseOrder(TensorOf({}, {1})), std::nullopt);
  EXPECT_EQ(DenseOrder(TensorOf({0, 3}, {1})), std::nullopt);
}

}  // namespace
}  // namespace ckpt
