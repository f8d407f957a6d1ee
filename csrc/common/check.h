// Refusing an argument: the message alone, which names the op and the argument. torch's own macro puts the C++ function
// and the path of its file, on the machine that built it, before the sentence.
#pragma once
#include <sstream>
#include <stdexcept>

namespace structops {

template <class... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream sentence;
  (sentence << ... << parts);
  throw std::runtime_error(sentence.str());
}

}  // namespace structops

// The sentence, in parts, is put together only when the condition fails.
#define STRUCTOPS_CHECK(condition, ...)                 \
  do {                                                  \
    if (!(condition)) ::structops::refuse(__VA_ARGS__); \
  } while (false)
