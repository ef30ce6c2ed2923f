// ckptd._native: what ckptd's Python modules stand on. States cross as calls of Builder and as lists of tuples;
// tensors' bytes never cross: they are read from and written to where they are, with the GIL released.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/client.h"
#include "ckpt/state.h"
#include "ckpt/status.h"
#include "ckpt/tensor_facts.h"

namespace nb = nanobind;

namespace {

// ---- Errors

// Raises ckptd's exception for the error (ckptd/_errors.py), or what Python was interrupted with.
[[noreturn]] void Raise(const absl::Status& status) {
  if (PyErr_Occurred() != nullptr) throw nb::python_error();
  const std::string text(status.message());
  const nb::object error = nb::module_::import_("ckptd._errors")
                               .attr("from_status")(static_cast<int>(status.code()), ckpt::ReasonOf(status), text);
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
  throw nb::python_error();
}

// True in a thread that Python called, and that waits for the library without the GIL: signals are looked at there.
thread_local bool python_waits = false;

bool Interrupted() {
  if (!python_waits) return false;
  const nb::gil_scoped_acquire gil;
  return PyErr_CheckSignals() != 0;  // the exception stays set, for Raise
}

// Makes a call of the library without the GIL.
template <typename Call>
auto WithoutGil(const Call& call) {
  const nb::gil_scoped_release no_gil;
  python_waits = true;
  auto result = call();
  python_waits = false;
  return result;
}

template <typename T>
T ValueOf(absl::StatusOr<T> result) {
  if (!result.ok()) Raise(result.status());
  return *std::move(result);
}

void Check(const absl::Status& status) {
  if (!status.ok()) Raise(status);
}

// ---- Scalars

// UTF-8, with lone surrogates as three bytes each.
std::string Utf8(PyObject* text) {
  Py_ssize_t size = 0;
  if (const char* bytes = PyUnicode_AsUTF8AndSize(text, &size); bytes != nullptr)
    return {bytes, static_cast<std::size_t>(size)};
  PyErr_Clear();
  const nb::object bytes = nb::steal(PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass"));
  if (!bytes.is_valid()) throw nb::python_error();
  return {PyBytes_AS_STRING(bytes.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

nb::object FromUtf8(const std::string& text) {
  nb::object out = nb::steal(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "surrogatepass"));
  if (!out.is_valid()) throw nb::python_error();
  return out;
}

nb::object Bytes(const std::string& bytes) { return nb::bytes(bytes.data(), bytes.size()); }

// Two's complement, little-endian, as short as possible.
std::string BigInt(nb::handle value) {
  const bool negative = PyObject_RichCompareBool(value.ptr(), nb::int_(0).ptr(), Py_LT) == 1;
  const nb::object magnitude = negative ? nb::steal(PyNumber_Invert(value.ptr())) : nb::borrow(value);
  const auto size = nb::cast<std::size_t>(magnitude.attr("bit_length")()) / 8 + 1;
  const nb::object bytes = value.attr("to_bytes")(size, "little", nb::arg("signed") = true);
  return {PyBytes_AS_STRING(bytes.ptr()), size};
}

ckpt::v1::Scalar ToScalar(nb::handle object) {
  ckpt::v1::Scalar scalar;
  PyObject* const value = object.ptr();
  if (value == Py_None) {
    scalar.set_none(true);
  } else if (PyBool_Check(value)) {
    scalar.set_bool_value(value == Py_True);
  } else if (PyLong_CheckExact(value)) {
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow == 0) {
      scalar.set_int_value(number);
    } else {
      scalar.set_big_int(BigInt(object));
    }
  } else if (PyFloat_CheckExact(value)) {
    scalar.set_float_bits(std::bit_cast<std::uint64_t>(PyFloat_AS_DOUBLE(value)));
  } else if (PyUnicode_CheckExact(value)) {
    scalar.set_str_value(Utf8(value));
  } else if (PyBytes_CheckExact(value)) {
    scalar.set_bytes_value(PyBytes_AS_STRING(value), static_cast<std::size_t>(PyBytes_GET_SIZE(value)));
  } else if (PyComplex_CheckExact(value)) {
    const Py_complex number = PyComplex_AsCComplex(value);
    scalar.mutable_complex_value()->set_real_bits(std::bit_cast<std::uint64_t>(number.real));
    scalar.mutable_complex_value()->set_imag_bits(std::bit_cast<std::uint64_t>(number.imag));
  } else {
    throw nb::type_error("not a scalar");
  }
  return scalar;
}

nb::object FromScalar(const ckpt::v1::Scalar& scalar) {
  switch (scalar.value_case()) {
    case ckpt::v1::Scalar::kBoolValue: return nb::bool_(scalar.bool_value());
    case ckpt::v1::Scalar::kIntValue: return nb::int_(scalar.int_value());
    case ckpt::v1::Scalar::kBigInt:
      return nb::borrow(reinterpret_cast<PyObject*>(&PyLong_Type))
          .attr("from_bytes")(Bytes(scalar.big_int()), "little", nb::arg("signed") = true);
    case ckpt::v1::Scalar::kFloatBits: return nb::steal(PyFloat_FromDouble(std::bit_cast<double>(scalar.float_bits())));
    case ckpt::v1::Scalar::kComplexValue:
      return nb::steal(PyComplex_FromDoubles(std::bit_cast<double>(scalar.complex_value().real_bits()),
                                             std::bit_cast<double>(scalar.complex_value().imag_bits())));
    case ckpt::v1::Scalar::kStrValue: return FromUtf8(scalar.str_value());
    case ckpt::v1::Scalar::kBytesValue: return Bytes(scalar.bytes_value());
    case ckpt::v1::Scalar::kNone:
    case ckpt::v1::Scalar::VALUE_NOT_SET: break;
  }
  return nb::none();
}

// ---- Saving

// ckpt::StateBuilder, for Python.
class Builder {
 public:
  void Key(nb::handle key) { builder_.Key(ToScalar(key)); }
  void Open(int kind, std::string_view type_name) { builder_.Open(static_cast<ckpt::v1::NodeKind>(kind), type_name); }
  void Attributes() { builder_.Attributes(); }
  void End() { builder_.End(); }

  void Leaf(int kind, nb::handle value, const std::string& type_name) {
    ckpt::v1::StateNode node;
    node.set_kind(static_cast<ckpt::v1::NodeKind>(kind));
    node.set_type_name(type_name);
    if (!value.is_none() || kind == ckpt::v1::NODE_KIND_SCALAR) *node.mutable_value() = ToScalar(value);
    builder_.Leaf(std::move(node));
  }

  void Tensor(int kind, std::uint64_t number, const std::string& type_name) {
    ckpt::v1::StateNode node;
    node.set_kind(static_cast<ckpt::v1::NodeKind>(kind));
    node.set_type_name(type_name);
    node.set_tensor(number);
    builder_.Leaf(std::move(node));
  }

  std::size_t AddStorage(std::uintptr_t address, std::size_t size) {
    return builder_.AddStorage({reinterpret_cast<const std::byte*>(address), size});
  }

  std::uint64_t AddView(std::size_t storage, std::uint64_t offset_bytes, int dtype,
                        const std::vector<std::uint64_t>& shape, const std::vector<std::int64_t>& strides,
                        bool requires_grad, const std::string& device, int role) {
    ckpt::v1::Tensor meta;
    meta.set_dtype(static_cast<ckpt::v1::DType>(dtype));
    meta.mutable_shape()->Add(shape.begin(), shape.end());
    meta.mutable_strides()->Add(strides.begin(), strides.end());
    meta.set_requires_grad(requires_grad);
    meta.set_device(device);
    meta.set_role(static_cast<ckpt::v1::Role>(role));
    return builder_.AddView(std::move(meta), storage, offset_bytes);
  }

  // (offset, shape, address) of each box.
  using Box = std::tuple<std::vector<std::uint64_t>, std::vector<std::uint64_t>, std::uintptr_t>;
  std::uint64_t AddBoxes(int dtype, const std::vector<std::uint64_t>& shape, const std::vector<Box>& boxes,
                         bool requires_grad, const std::string& device, int role) {
    ckpt::Tensor tensor;
    tensor.meta.set_dtype(static_cast<ckpt::v1::DType>(dtype));
    tensor.meta.mutable_shape()->Add(shape.begin(), shape.end());
    tensor.meta.set_requires_grad(requires_grad);
    tensor.meta.set_device(device);
    tensor.meta.set_role(static_cast<ckpt::v1::Role>(role));
    tensor.boxes.emplace();
    for (const auto& [offset, extent, address] : boxes)
      tensor.boxes->push_back({offset, extent, reinterpret_cast<const void*>(address)});
    return builder_.AddTensor(tensor);
  }

  absl::StatusOr<ckpt::State> Build() { return std::move(builder_).Build(); }

 private:
  ckpt::StateBuilder builder_;
};

std::int64_t Micros(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1'000'000 + time.nanos() / 1000;
}

nb::dict FromCheckpoint(const ckpt::v1::Checkpoint& checkpoint) {
  nb::dict metrics;
  for (const ckpt::v1::Metric& metric : checkpoint.metrics()) metrics[FromUtf8(metric.name())] = metric.value();
  nb::dict labels;
  for (const ckpt::v1::Label& label : checkpoint.labels()) labels[FromUtf8(label.key())] = FromUtf8(label.value());
  nb::list components;
  for (const std::string& component : checkpoint.components()) components.append(FromUtf8(component));
  nb::list tags;
  for (const std::string& tag : checkpoint.tags()) tags.append(FromUtf8(tag));
  nb::dict out;
  out["run"] = checkpoint.run();
  out["epoch"] = checkpoint.epoch();
  out["version"] = checkpoint.version();
  out["step"] = checkpoint.has_step() ? nb::object(nb::int_(checkpoint.step())) : nb::none();
  out["metrics"] = metrics;
  out["labels"] = labels;
  out["tags"] = nb::tuple(tags);
  out["components"] = nb::tuple(components);
  out["tensor_count"] = checkpoint.tensor_count();
  out["logical_bytes"] = checkpoint.logical_bytes();
  out["new_bytes"] = checkpoint.new_bytes();
  out["world_size"] = checkpoint.world_size();
  out["create_time_us"] = Micros(checkpoint.create_time());
  return out;
}

// ---- Copying

struct Copy {
  std::uintptr_t to = 0;
  std::uintptr_t from = 0;
  std::size_t size = 0;
};

// On all cores: a thread takes a piece after the other.
void CopyAll(const std::vector<Copy>& copies) {
  constexpr std::size_t kPiece = std::size_t{4} << 20;
  std::vector<Copy> pieces;
  for (const Copy& copy : copies)
    for (std::size_t at = 0; at < copy.size; at += kPiece)
      pieces.push_back({copy.to + at, copy.from + at, std::min(kPiece, copy.size - at)});
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < pieces.size(); i = next++)
      std::memcpy(reinterpret_cast<void*>(pieces[i].to), reinterpret_cast<const void*>(pieces[i].from), pieces[i].size);
  };
  std::vector<std::thread> threads;
  try {
    const std::size_t wanted = std::min<std::size_t>(std::thread::hardware_concurrency(), pieces.size());
    while (threads.size() + 1 < wanted) threads.emplace_back(work);
  } catch (const std::system_error&) {  // there are no more threads: the others do it
  }
  work();
  for (std::thread& thread : threads) thread.join();
}

// ---- Restoring

template <typename List>
nb::tuple Numbers(const List& from) {
  nb::list list;
  for (const auto number : from) list.append(number);
  return nb::tuple(list);
}

class Restore {
 public:
  explicit Restore(std::unique_ptr<ckpt::Restore> restore) : restore_(std::move(restore)) {}

