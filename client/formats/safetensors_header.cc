#include "client/formats/safetensors_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/data_type.h"
#include "base/status.h"
#include "base/utf8.h"
#include "client/formats/file_error.h"

namespace ckpt::formats {
namespace {

constexpr std::size_t kLengthSize = 8;
constexpr std::uint64_t kMaxHeaderSize = 100'000'000;  // the safetensors library's limit
constexpr std::string_view kMetadata = "__metadata__";

struct TypeName {
  std::string_view name;
  v1::DType dtype;
};

constexpr std::array kTypes = std::to_array<TypeName>({
    {"BOOL", v1::DTYPE_BOOL},
    {"U8", v1::DTYPE_UINT8},
    {"I8", v1::DTYPE_INT8},
    {"U16", v1::DTYPE_UINT16},
    {"I16", v1::DTYPE_INT16},
    {"U32", v1::DTYPE_UINT32},
    {"I32", v1::DTYPE_INT32},
    {"U64", v1::DTYPE_UINT64},
    {"I64", v1::DTYPE_INT64},
    {"F16", v1::DTYPE_FLOAT16},
    {"BF16", v1::DTYPE_BFLOAT16},
    {"F32", v1::DTYPE_FLOAT32},
    {"F64", v1::DTYPE_FLOAT64},
    {"C64", v1::DTYPE_COMPLEX64},
    {"F8_E4M3", v1::DTYPE_FLOAT8_E4M3FN},
    {"F8_E4M3FNUZ", v1::DTYPE_FLOAT8_E4M3FNUZ},
    {"F8_E5M2", v1::DTYPE_FLOAT8_E5M2},
    {"F8_E5M2FNUZ", v1::DTYPE_FLOAT8_E5M2FNUZ},
    {"F8_E8M0", v1::DTYPE_FLOAT8_E8M0FNU},
});

constexpr std::string_view kAdvice = "a .safetensors file cannot hold it; write a .pth";

std::string Shown(std::string_view text) { return PrintableUtf8(text.substr(0, 100)); }

// Takes the JSON as it is read, so that neither its depth nor its values cost memory. Any value that stands where the
// format has none ends it.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  SafetensorsHeader header;
  std::string problem;

  bool start_object(std::size_t) override {
    ++depth_;
    if (depth_ == 1) return true;
    if (depth_ != 2 || field_ != Field::kNone) return Fail("an object");
    if (key_ == kMetadata) {
      in_metadata_ = true;
      if (header.has_metadata) return Fail("a second __metadata__");
      return header.has_metadata = true;
    }
    header.entries.push_back({.name = key_});
    seen_ = 0;
    return true;
  }

  bool key(std::string& key) override {
    if (depth_ == 1 || in_metadata_) {
      key_ = key;
      return true;
    }
    field_ = key == "dtype"          ? Field::kDType
             : key == "shape"        ? Field::kShape
             : key == "data_offsets" ? Field::kOffsets
                                     : Field::kNone;
    if (field_ == Field::kNone) return Fail("an unknown field");
    const unsigned bit = 1U << static_cast<unsigned>(field_);
    if ((seen_ & bit) != 0) return Fail("a field twice");
    seen_ |= bit;
    return true;
  }

  bool end_object() override {
    --depth_;
    if (depth_ == 1 && !in_metadata_ && seen_ != kAllFields)
      return Fail("a tensor without dtype, shape or data_offsets");
    if (depth_ == 1) in_metadata_ = false;
    return true;
  }

  bool string(std::string& value) override {
    if (in_metadata_) {
      header.metadata.emplace_back(key_, value);
      return true;
    }
    if (field_ != Field::kDType || in_array_) return Fail("a string");
    const auto* type = std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeName& t) { return t.name == value; });
    if (type == kTypes.end()) return Fail(absl::StrCat("the dtype ", Shown(value), ", which is not supported"));
    header.entries.back().dtype = type->dtype;
    field_ = Field::kNone;
    return true;
  }

  bool start_array(std::size_t) override {
    if ((field_ != Field::kShape && field_ != Field::kOffsets) || in_array_) return Fail("an array");
    in_array_ = true;
    numbers_ = 0;
    return true;
  }

  bool number_unsigned(std::uint64_t value) override {
    if (!in_array_) return Fail("a number");
    SafetensorsEntry& entry = header.entries.back();
    if (field_ == Field::kShape) {
      if (entry.shape.size() == kMaxDimensions) return Fail("a shape of too many dimensions");
      entry.shape.push_back(value);
    } else {
      if (numbers_ == 2) return Fail("more than two data_offsets");
      (numbers_ == 0 ? entry.begin : entry.end) = value;
    }
    ++numbers_;
    return true;
  }

  bool end_array() override {
    if (field_ == Field::kOffsets && numbers_ != 2) return Fail("less than two data_offsets");
    in_array_ = false;
    field_ = Field::kNone;
    return true;
  }

  bool null() override { return Fail("a null"); }
  bool boolean(bool) override { return Fail("a boolean"); }
  bool number_integer(std::int64_t) override { return Fail("a negative number"); }
  bool number_float(double, const std::string&) override { return Fail("a fraction"); }
  bool binary(nlohmann::json::binary_t&) override { return Fail("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) override {
    problem = absl::StrCat("its header is no JSON at byte ", position);
    return false;
  }

 private:
  enum class Field : unsigned { kNone, kDType, kShape, kOffsets };
  static constexpr unsigned kAllFields = 0b1110;
  static constexpr std::size_t kMaxDimensions = 64;

  bool Fail(std::string_view what) {
    problem = absl::StrCat("its header has, at ", Shown(key_), ", ", std::string(what));
    return false;
  }

  std::size_t depth_ = 0;
  std::string key_;
  bool in_metadata_ = false;
  bool in_array_ = false;
  Field field_ = Field::kNone;
  unsigned seen_ = 0;  // fields of the tensor, as bits
  std::size_t numbers_ = 0;
};

