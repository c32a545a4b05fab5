// Exists to share a batch out: which clips make a task, and which thread takes it.
//
// Results do not depend on the sharing: lanes do the same arithmetic whether they hold clips or
// channels, each clip sums its own part of the coefficients' gradients, and those parts are added
// in the order of the clips.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "problem.h"

namespace carfac {

// What a clip costs whose channels share the lanes, when a full task of 8 clips costs 1; measured.
constexpr double kClipByChannel = 0.22;

struct Plan {
  std::vector<Task> tasks;
  double time;  // until the last thread is done, in the unit of `kClipByChannel`
};

// Splits `clips` into tasks so that `threads` threads finish soon.
inline Plan share_out(int64_t clips, int64_t lanes, int64_t threads) {
  const double by_clip = lanes > 8 ? 1.6 : 1.0;  // wide vectors cost more each, less per clip
  const double by_channel = lanes < 8 ? kClipByChannel * 2 : kClipByChannel;
  int64_t best = 0;
  double best_time = 0;
  for (int64_t groups = 0; groups <= (clips + lanes - 1) / lanes; ++groups) {
    const int64_t single = std::max<int64_t>(0, clips - groups * lanes);
    // Groups go first, one to each thread in turn; the single clips then fill up what is left.
    const double busiest = static_cast<double>((groups + threads - 1) / threads) * by_clip;
    const double even = (groups * by_clip + single * by_channel) / static_cast<double>(threads);
    const double last = single ? by_channel * 0.5 : 0;
    const double time = std::max(busiest, even + last);
    if (groups == 0 || time < best_time) {
      best = groups;
      best_time = time;
    }
  }
  std::vector<Task> tasks;
  int64_t at = 0;
  for (int64_t g = 0; g < best; ++g) {
    // The last groups need not be full; even ones waste least.
    const int64_t grouped = std::min(clips, best * lanes);
    const int64_t end = grouped * (g + 1) / best;
    tasks.push_back({at, end - at, false});
    at = end;
  }
  for (; at < clips; ++at) tasks.push_back({at, 1, true});
  return {std::move(tasks), best_time};
}

// Memory aligned for any vector; null if there is none to be had.
struct AlignedMemory {
  explicit AlignedMemory(size_t bytes)
      : at(bytes ? std::aligned_alloc(64, (bytes + 63) / 64 * 64) : nullptr) {}
  ~AlignedMemory() { std::free(at); }
  AlignedMemory(const AlignedMemory&) = delete;
  AlignedMemory& operator=(const AlignedMemory&) = delete;
  void* const at;
};

// Runs work(0), ..., work(count - 1), each once, on the calling thread and on helpers.
//
// The caller never waits for a helper to begin, only for those that have begun to end, so it does
// not matter if all threads of the pool are busy, with calls like this one, say.
//   schedule: hands a void() to a thread of the pool, some time.
template <class Work, class Schedule>
void run_all(int64_t count, int64_t threads, const Work& work, Schedule&& schedule) {
  struct Shared {
    std::atomic<int64_t> next{0};
    std::mutex mutex;
    std::condition_variable changed;
    int64_t inside = 0;  // helpers at work
    bool closed = false;
    const Work* work = nullptr;
    int64_t count = 0;
    void drain() {
      for (int64_t i; (i = next.fetch_add(1)) < count;) (*work)(i);
    }
  };
  const auto shared = std::make_shared<Shared>();
  shared->work = &work;
  shared->count = count;
  for (int64_t h = 1; h < std::min(count, threads); ++h) {
    schedule([shared] {
      {
        std::lock_guard<std::mutex> lock(shared->mutex);
        if (shared->closed) return;  // too late: the caller and its `work` may be gone
        ++shared->inside;
      }
      shared->drain();
      std::lock_guard<std::mutex> lock(shared->mutex);
      --shared->inside;
      shared->changed.notify_one();
    });
  }
  shared->drain();
  std::unique_lock<std::mutex> lock(shared->mutex);
  shared->closed = true;
  shared->changed.wait(lock, [&] { return shared->inside == 0; });
}

}  // namespace carfac