  nb::dict Checkpoint() const { return FromCheckpoint(restore_->checkpoint()); }

  // (kind, key, child count, attribute count, value, type name, tensor) of each node.
  nb::list Nodes() const {
    nb::list out;
    for (const ckpt::v1::StateNode& node : restore_->nodes())
      out.append(nb::make_tuple(static_cast<int>(node.kind()), FromScalar(node.key()), node.child_count(),
                                node.attribute_count(), FromScalar(node.value()), FromUtf8(node.type_name()),
                                node.tensor()));
    return out;
  }

  // (path, dtype, shape, strides, requires_grad, device, bytes, view_of, view offset in bytes, selected) of each
  // tensor.
  nb::list Tensors() const {
    nb::list out;
    for (std::uint64_t i = 0; i < restore_->tensors().size(); ++i) {
      const ckpt::v1::Tensor& tensor = restore_->tensors()[i];
      out.append(nb::make_tuple(FromUtf8(tensor.path()), static_cast<int>(tensor.dtype()), Numbers(tensor.shape()),
                                Numbers(tensor.strides()), tensor.requires_grad(), tensor.device(),
                                ckpt::TensorSizeBytes(tensor),
                                tensor.has_view_of() ? nb::object(nb::int_(tensor.view_of())) : nb::none(),
                                tensor.view_offset_bytes(), restore_->selected(i)));
    }
    return out;
  }

