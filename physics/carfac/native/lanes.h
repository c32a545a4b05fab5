// Exists to say what a lane is, a clip or a channel, and to bring rows of the caller's arrays into
// that order and back.
#pragma once

#include "problem.h"
#include "simd.h"

namespace carfac {
namespace HYBRID_ISA {

// A tile holds one number for each channel and lane: `positions` vectors. With clips in the lanes
// there is one vector for each channel; else channels follow one another through the lanes, and
// the last vector is filled up with channels that do not exist, whose coefficients are zero.
template <class Element, int kLanes_, bool kClips_>
struct Lanes {
  typedef Element T;
  static constexpr int kLanes = kLanes_;
  static constexpr bool kClips = kClips_;
  typedef Vector<T, kLanes> V;
  // Coefficients: the same for all clips, or another for each channel.
  typedef std::conditional_t<kClips, T, V> K;
  // From one channel to the next within a tile; also the clips of a task, at most.
  static constexpr int64_t kStep = kClips ? kLanes : 1;
  // Numbers kept free on either side of a tile, for two neighbours past the ends.
  static constexpr int64_t kHalo = kClips ? 2 * kLanes : kLanes;

  static int64_t positions(int64_t channels) {
    return kClips ? channels : (channels + kLanes - 1) / kLanes;
  }

  // Reads `from[clip * clip_stride + channel]`; lanes and channels that do not exist become zero.
  static void read(T* tile, const T* from, int64_t clip_stride, int64_t clips, int64_t channels) {
    if constexpr (kClips) {
      for (int64_t c = 0; c < channels; c += kLanes) {
        // The last block overlaps the one before it rather than reach past the end.
        const int64_t first = c + kLanes <= channels ? c : channels - kLanes;
        V rows[kLanes];
        if (first >= 0) {
          for (int l = 0; l < kLanes; ++l) {
            rows[l] = l < clips ? load<V>(from + l * clip_stride + first) : splat<V>(0);
          }
          transpose<kLanes>(rows);
          for (int i = 0; i < kLanes; ++i) store(tile + (first + i) * kLanes, rows[i]);
        } else {
          for (int64_t i = 0; i < channels; ++i) {
            for (int l = 0; l < kLanes; ++l) {
              tile[i * kLanes + l] = l < clips ? from[l * clip_stride + i] : T(0);
            }
          }
        }
      }
    } else {
      std::memcpy(tile, from, channels * sizeof(T));
      const int64_t end = positions(channels) * kLanes;
      for (int64_t c = channels; c < end; ++c) tile[c] = 0;
    }
  }

  // The opposite of `read`.
  static void write(const T* tile, T* to, int64_t clip_stride, int64_t clips, int64_t channels) {
    if constexpr (kClips) {
      for (int64_t c = 0; c < channels; c += kLanes) {
        const int64_t first = c + kLanes <= channels ? c : channels - kLanes;
        V rows[kLanes];
        if (first >= 0) {
          for (int i = 0; i < kLanes; ++i) rows[i] = load<V>(tile + (first + i) * kLanes);
          transpose<kLanes>(rows);
          for (int l = 0; l < clips; ++l) store(to + l * clip_stride + first, rows[l]);
        } else {
          for (int64_t i = 0; i < channels; ++i) {
            for (int l = 0; l < clips; ++l) to[l * clip_stride + i] = tile[i * kLanes + l];
          }
        }
      }
    } else {
      std::memcpy(to, tile, channels * sizeof(T));
    }
  }
};

// Hands out parts of one block of memory; with a null base it only measures.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <class T>
  T* take(int64_t count) {
    char* const at = base_ ? base_ + used_ : nullptr;
    used_ += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(at);
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

}  // namespace HYBRID_ISA
}  // namespace carfac