absl::Status CheckTensors(const SafetensorsHeader& header, std::uint64_t data_size) {
  absl::flat_hash_set<std::string_view> names;
  std::vector<const SafetensorsEntry*> order;
  for (const SafetensorsEntry& entry : header.entries) {
    if (!names.insert(entry.name).second) return BadFile(absl::StrCat("two tensors have the name ", Shown(entry.name)));
    v1::Tensor tensor;
    tensor.set_path(Shown(entry.name));
    tensor.set_dtype(entry.dtype);
    tensor.mutable_shape()->Add(entry.shape.begin(), entry.shape.end());
    CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, SizeBytes(tensor));
    if (entry.begin > entry.end || entry.end - entry.begin != size)
      return BadFile(absl::StrCat("tensor ", Shown(entry.name), ": its data_offsets do not fit its shape"));
    order.push_back(&entry);
  }
  std::sort(order.begin(), order.end(), [](const SafetensorsEntry* a, const SafetensorsEntry* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  std::uint64_t end = 0;
  for (const SafetensorsEntry* entry : order) {
    if (entry->begin != end)
      return BadFile(absl::StrCat("tensor ", Shown(entry->name), ": its data_offsets leave a hole or overlap"));
    end = entry->end;
  }
  if (end > data_size)
    return DamagedFile(
        absl::StrCat("it is truncated: its tensors have ", end, " bytes, of which ", data_size, " are there"));
  if (end < data_size) return BadFile(absl::StrCat("it has ", data_size - end, " bytes that belong to no tensor"));
  return absl::OkStatus();
}

// As a JSON string; the text is UTF-8.
std::string Quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::string_view SafetensorsDTypeName(v1::DType dtype) {
  const auto* type = std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeName& t) { return t.dtype == dtype; });
  return type == kTypes.end() ? std::string_view() : type->name;
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(std::string_view file) {
  if (file.size() < kLengthSize) return DamagedFile("it is truncated: it has no header");
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof length);
  if (length > kMaxHeaderSize) return BadFile("it is no .safetensors file: its header would have more than 100 MB");
  if (length > file.size() - kLengthSize) return DamagedFile("it is truncated: its header is not complete");
  const std::string_view json = file.substr(kLengthSize, length);
  if (!json.starts_with('{')) return BadFile("it is no .safetensors file: its header does not begin with '{'");
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(json.begin(), json.end(), &reader)) return BadFile(reader.problem);
  reader.header.size_bytes = kLengthSize + length;
  CKPT_RETURN_IF_ERROR(CheckTensors(reader.header, file.size() - reader.header.size_bytes));
  return std::move(reader.header);
}

absl::StatusOr<std::string> FormatSafetensorsHeader(const SafetensorsHeader& header) {
  std::string text = "{";
  const auto begin_field = [&](std::string_view key) {
    absl::StrAppend(&text, text.back() == '{' ? "" : ",", Quoted(key), ":");
  };
  if (header.has_metadata) {
    begin_field(kMetadata);
    text += '{';
    for (const auto& [key, value] : header.metadata) {
      if (!IsUtf8(key) || !IsUtf8(value)) return UnsupportedValue(kMetadata, "a text that is not UTF-8", kAdvice);
      begin_field(key);
      text += Quoted(value);
    }
    text += '}';
  }
  for (const SafetensorsEntry& entry : header.entries) {
    const std::string_view dtype = SafetensorsDTypeName(entry.dtype);
    if (dtype.empty())
      return UnsupportedValue(entry.path, absl::StrCat("torch.", std::string(DTypeName(entry.dtype))), kAdvice);
    if (!IsUtf8(entry.name) || entry.name == kMetadata)
      return UnsupportedValue(entry.path, "a tensor whose name the format does not have", kAdvice);
    begin_field(entry.name);
    absl::StrAppend(&text, R"({"dtype":)", Quoted(dtype), R"(,"shape":[)", absl::StrJoin(entry.shape, ","),
                    R"(],"data_offsets":[)", entry.begin, ",", entry.end, "]}");
  }
  text += '}';
  text.append((8 - text.size() % 8) % 8, ' ');
  if (text.size() > kMaxHeaderSize)
    return MakeError(absl::StatusCode::kInvalidArgument, "FILE_TOO_LARGE",
                     "the header of the .safetensors file would have more than 100 MB; write a .pth");
  const std::uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

}  // namespace ckpt::formats
