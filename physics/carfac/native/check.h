// Exists to say what is wrong with the arrays that XLA hands over, before anything touches them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace carfac {

namespace ffi = xla::ffi;
typedef std::vector<int64_t> Dims;

// Collects the first complaint.
class Check {
 public:
  void require(bool fine, const std::string& rule) {
    if (!fine && complaint_.empty()) complaint_ = rule;
  }
  // Pointer to a buffer of that type and shape; null if it has no elements.
  template <class T>
  T* array(const char* name, ffi::AnyBuffer buffer, const Dims& dims) {
    const ffi::DataType type = sizeof(T) == 4 ? ffi::F32 : ffi::F64;
    require(buffer.element_type() == type,
            std::string(name) + " must have the type of the audio, float32 or float64.");
    const auto got = buffer.dimensions();
    if (got.size() != dims.size() || !std::equal(dims.begin(), dims.end(), got.begin())) {
      require(false, std::string(name) + " must have shape " + text(dims) + "; got " +
                         text(Dims(got.begin(), got.end())) + ".");
    }
    return buffer.element_count() ? static_cast<T*>(buffer.untyped_data()) : nullptr;
  }
  // The same for what may be left out by giving it no elements.
  template <class T>
  T* optional(const char* name, ffi::AnyBuffer buffer, const Dims& dims) {
    return buffer.element_count() ? array<T>(name, buffer, dims) : nullptr;
  }
  bool fine() const { return complaint_.empty(); }
  ffi::Error error() const {
    return fine() ? ffi::Error::Success() : ffi::Error::InvalidArgument("CAR-FAC: " + complaint_);
  }

 private:
  static std::string text(const Dims& dims) {
    std::string s = "[";
    for (size_t i = 0; i < dims.size(); ++i) s += (i ? ", " : "") + std::to_string(dims[i]);
    return s + "]";
  }
  std::string complaint_;
};

}  // namespace carfac
