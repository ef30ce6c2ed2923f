#include "client/formats/pickle_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"
#include "client/formats/file_error.h"
#include "client/formats/pickle_calls.h"
#include "client/formats/pickle_globals.h"

namespace ckpt::formats {
namespace {

// A value takes about 80 bytes of memory, and picklers write more than four for each that is not shared: a tensor's
// dozen takes a hundred. So memory is at most some twenty times the pickle, or a little.
constexpr std::size_t kBytesPerValue = 4;
constexpr std::size_t kValuesAlways = 1'000'000;
constexpr std::size_t kMaxValues = 32'000'000;

// A call may take one and the same value again and again, and makes copies of it: of what picklers write, some bytes
// for each byte of the pickle.
constexpr std::uint64_t kRepeatedPerByte = 16;
constexpr std::uint64_t kRepeatedAlways = 1U << 20;

class Reader {
 public:
  explicit Reader(std::string_view pickle)
      : pickle_(pickle), max_values_(std::min(kMaxValues, kValuesAlways + pickle.size() / kBytesPerValue)) {}

  absl::StatusOr<PickleGraph> Run() {
    const std::uint64_t most = kRepeatedAlways + kRepeatedPerByte * pickle_.size();
    while (status_.ok() && graph_.root == kNoRef) {
      Step();
      if (graph_.repeated_bytes > most) Fail("its references multiply");
    }
    if (!status_.ok()) return status_;
    return std::move(graph_);
  }

 private:
  void Step();
  void StepContainer(unsigned char opcode);
  void StepScalar(unsigned char opcode);
  void StepMemo(unsigned char opcode);
  void StepObject(unsigned char opcode);

  void Fail(std::string_view what) {
    if (status_.ok())
      status_ = BadFile(absl::StrCat("its pickle is malformed at byte ", opcode_position_, ": ", std::string(what)));
  }

  // The next bytes of the pickle; fewer than asked for only after a failure.
  std::string_view Take(std::uint64_t size) {
    if (size > pickle_.size() - position_) {
      Fail("it ends too early");
      return {};
    }
    const std::string_view taken = pickle_.substr(position_, size);
    position_ += size;
    return taken;
  }

  // A little-endian number of `width` bytes.
  std::uint64_t TakeNumber(std::size_t width) {
    const std::string_view bytes = Take(width);
    std::uint64_t number = 0;
    if (!bytes.empty()) std::memcpy(&number, bytes.data(), bytes.size());
    return number;
  }

  std::string_view TakeLine() {
    const std::size_t end = pickle_.find('\n', position_);
    if (end == pickle_.npos) {
      Fail("it ends too early");
      return {};
    }
    const std::string_view line = Take(end - position_);
    Take(1);
    return line;
  }

  void Push(PickleValue value) {
    if (graph_.values.size() >= max_values_) {
      status_ = BadFile(absl::StrCat("its pickle has more than ", max_values_, " values"));
      return;
    }
    stack_.push_back(static_cast<PickleRef>(graph_.values.size()));
    graph_.values.push_back(std::move(value));
  }
  void PushText(PickleKind kind, std::string_view text) { Push({.kind = kind, .text = text}); }
  void PushBits(PickleKind kind, std::uint64_t bits) { Push({.kind = kind, .bits = bits}); }

  // The values that pickles are full of are one each, however often they stand there: None, the bools, ints of two
  // bytes and the empty tuple.
  void PushShared(PickleKind kind, std::uint64_t bits = 0) {
    const auto [it, added] = shared_.try_emplace(std::pair(kind, bits), static_cast<PickleRef>(graph_.values.size()));
    if (!added) return stack_.push_back(it->second);
    PushBits(kind, bits);
  }
  [[nodiscard]] bool IsShared(PickleRef ref) const {
    const auto it = shared_.find(std::pair(graph_[ref].kind, graph_[ref].bits));
    return it != shared_.end() && it->second == ref;
  }

  // The stack above the last mark is what opcodes may take.
  [[nodiscard]] std::size_t Available() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }

  // The top value, or kNoRef after a failure.
  PickleRef Pop() {
    if (Available() == 0) {
      Fail("its stack is empty");
      return kNoRef;
    }
    const PickleRef top = stack_.back();
    stack_.pop_back();
    return top;
  }

  std::vector<PickleRef> PopMany(std::size_t count) {
    if (Available() < count) {
      Fail("its stack is empty");
      return {};
    }
    const auto from = stack_.end() - static_cast<std::ptrdiff_t>(count);
    std::vector<PickleRef> items(from, stack_.end());
    stack_.erase(from, stack_.end());
    return items;
  }

  // What is above the last mark, which goes too.
  std::vector<PickleRef> PopMark() {
    if (marks_.empty()) {
      Fail("there is no mark");
      return {};
    }
    std::vector<PickleRef> items = PopMany(Available());
    marks_.pop_back();
    return items;
  }

