// What Python cannot make: states that a client of another language may have saved.
#include "client/formats/pth_writer.h"

#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>

#include "base/state_node_fixture.h"
#include "base/status.h"

namespace ckpt::formats {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

v1::Scalar BigInt(std::string bytes) {
  v1::Scalar out;
  out.set_big_int(std::move(bytes));
  return out;
}

v1::Scalar Complex(double real, double imaginary) {
  v1::Scalar out;
  out.mutable_complex_value()->set_real_bits(std::bit_cast<std::uint64_t>(real));
  out.mutable_complex_value()->set_imag_bits(std::bit_cast<std::uint64_t>(imaginary));
  return out;
}

v1::Scalar Bytes(const std::string& bytes) {
  v1::Scalar out;
  out.set_bytes_value(bytes);
  return out;
}

v1::Scalar None() {
  v1::Scalar out;
  out.set_none(true);
  return out;
}

v1::StateNode Named(v1::NodeKind kind, const std::string& type_name) {
  v1::StateNode node = Node(kind);
  node.set_type_name(type_name);
  return node;
}

// Why {"m": [node, below...]} cannot be written; "" if it can.
std::string WhyNot(const v1::StateNode& node, const std::vector<v1::StateNode>& below = {},
                   const std::vector<v1::Tensor>& tensors = {}) {
  std::vector<v1::StateNode> nodes = {Node(v1::NODE_KIND_DICT, 1), At("m", Node(v1::NODE_KIND_LIST, 1)), node};
  nodes.insert(nodes.end(), below.begin(), below.end());
  const std::string path = testing::TempDir() + "/pth_writer_test.pth";
  const auto writer = CreatePthWriter(path, nodes, tensors, {});
  EXPECT_FALSE(std::filesystem::exists(path));  // it is when it is finished
  if (writer.ok()) return "";
  EXPECT_EQ(ReasonOf(writer.status()), "UNSUPPORTED_VALUE") << writer.status();
  return std::string(writer.status().message());
}

TEST(PthWriter, RefusesWhatPyTorchDoesNotName) {
  EXPECT_THAT(WhyNot(Named(v1::NODE_KIND_DTYPE, "float3")), HasSubstr("m.0: an unknown torch.dtype"));
  EXPECT_THAT(WhyNot(Named(v1::NODE_KIND_LAYOUT, "sparse_cube")), HasSubstr("m.0: an unknown torch.layout"));
  EXPECT_THAT(WhyNot(Named(v1::NODE_KIND_MEMORY_FORMAT, "channels")), HasSubstr("m.0: an unknown torch.memory_format"));
  EXPECT_THAT(WhyNot(Named(v1::NODE_KIND_NUMPY_DTYPE, "<f3")), HasSubstr("m.0: an unknown numpy.dtype"));
  EXPECT_THAT(WhyNot(Named(v1::NODE_KIND_DEFAULT_DICT, "os.abort")), HasSubstr("m.0: a defaultdict of os.abort"));
  for (const std::string device : {"cuda:-1", "cuda:128", "cuda:x", "cuda:", "cuda:07"})
    EXPECT_THAT(WhyNot(Named(v1::NODE_KIND_DEVICE, device)), HasSubstr("m.0: an impossible torch.device")) << device;
  for (const v1::StateNode& node :
       {Named(v1::NODE_KIND_DTYPE, "float32"), Named(v1::NODE_KIND_LAYOUT, "sparse_csr"),
        Named(v1::NODE_KIND_MEMORY_FORMAT, "channels_last"), Named(v1::NODE_KIND_NUMPY_DTYPE, "<f4"),
        Named(v1::NODE_KIND_DEFAULT_DICT, "list"), Named(v1::NODE_KIND_DEVICE, "cuda:127")})
    EXPECT_THAT(WhyNot(node), IsEmpty());
}

TEST(PthWriter, RefusesKeysThatPythonTakesForOne) {
  const double two_to_63 = std::ldexp(1, 63);
  const std::pair<v1::Scalar, v1::Scalar> pairs[] = {
      {Int(1), Bool(true)},
      {Int(1), Float(1)},
      {Bool(false), Float(-0.0)},
      {Float(0.0), Float(-0.0)},
      {Int(-1), Complex(-1, -0.0)},
      {Float(0.5), Complex(0.5, 0)},
      {Complex(0.0, 1), Complex(-0.0, 1)},
      {Int(INT64_MIN), Float(-two_to_63)},
      {BigInt(std::string("\0\0\0\0\0\0\0\x80\0", 9)), Float(two_to_63)},
      {BigInt(std::string("\0\0\0\0\0\0\0\0\x40", 9)), Float(std::ldexp(1, 70))},
      {BigInt(std::string("\0\0\0\0\0\0\0\0\xc0", 9)), Float(-std::ldexp(1, 70))},
      {BigInt(std::string("\0\0\x10\0\0\0\0\0\x80\0", 10)), Float(std::ldexp(1, 71) + (1 << 20))},
  };
  for (const auto& [a, b] : pairs) {
    for (const v1::NodeKind kind : {v1::NODE_KIND_DICT, v1::NODE_KIND_COUNTER})
      EXPECT_THAT(WhyNot(Node(kind, 2), {At(a, Value(Int(0))), At(b, Value(Int(0)))}),
                  HasSubstr(": a key that Python takes for another one"))
          << a.ShortDebugString() << b.ShortDebugString();
    for (const v1::NodeKind kind : {v1::NODE_KIND_SET, v1::NODE_KIND_FROZENSET})
      EXPECT_THAT(WhyNot(Node(kind, 2), {Value(a), Value(b)}), HasSubstr("m.0.1: a key that Python takes for another"))
          << a.ShortDebugString() << b.ShortDebugString();
  }
  EXPECT_THAT(WhyNot(Node(v1::NODE_KIND_DICT, 2), {At(Int(1), Value(Int(0))), At(Bool(true), Value(Int(0)))}),
              HasSubstr("m.0.True: "));
  EXPECT_THAT(WhyNot(Node(v1::NODE_KIND_SET, 2), {Value(Str("a")), Value(Str("a"))}), HasSubstr("m.0.1: "));
}

TEST(PthWriter, TakesKeysThatPythonTellsApart) {
  const double nan = std::nan("");
  const std::vector<v1::Scalar> keys = {Int(1),
                                        Int(2),
                                        Float(1.5),
                                        Complex(1, 1),
                                        Complex(1, -1),
                                        Str("1"),
                                        Bytes("1"),
                                        None(),
                                        Str("None"),
                                        Bool(false),
                                        Float(nan),
                                        Float(-nan),
                                        Complex(1, nan),
                                        Float(INFINITY),
                                        Float(-INFINITY),
                                        BigInt(std::string("\0\0\0\0\0\0\0\0\x40", 9)),
                                        Float(std::ldexp(1, 71))};
  std::vector<v1::StateNode> items;
  std::vector<v1::StateNode> members;
  for (const v1::Scalar& key : keys) {
    items.push_back(At(key, Value(Int(0))));
    members.push_back(Value(key));
  }
  EXPECT_THAT(WhyNot(Node(v1::NODE_KIND_DICT, keys.size()), items), IsEmpty());
  EXPECT_THAT(WhyNot(Node(v1::NODE_KIND_SET, keys.size()), members), IsEmpty());
  // What stands in one container has nothing to do with another.
  const v1::StateNode set = At("s", Node(v1::NODE_KIND_SET, 1));
  EXPECT_THAT(WhyNot(Node(v1::NODE_KIND_DICT, 2), {set, Value(Int(1)), At(Int(1), Value(Int(1)))}), IsEmpty());
}

TEST(PthWriter, RefusesTextThatPythonCannotRead) {
  for (const std::string text : {"\xff", "a\xed\xa0", "\xed\xa0\x80\xff", "\xc3", "\xed\xa0\xed\xa0\x80"}) {
    EXPECT_THAT(WhyNot(Value(Str(text))), HasSubstr("m.0: a str that is no UTF-8"));
    EXPECT_THAT(WhyNot(Node(v1::NODE_KIND_DICT, 1), {At(text, Value(Int(1)))}), HasSubstr("a str that is no UTF-8"));
  }
  for (const std::string text : {"", "\xed\xa0\x80", "a\xed\xbf\xbf\xc3\xa9\xed\x9f\xbf", "\xed\x80\x80"})
    EXPECT_THAT(WhyNot(Value(Str(text))), IsEmpty());
}

TEST(PthWriter, RefusesANumpyScalarOfAnotherSize) {
  v1::StateNode scalar = Named(v1::NODE_KIND_NUMPY_SCALAR, "<f8");
  *scalar.mutable_value() = Bytes("12345678");
  EXPECT_THAT(WhyNot(scalar), IsEmpty());
  *scalar.mutable_value() = Bytes("1234567");
  EXPECT_THAT(WhyNot(scalar), HasSubstr("m.0: a numpy scalar whose bytes do not fit its type"));
}

TEST(PthWriter, RefusesIntegersThatRequireGrad) {
  v1::Tensor tensor;
  tensor.set_requires_grad(true);
  for (const v1::NodeKind kind : {v1::NODE_KIND_TENSOR, v1::NODE_KIND_PARAMETER}) {
    tensor.set_dtype(v1::DTYPE_INT64);
    EXPECT_THAT(WhyNot(Node(kind), {}, {tensor}), HasSubstr("m.0: a tensor of torch.int64 that requires grad"));
    tensor.set_dtype(v1::DTYPE_BFLOAT16);
    EXPECT_THAT(WhyNot(Node(kind), {}, {tensor}), IsEmpty());
  }
}

}  // namespace
}  // namespace ckpt::formats