  // Of each tensor, (offset, shape) of each box in which it is stored; a small one has one, a view none.
  nb::list Boxes() const {
    nb::list out;
    for (const ckpt::v1::Tensor& tensor : restore_->tensors()) {
      nb::list boxes;
      for (const ckpt::v1::Box& box : tensor.boxes())
        boxes.append(nb::make_tuple(Numbers(box.offset()), Numbers(box.shape())));
      if (tensor.boxes().empty() && !tensor.has_view_of()) {
        const std::vector<std::uint64_t> start(static_cast<std::size_t>(tensor.shape_size()));
        boxes.append(nb::make_tuple(Numbers(start), Numbers(tensor.shape())));
      }
      out.append(boxes);
    }
    return out;
  }

  // Reads (tensor, offset, shape, address, strides in bytes) each.
  using Slice = std::tuple<std::uint64_t, std::vector<std::uint64_t>, std::vector<std::uint64_t>, std::uintptr_t,
                           std::vector<std::int64_t>>;
  void ReadSlices(const std::vector<Slice>& slices) {
    std::vector<ckpt::Restore::Slice> wanted;
    wanted.reserve(slices.size());
    for (const auto& [tensor, offset, shape, address, strides_bytes] : slices)
      wanted.push_back({tensor, offset, shape, strides_bytes, reinterpret_cast<void*>(address)});
    Check(WithoutGil([&] { return restore_->ReadSlices(wanted); }));
  }