  // Adds to the container on top of the stack, if it is of this kind or one that is refused anyway.
  void Extend(std::vector<PickleRef> items, bool (*fits)(PickleKind)) {
    if (!status_.ok()) return;
    if (Available() == 0) return Fail("its stack is empty");
    PickleValue& container = graph_.values[stack_.back()];
    if (container.kind == PickleKind::kRefused) return;
    if (!fits(container.kind)) return Fail("a value that is no such container is added to");
    container.items.insert(container.items.end(), items.begin(), items.end());
  }

  void PushGlobal(std::string_view module, std::string_view name);
  void PushLong(std::string_view bytes);
  void Reduce(PickleRef callable, PickleRef arguments) {
    if (!status_.ok()) return;
    if (graph_[arguments].kind != PickleKind::kTuple) return Fail("a call's arguments are no tuple");
    Push(CallResult(graph_, callable, arguments));
  }

  const std::string_view pickle_;
  const std::size_t max_values_;
  std::size_t position_ = 0;
  std::size_t opcode_position_ = 0;
  absl::Status status_;
  PickleGraph graph_;
  std::vector<PickleRef> stack_;
  std::vector<std::size_t> marks_;  // sizes of the stack
  absl::flat_hash_map<std::uint64_t, PickleRef> memo_;
  absl::flat_hash_map<std::string, PickleRef> globals_;
  absl::flat_hash_map<std::pair<PickleKind, std::uint64_t>, PickleRef> shared_;
};

bool IsList(PickleKind kind) { return kind == PickleKind::kList; }
bool IsSet(PickleKind kind) { return kind == PickleKind::kSet; }

// The same name is the same value, however often it stands in the pickle.
void Reader::PushGlobal(std::string_view module, std::string_view name) {
  if (!status_.ok()) return;
  const PickleGlobalFacts facts = FindPickleGlobal(module, name);
  const std::string_view today = ModuleToday(module);
  std::string full = absl::StrCat(std::string(today), ".", std::string(today == "builtins" ? BuiltinName(name) : name));
  graph_.repeated_bytes += full.size();
  const auto [it, added] = globals_.try_emplace(full, static_cast<PickleRef>(graph_.values.size()));
  if (!added) return stack_.push_back(it->second);
  if (facts.global == PickleGlobal::kDType)
    return Push({.kind = PickleKind::kDType, .dtype = facts.dtype, .text = name});
  if (facts.global == PickleGlobal::kMemoryFormat) return PushText(PickleKind::kMemoryFormat, name);
  Push({.kind = PickleKind::kGlobal,
        .dtype = facts.dtype,
        .bits = static_cast<std::uint64_t>(facts.global),
        .text = graph_.Keep(std::move(full)),
        .type_name = name});
}

void Reader::PushLong(std::string_view bytes) {
  // Python writes as few bytes as do; so does the state.
  const auto sign_only = [&](char last, char before) {
    return (last == 0 && (before & 0x80) == 0) || (last == '\xff' && (before & 0x80) != 0);
  };
  if (bytes.empty()) return PushBits(PickleKind::kInt, 0);
  while (bytes.size() > 1 && sign_only(bytes.back(), bytes[bytes.size() - 2])) bytes.remove_suffix(1);
  if (bytes.size() > 8) return PushText(PickleKind::kBigInt, bytes);
  std::uint64_t bits = (bytes.back() & 0x80) != 0 ? ~std::uint64_t{0} : 0;
  std::memcpy(&bits, bytes.data(), bytes.size());
  PushBits(PickleKind::kInt, bits);
}

void Reader::StepScalar(unsigned char opcode) {
  switch (opcode) {
    case 'N': return PushShared(PickleKind::kNone);
    case 0x88: return PushShared(PickleKind::kBool, 1);
    case 0x89: return PushShared(PickleKind::kBool, 0);
    case 'J': return PushBits(PickleKind::kInt, static_cast<std::uint64_t>(static_cast<std::int32_t>(TakeNumber(4))));
    case 'K': return PushShared(PickleKind::kInt, TakeNumber(1));
    case 'M': return PushShared(PickleKind::kInt, TakeNumber(2));
    case 0x8a: return PushLong(Take(TakeNumber(1)));
    case 0x8b: {
      const std::uint64_t size = TakeNumber(4);
      return size > 0x7fffffff ? Fail("an integer has a negative size") : PushLong(Take(size));
    }
    case 'G': return PushBits(PickleKind::kFloat, __builtin_bswap64(TakeNumber(8)));
    case 'X': return PushText(PickleKind::kStr, Take(TakeNumber(4)));
    case 0x8c: return PushText(PickleKind::kStr, Take(TakeNumber(1)));
    case 0x8d: return PushText(PickleKind::kStr, Take(TakeNumber(8)));
    case 'C': return PushText(PickleKind::kBytes, Take(TakeNumber(1)));
    case 'B': return PushText(PickleKind::kBytes, Take(TakeNumber(4)));
    case 0x8e: return PushText(PickleKind::kBytes, Take(TakeNumber(8)));
    case 0x96: return PushText(PickleKind::kByteArray, Take(TakeNumber(8)));
    default: return StepMemo(opcode);
  }
}

void Reader::StepMemo(unsigned char opcode) {
  switch (opcode) {
    case 'h':
    case 'j': {
      const auto it = memo_.find(TakeNumber(opcode == 'h' ? 1 : 4));
      return it == memo_.end() ? Fail("it gets a value that it has not put") : stack_.push_back(it->second);
    }
    case 'q':
    case 'r':
    case 0x94: {
      const std::uint64_t index = opcode == 0x94 ? memo_.size() : TakeNumber(opcode == 'q' ? 1 : 4);
      if (Available() == 0) return Fail("its stack is empty");
      memo_[index] = stack_.back();
      return;
    }
    default: return StepContainer(opcode);
  }
}

void Reader::StepContainer(unsigned char opcode) {
  const auto push_items = [&](PickleKind kind, std::vector<PickleRef> items) {
    Push({.kind = kind, .items = std::move(items)});
  };
  switch (opcode) {
    case ']': return push_items(PickleKind::kList, {});
    case '}': return push_items(PickleKind::kDict, {});
    case ')': return PushShared(PickleKind::kTuple);
    case 0x8f: return push_items(PickleKind::kSet, {});
    case 't': return push_items(PickleKind::kTuple, PopMark());
    case 0x85: return push_items(PickleKind::kTuple, PopMany(1));
    case 0x86: return push_items(PickleKind::kTuple, PopMany(2));
    case 0x87: return push_items(PickleKind::kTuple, PopMany(3));
    case 0x91: return push_items(PickleKind::kFrozenset, PopMark());
    case 'a': return Extend(PopMany(1), IsList);
    case 'e': return Extend(PopMark(), IsList);
    case 0x90: return Extend(PopMark(), IsSet);
    case 's': return Extend(PopMany(2), IsMapping);
    case 'u': {
      std::vector<PickleRef> items = PopMark();
      return items.size() % 2 != 0 ? Fail("a key has no value") : Extend(std::move(items), IsMapping);
    }
    default: return StepObject(opcode);
  }
}

void Reader::StepObject(unsigned char opcode) {
  switch (opcode) {
    case 'c': {
      const std::string_view module = TakeLine();
      return PushGlobal(module, TakeLine());
    }
    case 0x93: {
      const std::vector<PickleRef> names = PopMany(2);
      if (!status_.ok()) return;
      if (graph_[names[0]].kind != PickleKind::kStr || graph_[names[1]].kind != PickleKind::kStr)
        return Fail("a name is no str");
      return PushGlobal(graph_[names[0]].text, graph_[names[1]].text);
    }
    case 'R':
    case 0x81: {  // NEWOBJ: the known classes make no difference between this and a call
      const std::vector<PickleRef> call = PopMany(2);
      return status_.ok() ? Reduce(call[0], call[1]) : void();
    }
    case 0x92: {  // with keyword arguments, which no known class has
      const std::vector<PickleRef> call = PopMany(3);
      if (!status_.ok()) return;
      const PickleValue& callable = graph_[call[0]];
      return Push({.kind = PickleKind::kRefused, .text = callable.text.empty() ? "an object" : callable.text});
    }
    case 'b': {
      const PickleRef state = Pop();
      if (!status_.ok()) return;
      if (Available() == 0) return Fail("its stack is empty");
      if (IsShared(stack_.back())) return Fail("a plain value is given attributes");
      return SetObjectState(graph_, stack_.back(), state);
    }
    case 'Q': {
      const PickleRef id = Pop();
      return status_.ok() ? Push(PersistentObject(graph_, id)) : void();
    }
    default: return Fail(absl::StrFormat("opcode 0x%02x is none that torch.save writes", opcode));
  }
}

void Reader::Step() {
  opcode_position_ = position_;
  const std::string_view taken = Take(1);
  if (taken.empty()) return;
  const auto opcode = static_cast<unsigned char>(taken[0]);
  if (opcode_position_ == 0 && opcode != 0x80) return Fail("it does not begin with a protocol number");
  switch (opcode) {
    case 0x80:
      if (const std::uint64_t protocol = TakeNumber(1); status_.ok() && (protocol < 2 || protocol > 5))
        Fail(absl::StrCat("protocol ", protocol, " is not read; save with pickle_protocol=2"));
      return;
    case 0x95: Take(8); return;  // a frame's size only helps who reads from a stream
    case '(': return marks_.push_back(stack_.size());
    case '0':
      if (Available() == 0 && !marks_.empty()) return marks_.pop_back();
      Pop();
      return;
    case '1': PopMark(); return;
    case '.':
      if (const PickleRef root = Pop(); status_.ok()) {
        if (!stack_.empty() || !marks_.empty()) return Fail("values are left over at its end");
        graph_.root = root;
      }
      return;
    default: return StepScalar(opcode);
  }
}

}  // namespace

absl::StatusOr<PickleGraph> ReadPickle(std::string_view pickle) { return Reader(pickle).Run(); }

}  // namespace ckpt::formats
