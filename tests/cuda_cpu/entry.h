// How a compiled kernel is entered, and what it is to be given.
#pragma once
#include <type_traits>
#include <utility>

#include "halves.h"
#include "machine.h"

namespace cpu {

// Numbers: i int, l long long, f float, d double. Pointers: I L F D, H half, B bfloat16, ? any other.
template <typename A>
constexpr char code() {
  if (std::is_pointer<A>::value) {
    using T = std::remove_cv_t<std::remove_pointer_t<A>>;
    if (std::is_same<T, int>::value) return 'I';
    if (std::is_same<T, long long>::value) return 'L';
    if (std::is_same<T, float>::value) return 'F';
    if (std::is_same<T, double>::value) return 'D';
    if (std::is_same<T, __half>::value) return 'H';
    return std::is_same<T, __nv_bfloat16>::value ? 'B' : '?';
  }
  if (std::is_same<A, int>::value) return 'i';
  if (std::is_same<A, long long>::value) return 'l';
  if (std::is_same<A, float>::value) return 'f';
  return std::is_same<A, double>::value ? 'd' : '!';
}

template <typename... A, size_t... I>
inline void apply(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
}

template <typename... A>
inline void enter(void (*kernel)(A...), void** arguments) {
  apply(kernel, arguments, std::index_sequence_for<A...>{});
}

template <typename... A>
inline const char* codes(void (*)(A...)) {
  static const char all[] = {code<A>()..., 0};
  return all;
}

}  // namespace cpu

#define SAN_EXPORT extern "C" __attribute__((visibility("default")))
#define SAN_KERNEL(...)                                                               \
  SAN_EXPORT void san_enter(void** arguments) { cpu::enter(&__VA_ARGS__, arguments); } \
  SAN_EXPORT const char* san_codes() { return cpu::codes(&__VA_ARGS__); }             \
  SAN_EXPORT void san_attach(cpu::Machine* machine) { cpu::machine = machine; }