  void Pause() {
    const nb::gil_scoped_release no_gil;
    restore_->Pause();
  }

  [[nodiscard]] std::uint64_t fetched_bytes() const { return restore_->fetched_bytes(); }

  // Reads tensor i to address buffers[i]; 0 leaves it out.
  void ReadInto(const std::vector<std::uintptr_t>& buffers) {
    std::vector<void*> pointers;
    pointers.reserve(buffers.size());
    for (const std::uintptr_t address : buffers) pointers.push_back(reinterpret_cast<void*>(address));
    Check(WithoutGil([&] { return restore_->ReadInto(pointers); }));
  }

 private:
  std::unique_ptr<ckpt::Restore> restore_;
};

// ---- The client

class Client {
 public:
  Client(const std::string& address, const std::string& domain, double retry_s) {
    ckpt::ConnectOptions options;
    options.address = address;
    options.domain = domain;
    options.retry_for = std::chrono::milliseconds(static_cast<std::int64_t>(retry_s * 1000));
    options.interrupted = Interrupted;
    client_ = ValueOf(ckpt::Client::Connect(std::move(options)));
  }

  // Of a part, "waiting" has the ranks that have not committed.
  nb::dict SavePart(Builder* builder, const std::string& run, std::int64_t epoch, std::optional<std::int64_t> step,
                    std::vector<std::pair<std::string, double>> metrics,
                    std::vector<std::pair<std::string, std::string>> labels, const std::string& primary_metric,
                    const nb::bytes& attempt_key, std::uint32_t rank, std::uint32_t world_size) {
    ckpt::SaveOptions options = Options(run, epoch, step, std::move(metrics), std::move(labels), primary_metric);
    options.part = ckpt::SavePart{std::string(attempt_key.c_str(), attempt_key.size()), rank, world_size, true};
    return SaveState(builder, std::move(options));
  }

