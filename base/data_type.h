// Facts of the element types: sizes, names, and the byte sizes and memory order that follow from a tensor's
// description.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt {

// Bytes of one element; 0 for an unknown type.
std::uint32_t ElementSize(v1::DType dtype);

// torch's name without "torch.": "bfloat16". "" for an unknown type.
std::string_view DTypeName(v1::DType dtype);

// The type of that name, if there is one.
std::optional<v1::DType> DTypeFromName(std::string_view name);

// Product of the shape. InvalidArgument when it does not fit into 63 bits.
absl::StatusOr<std::uint64_t> ElementCount(const v1::Tensor& tensor);

// Bytes of all elements. InvalidArgument for an unknown type or a size beyond 63 bits.
absl::StatusOr<std::uint64_t> SizeBytes(const v1::Tensor& tensor);

// Bytes from a view's first element to the end of its last, by its strides. InvalidArgument for strides that are
// negative, do not match the shape or reach beyond 63 bits.
absl::StatusOr<std::uint64_t> ViewExtentBytes(const v1::Tensor& view);

// True for the tensor that row-major contiguous memory holds (no strides, or strides that say so).
bool IsRowMajor(const v1::Tensor& tensor);

// The dimensions in memory order, slowest first, when the strides are a dense layout: those in which an order of the
// dimensions is contiguous. nullopt when they are not, or do not match the shape. Dimensions of extent 1 may have any
// stride; a tensor without elements is dense.
std::optional<std::vector<int>> DenseOrder(const v1::Tensor& tensor);

}  // namespace ckpt
