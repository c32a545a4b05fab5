// Exists to say what is computed: sizes, options and plain pointers into the caller's buffers.
//
// Plain data without functions, so that it may be shared between translation units that are
// compiled for different processors. Arrays are C-contiguous. Letters: B clips, T samples, E ears,
// C channels, S gain control stages, K fibre classes, F frames, M segments of a window,
// N checkpoints, V rows of the state, P rows of coefficients.
#pragma once

#include <cstddef>
#include <cstdint>

namespace carfac {

enum Style : int64_t { kJustHwr = 0, kOneCap = 1, kTwoCap = 2, kTwoCapWithSyn = 3 };

// Rows of coefficients ahead of the inner hair cells', in the order of `CarCoefficients` below.
constexpr int64_t kCarRows = 12;
// Rows of state ahead of the inner hair cells', in the order of `CarState`.
constexpr int64_t kCarStateRows = 9;
// Rows per class and per channel of the synapse's coefficients.
constexpr int64_t kSynapseRows = 6;
constexpr int64_t kSynapseClassRows = 3;
// Rows of gain control coefficients for each stage; after them come two rows for all stages.
constexpr int64_t kAgcStageRows = 5;
constexpr int64_t kAgcSharedRows = 2;
constexpr int64_t kMaxStages = 16;

struct Shape {
  int64_t clips, samples, ears, channels, stages, classes;
  int64_t style;
  bool delay, open_loop, linear;
  const int64_t* decimations;  // [S]
  const int64_t* taps;         // [S], 3 or 5
  const int64_t* iterations;   // [S]
  int64_t phase;               // samples so far, modulo the product of the decimations
  int64_t hop, segments, frames;  // hop 0: no frames
  int64_t interval, checkpoints;  // samples from one checkpoint to the next, and how many
  int64_t state_rows, coefficient_rows;
};

// What a run may give, `[B, T, E, C]` (firings `[..., K]`), each null where it is not wanted.
template <class T>
struct Traces {
  T* nap = nullptr;
  T* bm = nullptr;
  T* ohc = nullptr;
  T* agc = nullptr;
  T* potential = nullptr;
  T* firings = nullptr;
  T* frames = nullptr;  // [B, F, M, E, C], sums of nap over each hop, weighed by `window`
};

template <class T>
struct Inputs {
  const T* audio;         // [B, T, E]
  const T* coefficients;  // [P, E, C]
  const T* agc;           // [5 S + 2, E]
  const T* state;         // [B, V, E, C]
  const T* window;        // [M, hop]
};

template <class T>
struct Forward {
  Shape shape;
  Inputs<T> in;
  Traces<T> out;
  T* state;        // [B, V, E, C], after the last sample
  T* checkpoints;  // [N, B, V, E, C], or null; the state before sample n * interval
};

template <class T>
struct Backward {
  Shape shape;
  Inputs<T> in;          // in.state is not used: checkpoint 0 is the same
  const T* checkpoints;  // [N, B, V, E, C]
  Traces<const T> out;   // cotangents; null is zero
  const T* state;        // cotangent of the state after the last sample
  T* audio_bar;          // [B, T, E]
  T* state_bar;          // [B, V, E, C]
  double* sums;          // [B, P + 5 S + 2, E, C], what each clip adds to coefficients' gradients
};

// Clips that one thread takes at once: up to as many as there are lanes, or one whose channels
// share the lanes.
struct Task {
  int64_t first, count;
  bool by_channel;
};

// The kernels, compiled for one instruction set.
template <class T>
struct Kernels {
  int64_t lanes;  // of a task that is not by channel
  size_t (*forward_bytes)(const Forward<T>&, Task);
  void (*forward)(const Forward<T>&, Task, void* memory);
  size_t (*backward_bytes)(const Backward<T>&, Task);
  void (*backward)(const Backward<T>&, Task, void* memory);
};

}  // namespace carfac
