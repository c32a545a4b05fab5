// Exists to make the table of kernels of one instruction set out of the templates.
#pragma once

#include "backward.h"
#include "forward.h"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace carfac {
namespace HYBRID_ISA {

// Filters that ring down reach subnormal numbers, which processors handle a hundred times more
// slowly; XLA flushes them too. Puts the caller's mode back.
class FlushSubnormals {
 public:
#if defined(__SSE2__)
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_;
#else
  FlushSubnormals() {}
#endif
};

template <class L, int kStyle>
struct Entry {
  typedef typename L::T T;
  template <class TaskType, class Problem>
  static size_t bytes(const Problem& problem, Task task) {
    return TaskType(problem, task, nullptr).arena.used();
  }
  template <class TaskType, class Problem>
  static void run(const Problem& problem, Task task, void* memory) {
    FlushSubnormals flush;
    TaskType(problem, task, memory).run();
  }
};

// kByChannel: whether tasks by channel are compiled; if not, none must come.
template <class T, int kLanes, bool kByChannel, template <class, int> class TaskType,
          class Problem>
struct Dispatch {
  template <class Use>
  static auto pick(const Problem& p, Task task, Use use) {
    if constexpr (kByChannel) {
      if (task.by_channel) return style<Lanes<T, kLanes, false>>(p, use);
    }
    return style<Lanes<T, kLanes, true>>(p, use);
  }
  static size_t bytes(const Problem& p, Task task) {
    return pick(p, task, [&](auto entry, auto* type) {
      return entry.template bytes<std::remove_pointer_t<decltype(type)>>(p, task);
    });
  }
  static void run(const Problem& p, Task task, void* memory) {
    pick(p, task, [&](auto entry, auto* type) {
      entry.template run<std::remove_pointer_t<decltype(type)>>(p, task, memory);
      return size_t(0);
    });
  }

 private:
  template <class L, class Use>
  static size_t style(const Problem& p, Use use) {
    switch (p.shape.style) {
      case kJustHwr:
        return use(Entry<L, kJustHwr>(), static_cast<TaskType<L, kJustHwr>*>(nullptr));
      case kOneCap:
        return use(Entry<L, kOneCap>(), static_cast<TaskType<L, kOneCap>*>(nullptr));
      case kTwoCap:
        return use(Entry<L, kTwoCap>(), static_cast<TaskType<L, kTwoCap>*>(nullptr));
      default:
        return use(Entry<L, kTwoCapWithSyn>(),
                   static_cast<TaskType<L, kTwoCapWithSyn>*>(nullptr));
    }
  }
};

template <class T, int kLanes, bool kByChannel = true>
constexpr Kernels<T> kernels() {
  typedef Dispatch<T, kLanes, kByChannel, ForwardTask, Forward<T>> Forwards;
  typedef Dispatch<T, kLanes, kByChannel, BackwardTask, Backward<T>> Backwards;
  return {kLanes, &Forwards::bytes, &Forwards::run, &Backwards::bytes, &Backwards::run};
}

}  // namespace HYBRID_ISA
}  // namespace carfac