  nb::dict Save(Builder& builder, const std::string& run, std::int64_t epoch, std::optional<std::int64_t> step,
                std::vector<std::pair<std::string, double>> metrics,
                std::vector<std::pair<std::string, std::string>> labels, const std::string& primary_metric) {
    return SaveState(&builder, Options(run, epoch, step, std::move(metrics), std::move(labels), primary_metric));
  }

  Restore OpenRestore(const std::string& reference, std::vector<std::string> components,
                      std::vector<std::string> include, bool compare) {
    ckpt::RestoreOptions options;
    options.compare = compare;
    options.reference = reference;
    options.components = std::move(components);
    options.include = std::move(include);
    return Restore(ValueOf(WithoutGil([&] { return client_->OpenRestore(std::move(options)); })));
  }

  void Remember(const std::string& reference) {
    Check(WithoutGil([&] { return client_->Remember(reference); }));
  }

  nb::dict GetCheckpoint(const std::string& reference) {
    return FromCheckpoint(ValueOf(WithoutGil([&] { return client_->GetCheckpoint(reference); })));
  }

  // A page, and what names the next ("" after the last).
  nb::tuple ListCheckpoints(const std::string& run, const nb::bytes& page) {
    const std::string token(page.c_str(), page.size());
    const auto checkpoints = ValueOf(WithoutGil([&] { return client_->ListCheckpoints(run, token); }));
    nb::list out;
    for (const ckpt::v1::Checkpoint& checkpoint : checkpoints.items) out.append(FromCheckpoint(checkpoint));
    return nb::make_tuple(out, Bytes(checkpoints.next));
  }

  nb::tuple ListRuns(const nb::bytes& page) {
    const std::string token(page.c_str(), page.size());
    const auto runs = ValueOf(WithoutGil([&] { return client_->ListRuns(token); }));
    nb::list out;
    for (const ckpt::v1::Run& run : runs.items) out.append(FromRun(run));
    return nb::make_tuple(out, Bytes(runs.next));
  }

 private:
  static ckpt::SaveOptions Options(const std::string& run, std::int64_t epoch, std::optional<std::int64_t> step,
                                   std::vector<std::pair<std::string, double>> metrics,
                                   std::vector<std::pair<std::string, std::string>> labels,
                                   const std::string& primary_metric) {
    ckpt::SaveOptions options;
    options.run = run;
    options.epoch = epoch;
    options.step = step;
    options.metrics = std::move(metrics);
    options.labels = std::move(labels);
    options.primary_metric = primary_metric;
    return options;
  }

  // Without a builder the state is empty.
  nb::dict SaveState(Builder* builder, ckpt::SaveOptions options) {
    const bool part = options.part.has_value();
    const ckpt::SaveResult saved = ValueOf(WithoutGil([&]() -> absl::StatusOr<ckpt::SaveResult> {
      const absl::StatusOr<ckpt::State> state = builder == nullptr ? ckpt::State() : builder->Build();
      if (!state.ok()) return state.status();
      return client_->SaveState(std::move(options), *state);
    }));
    nb::dict out = FromCheckpoint(saved.checkpoint);
    out["sent_bytes"] = saved.sent_bytes;
    out["cited_bytes"] = saved.cited_bytes;
    nb::dict stats;
    stats["fingerprinted_bytes"] = saved.fingerprinted_bytes;
    stats["hashed_bytes"] = saved.hashed_bytes;
    out["stats"] = stats;
    if (part) out["waiting"] = Numbers(saved.waiting);
    return out;
  }

  static nb::dict FromRun(const ckpt::v1::Run& run) {
    nb::dict out;
    out["name"] = run.name();
    out["checkpoint_count"] = run.checkpoint_count();
    out["latest_epoch"] = run.latest_epoch();
    out["best"] = nb::none();
    if (run.has_best()) {
      nb::dict best;
      best["metric"] = FromUtf8(run.best().metric());
      best["value"] = run.best().value();
      best["epoch"] = run.best().epoch();
      best["version"] = run.best().version();
      out["best"] = best;
    }
    out["logical_bytes"] = run.logical_bytes();
    out["stored_bytes"] = run.stored_bytes();
    out["create_time_us"] = Micros(run.create_time());
    out["update_time_us"] = Micros(run.update_time());
    return out;
  }

