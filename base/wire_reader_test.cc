#include "base/wire_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "ckpt/v1/state.pb.h"

namespace ckpt {
namespace {

using Type = WireField::Type;

std::mt19937_64 Random() {
  const char* given = std::getenv("CKPT_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "CKPT_SEED=" << seed << std::endl;
  return std::mt19937_64(seed);
}

std::string Varint(std::uint64_t value) {
  std::string out;
  AppendVarint(out, value);
  return out;
}

std::string Tag(std::uint64_t number, std::uint64_t type) { return Varint(number << 3 | type); }

// A field by its number, type and content.
struct Seen {
  std::uint32_t number;
  Type type;
  std::uint64_t value;
  std::string bytes;
  bool operator==(const Seen&) const = default;
};

// The fields before the end or the first that is none.
std::vector<Seen> ReadAll(WireReader& reader) {
  std::vector<Seen> out;
  while (const auto field = reader.Next())
    out.push_back({field->number, field->type, field->value, Join(field->bytes)});
  EXPECT_FALSE(reader.Next().has_value());
  return out;
}

std::vector<Seen> Read(const std::vector<Bytes>& pieces, bool& ok) {
  WireReader reader(pieces);
  std::vector<Seen> out = ReadAll(reader);
  ok = reader.ok();
  return out;
}

bool Readable(const std::string& text) {
  bool ok = false;
  Read({AsBytes(text)}, ok);
  return ok;
}

std::string EveryType() {
  return Tag(1, 0) + Varint(300) + Tag(2, 1) + "12345678" + Tag(3, 2) + Varint(5) + "hello" + Tag(4, 5) + "1234" +
         Tag(0x1fffffff, 2) + Varint(0);
}

const std::vector<Seen>& EveryTypeRead() {
  static const std::vector<Seen> kFields = {{1, Type::kVarint, 300, ""},
                                            {2, Type::kFixed64, 0, "12345678"},
                                            {3, Type::kBytes, 0, "hello"},
                                            {4, Type::kFixed32, 0, "1234"},
                                            {0x1fffffff, Type::kBytes, 0, ""}};
  return kFields;
}

TEST(WireReader, ReadsEveryType) {
  bool ok = false;
  const std::string text = EveryType();
  EXPECT_EQ(Read({AsBytes(text)}, ok), EveryTypeRead());
  EXPECT_TRUE(ok);
}

TEST(WireReader, AnEmptyMessageHasNoFields) {
  bool ok = false;
  EXPECT_TRUE(Read({}, ok).empty());
  EXPECT_TRUE(ok);
  EXPECT_TRUE(Read({Bytes(), Bytes()}, ok).empty());
  EXPECT_TRUE(ok);
}

TEST(WireReader, PiecesAreOneMessageWhereverTheyAreCut) {
  const std::string text = EveryType();
  for (std::size_t a = 0; a <= text.size(); ++a)
    for (std::size_t b = a; b <= text.size(); ++b) {
      const std::string_view whole = text;
      bool ok = false;
      const auto seen =
          Read({AsBytes(whole.substr(0, a)), Bytes(), AsBytes(whole.substr(a, b - a)), AsBytes(whole.substr(b))}, ok);
      ASSERT_TRUE(ok) << a << ' ' << b;
      ASSERT_EQ(seen, EveryTypeRead()) << a << ' ' << b;
    }
}

TEST(WireReader, BytesStayWhereTheyAre) {
  const std::string text = Tag(3, 2) + Varint(5) + "hello";
  const std::string_view whole = text;
  const std::vector<Bytes> pieces = {AsBytes(whole.substr(0, 4)), AsBytes(whole.substr(4))};
  WireReader reader(pieces);
  const auto field = reader.Next();
  ASSERT_TRUE(field.has_value());
  ASSERT_EQ(field->bytes.size(), 2U);
  EXPECT_EQ(AsChars(field->bytes[0]).data(), text.data() + 2);
  EXPECT_EQ(AsChars(field->bytes[1]).data(), text.data() + 4);
}

TEST(WireReader, ATruncatedMessageIsNone) {
  const std::string text = EveryType();
  // Where a field ends the rest may be missing.
  std::vector<std::size_t> ends = {0, 3, 12, 19, 24, text.size()};
  for (std::size_t size = 0; size <= text.size(); ++size)
    EXPECT_EQ(Readable(text.substr(0, size)), std::find(ends.begin(), ends.end(), size) != ends.end()) << size;
}

TEST(WireReader, RefusesWhatIsNoField) {
  const std::string bad[] = {
      Tag(0, 0) + Varint(1),           // field number 0
      Tag(0x20000000, 0) + Varint(1),  // field number beyond 29 bits
      Tag(1, 3),                       // a group,
      Tag(1, 3) + Tag(1, 4),           // even when it ends,
      Tag(1, 4),                       // and its end
      Tag(1, 6),                       // types that there are not
      Tag(1, 7),
      Tag(1, 0) + std::string(10, '\xff'),           // a varint without end in ten bytes
      Tag(1, 0) + std::string(10, '\x80') + '\x01',  // the same, of zeros
      std::string(11, '\x80'),                       // a tag without end
      Tag(1, 2) + Varint(6) + "hello",               // longer than the message
      Tag(1, 2) + Varint(UINT64_MAX) + "hello",      // so long that a sum would overflow
      Tag(1, 1) + "1234567",
      Tag(1, 5) + "123",
  };
  for (const std::string& text : bad) EXPECT_FALSE(Readable(text)) << ToHex(text);
}

TEST(WireReader, GoesNoFurtherAfterAnError) {
  const std::string text = Tag(1, 0) + Varint(1) + Tag(2, 3) + Tag(3, 0) + Varint(3);
  bool ok = true;
  EXPECT_EQ(Read({AsBytes(text)}, ok).size(), 1U);
  EXPECT_FALSE(ok);
}

TEST(WireReader, ReadsTheLargestVarint) {
  bool ok = false;
  const std::string text = Tag(1, 0) + Varint(UINT64_MAX);
  EXPECT_EQ(Read({AsBytes(text)}, ok)[0].value, UINT64_MAX);
}

TEST(AppendVarint, IsWhatProtobufWrites) {
  auto random = Random();
  for (int round = 0; round < 1000; ++round) {
    v1::StateNode node;
    node.set_child_count(random() >> random() % 64 | 1);
    EXPECT_EQ(Tag(v1::StateNode::kChildCountFieldNumber, 0) + Varint(node.child_count()), node.SerializeAsString());
  }
  EXPECT_EQ(Varint(0), std::string(1, '\0'));
  EXPECT_EQ(Varint(127), "\x7f");
  EXPECT_EQ(Varint(128), "\x80\x01");
}

TEST(WireReader, SurvivesAnyBytes) {
  auto random = Random();
  for (int round = 0; round < 100'000; ++round) {
    std::string text(random() % 24, '\0');
    for (char& c : text) c = static_cast<char>(random() % 4 == 0 ? random() : random() % 16);
    const std::size_t cut = random() % (text.size() + 1);
    bool whole_ok = false;
    bool cut_ok = false;
    const auto whole = Read({AsBytes(text)}, whole_ok);
    const auto pieces =
        Read({AsBytes(std::string_view(text).substr(0, cut)), AsBytes(std::string_view(text).substr(cut))}, cut_ok);
    ASSERT_EQ(whole, pieces) << ToHex(text);
    ASSERT_EQ(whole_ok, cut_ok) << ToHex(text);
  }
}

}  // namespace
}  // namespace ckpt
