// Python module _cuda_on_cpu: loads an emulated library and calls its launchers.
#include <dlfcn.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>

#include "library.h"

namespace py = pybind11;

namespace {

using cuda_on_cpu::Argument;

// Device memory: aligned as cudaMalloc aligns, and exactly as long as asked, so that AddressSanitizer's red zone begins
// with the first byte past the end.
class DeviceMemory {
 public:
  explicit DeviceMemory(std::string_view bytes) : size_(bytes.size()) {
    if (size_ == 0) return;  // null, as for an empty tensor
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, size_) != 0) throw std::bad_alloc();
    std::memcpy(memory, bytes.data(), size_);
    buffer_.data = memory;
  }
  DeviceMemory(const DeviceMemory&) = delete;
  ~DeviceMemory() { std::free(buffer_.data); }
  cuda_on_cpu::Buffer* buffer() { return &buffer_; }
  py::object contents() const {
    if (!buffer_.written) return py::none();
    return py::bytes(static_cast<const char*>(buffer_.data), size_);
  }

 private:
  cuda_on_cpu::Buffer buffer_;
  std::size_t size_;
};

class Library {
 public:
  explicit Library(const std::string& path) {
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) throw std::runtime_error(dlerror());
    auto* entry = reinterpret_cast<decltype(&cuda_on_cpu_library)>(dlsym(handle, "cuda_on_cpu_library"));
    if (entry == nullptr) throw std::runtime_error(path + " is not an emulated library");
    library_ = entry();
  }

  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& [name, launcher] : library_->launchers()) all.push_back(name);
    return all;
  }

  // arguments: int, float, None, or bytes for a buffer.
  // Returns (report, value, contents after the call of each buffer, None where it could not be written; what was done,
  // by name).
  py::tuple call(const std::string& name, const py::list& arguments, int order, unsigned seed) const {
    const auto found = library_->launchers().find(name);
    if (found == library_->launchers().end()) throw py::key_error("no launcher is called " + name);
    std::deque<DeviceMemory> memory;
    std::vector<Argument> values;
    for (const py::handle& a : arguments) {
      if (a.is_none()) {
        values.emplace_back(std::monostate());
      } else if (py::isinstance<py::bytes>(a)) {
        values.emplace_back(memory.emplace_back(a.cast<std::string_view>()).buffer());
      } else if (py::isinstance<py::float_>(a)) {
        values.emplace_back(a.cast<double>());
      } else {
        values.emplace_back(a.cast<std::int64_t>());
      }
    }
    library_->set_order(order, seed);
    const cuda_on_cpu::Counts before = library_->counts();
    cuda_on_cpu::Arguments list(std::move(values));
    const cuda_on_cpu::Outcome outcome = found->second(list);
    py::list contents;
    for (const DeviceMemory& m : memory) contents.append(m.contents());
    const std::string report = outcome.status == cudaSuccess ? "" : library_->error();
    return py::make_tuple(report, outcome.value, contents, difference(library_->counts(), before));
  }

 private:
  static py::dict difference(const cuda_on_cpu::Counts& now, const cuda_on_cpu::Counts& before) {
    py::dict done;
    done["launches"] = now.launches - before.launches;
    done["products"] = now.products - before.products;
    done["fragments"] = now.fragments - before.fragments;
    done["copies"] = now.copies - before.copies;
    done["copied"] = now.copied - before.copied;
    return done;
  }

  const cuda_on_cpu::Library* library_;
};

}  // namespace

PYBIND11_MODULE(_cuda_on_cpu, m) {
  py::class_<Library>(m, "Library")
      .def(py::init<const std::string&>())
      .def("names", &Library::names)
      .def("call", &Library::call);
}