  std::unique_ptr<ckpt::Client> client_;
};

}  // namespace

NB_MODULE(_native, m) {
  nb::set_leak_warnings(false);  // clients live until the process ends: saves are waited for then
  m.doc() = "The C++ client of ckptd, as the other modules of this package use it.";
  m.attr("__version__") = CKPT_VERSION;

  nb::class_<Builder>(m, "Builder")
      .def(nb::init<>())
      .def("key", &Builder::Key, nb::arg("key").none())
      .def("open", &Builder::Open, nb::arg("kind"), nb::arg("type_name") = "")
      .def("attributes", &Builder::Attributes)
      .def("end", &Builder::End)
      .def("leaf", &Builder::Leaf, nb::arg("kind"), nb::arg("value").none(), nb::arg("type_name") = "")
      .def("tensor", &Builder::Tensor, nb::arg("kind"), nb::arg("number"), nb::arg("type_name") = "")
      .def("add_storage", &Builder::AddStorage, nb::arg("address"), nb::arg("size"))
      .def("add_view", &Builder::AddView, nb::arg("storage"), nb::arg("offset_bytes"), nb::arg("dtype"),
           nb::arg("shape"), nb::arg("strides"), nb::arg("requires_grad"), nb::arg("device"), nb::arg("role"))
      .def("add_boxes", &Builder::AddBoxes, nb::arg("dtype"), nb::arg("shape"), nb::arg("boxes"),
           nb::arg("requires_grad"), nb::arg("device"), nb::arg("role"));

  nb::class_<Restore>(m, "Restore")
      .def("checkpoint", &Restore::Checkpoint)
      .def("nodes", &Restore::Nodes)
      .def("tensors", &Restore::Tensors)
      .def("boxes", &Restore::Boxes)
      .def("pause", &Restore::Pause)
      .def("read_into", &Restore::ReadInto, nb::arg("buffers"))
      .def("fetched_bytes", &Restore::fetched_bytes)
      .def("read_slices", &Restore::ReadSlices, nb::arg("slices"));

  nb::class_<Client>(m, "Client")
      .def(nb::init<const std::string&, const std::string&, double>(), nb::arg("address"), nb::arg("domain"),
           nb::arg("retry_s"))
      .def("save", &Client::Save, nb::arg("builder"), nb::arg("run"), nb::arg("epoch"), nb::arg("step").none(),
           nb::arg("metrics"), nb::arg("labels"), nb::arg("primary_metric"))
      .def("save_part", &Client::SavePart, nb::arg("builder").none(), nb::arg("run"), nb::arg("epoch"),
           nb::arg("step").none(), nb::arg("metrics"), nb::arg("labels"), nb::arg("primary_metric"),
           nb::arg("attempt_key"), nb::arg("rank"), nb::arg("world_size"))
      .def("open_restore", &Client::OpenRestore, nb::arg("reference"), nb::arg("components"), nb::arg("include"),
           nb::arg("compare") = false)
      .def("remember", &Client::Remember, nb::arg("reference"))
      .def("get_checkpoint", &Client::GetCheckpoint, nb::arg("reference"))
      .def("list_checkpoints", &Client::ListCheckpoints, nb::arg("run"), nb::arg("page"))
      .def("list_runs", &Client::ListRuns, nb::arg("page"));

  // Copies (to, from, size in bytes) without the GIL.
  m.def(
      "copy",
      [](const std::vector<std::tuple<std::uintptr_t, std::uintptr_t, std::size_t>>& copies) {
        std::vector<Copy> jobs;
        for (const auto& [to, from, size] : copies) jobs.push_back({to, from, size});
        const nb::gil_scoped_release no_gil;
        CopyAll(jobs);
      },
      nb::arg("copies"));

  // For a child process: what it cannot destroy is never destroyed.
  m.def(
      "leak", [](nb::handle client) { client.inc_ref(); }, nb::arg("client"));
}
