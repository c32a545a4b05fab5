// Exists to offer the kernels to XLA: two FFI handlers, which check what they are given before
// anything touches it.
#include <sys/mman.h>

#include <cstdint>
#include <string>
#include <vector>

#include "check.h"
#include "dispatch.h"
#include "schedule.h"
#include "xla/ffi/api/ffi.h"

namespace carfac {
namespace {

typedef ffi::Span<const int64_t> Numbers;

// Changes with the handlers' arguments, so that Python code and a stale library cannot meet.
constexpr int64_t kInterface = 1;

struct Options {
  int64_t style, classes, delay, open_loop, linear, interval, threads, isa;
  Numbers decimations, taps, iterations;
};

// Sizes and options; what the arrays disagree about is left to `Check::array`.
Shape shape_of(Check& check, const Options& o, ffi::AnyBuffer audio, ffi::AnyBuffer coefficients,
               ffi::AnyBuffer state, ffi::AnyBuffer window, int64_t frames, ffi::AnyBuffer phase) {
  Shape s{};
  const auto a = audio.dimensions(), c = coefficients.dimensions(), w = window.dimensions();
  const auto v = state.dimensions();
  check.require(a.size() == 3, "audio must be [clips, samples, ears].");
  check.require(c.size() == 3, "coefficients must be [rows, ears, channels].");
  check.require(v.size() >= 4, "the state must be [clips, rows, ears, channels].");
  check.require(w.size() == 2, "the window must be [segments, hop].");
  check.require(phase.element_type() == ffi::S32 && phase.element_count() == 1,
                "phase must be one int32.");
  const size_t stages = o.decimations.size();
  check.require(stages <= kMaxStages, "there are at most 16 stages of gain control.");
  check.require(o.taps.size() == stages && o.iterations.size() == stages,
                "taps and iterations must be given for each stage of gain control.");
  check.require(o.style >= kJustHwr && o.style <= kTwoCapWithSyn, "no such style of hair cell.");
  check.require(o.classes >= 0 && o.classes <= 64, "there are at most 64 fibre classes.");
  check.require((o.style == kTwoCapWithSyn) == (o.classes > 0),
                "fibre classes belong to two_cap_with_syn, and to nothing else.");
  check.require(o.interval >= 1, "checkpoints must be at least one sample apart.");
  if (!check.fine()) return s;
  int64_t period = 1;
  for (size_t k = 0; k < stages; ++k) {
    check.require(o.decimations[k] >= 1 && o.decimations[k] <= (1 << 20),
                  "decimations must be 1 to 2**20.");
    check.require(o.taps[k] == 3 || o.taps[k] == 5, "a smoother has 3 or 5 taps.");
    check.require(o.iterations[k] >= 0 && o.iterations[k] <= 64,
                  "a smoother passes at most 64 times.");
    if (!check.fine()) return s;
    period *= o.decimations[k];
    check.require(period <= (int64_t{1} << 31), "the period of the gain control is too long.");
    if (!check.fine()) return s;
  }
  s.clips = a[0];
  s.samples = a[1];
  s.ears = a[2];
  s.channels = c[2];
  s.stages = static_cast<int64_t>(stages);
  s.classes = o.classes;
  s.style = o.style;
  s.delay = o.delay != 0;
  s.open_loop = o.open_loop != 0;
  s.linear = o.linear != 0;
  s.decimations = o.decimations.begin();
  s.taps = o.taps.begin();
  s.iterations = o.iterations.begin();
  s.segments = w[0];
  s.hop = w[1];
  s.frames = frames;
  s.interval = o.interval;
  s.checkpoints = (s.samples + o.interval - 1) / o.interval;
  s.state_rows = v[v.size() - 3];
  s.coefficient_rows = c[0];
  check.require(s.ears >= 1 && s.channels >= 2, "there must be an ear and two channels.");
  const int64_t ihc = o.style == kJustHwr ? 0 : o.style == kOneCap ? 5 : 8;
  const int64_t synapse = o.classes ? kSynapseRows + kSynapseClassRows * o.classes : 0;
  check.require(s.coefficient_rows == kCarRows + ihc + synapse, "wrong rows of coefficients.");
  const int64_t memories = o.style == kJustHwr ? 0 : 3;
  check.require(s.state_rows == kCarStateRows + memories + 2 * o.classes + 2 * s.stages,
                "wrong rows of state.");
  check.require(frames == 0 || (s.segments >= 1 && s.hop >= 1 && frames * s.hop <= s.samples),
                "frames must lie within the audio.");
  if (!check.fine()) return s;
  s.phase = *static_cast<const int32_t*>(phase.untyped_data()) % period;
  if (s.phase < 0) s.phase += period;
  return s;
}

// Fresh memory comes a page at a time; of large pages a result of 100 MB needs 50, not 25,000.
// Beside a result lies, in XLA's one allocation for all of them, what is made of it next, its
// cotangent for one, which XLA fills itself: as much on either side is to have large pages, too. What
// else may lie there, or nothing at all, is not changed by a hint.
void prefer_large_pages(void* at, size_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = 4096;
  if (!at || bytes < (size_t{4} << 20)) return;
  const uintptr_t first = reinterpret_cast<uintptr_t>(at);
  const uintptr_t from = (first - std::min<uintptr_t>(first, bytes) + kPage - 1) / kPage * kPage;
  const uintptr_t to = (first + 2 * bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(from), to - from, MADV_HUGEPAGE);  // a hint: failure is fine
#else
  (void)at;
  (void)bytes;
#endif
}

// Plans, runs `run` on every task with the memory that `bytes` asks for; false: out of memory.
template <class T, class Bytes, class Run>
bool run_tasks(const Shape& s, const Options& o, ffi::ThreadPool pool, const Bytes& bytes,
               const Run& run) {
  int64_t threads = pool.num_threads();
  if (o.threads > 0) threads = std::min(threads, o.threads);
  threads = std::max<int64_t>(1, threads);
  Plan plan{{}, 0};
  Choice<T> kernels{};
  for (const Choice<T> choice : choices(o.isa, static_cast<const T*>(nullptr))) {
    Plan candidate = share_out(s.clips, choice.wide->lanes, threads);
    if (kernels.wide && candidate.time >= plan.time) continue;
    plan = std::move(candidate);
    kernels = choice;
  }
  std::atomic<bool> starved{false};
  const auto work = [&](int64_t i) {
    const Task task = plan.tasks[static_cast<size_t>(i)];
    const Kernels<T>& k = *(task.by_channel ? kernels.narrow : kernels.wide);
    AlignedMemory memory(bytes(k, task));
    if (!memory.at) {
      starved = true;
      return;
    }
    run(k, task, memory.at);
  };
  run_all(static_cast<int64_t>(plan.tasks.size()), threads, work,
          [&](auto helper) { pool.Schedule(std::move(helper)); });
  return !starved;
}

ffi::Error out_of_memory() {
  return ffi::Error(ffi::ErrorCode::kResourceExhausted, "CAR-FAC: out of memory.");
}

struct ForwardBuffers {
  ffi::AnyBuffer audio, coefficients, agc, state, window, phase;
  ffi::AnyBuffer nap, bm, ohc, agc_out, potential, firings, frames, state_out, checkpoints;
};

template <class T>
ffi::Error forward(ffi::ThreadPool pool, const Options& o, const ForwardBuffers& b) {
  Check check;
  const int64_t frames = b.frames.element_count() ? b.frames.dimensions()[1] : 0;
  Forward<T> f{};
  f.shape = shape_of(check, o, b.audio, b.coefficients, b.state, b.window, frames, b.phase);
  if (!check.fine()) return check.error();
  const Shape& s = f.shape;
  const Dims trace{s.clips, s.samples, s.ears, s.channels};
  const Dims state{s.clips, s.state_rows, s.ears, s.channels};
  f.in.audio = check.array<T>("audio", b.audio, {s.clips, s.samples, s.ears});
  f.in.coefficients =
      check.array<T>("coefficients", b.coefficients, {s.coefficient_rows, s.ears, s.channels});
  f.in.agc = check.array<T>("coefficients of the gain control", b.agc,
                            {kAgcStageRows * s.stages + kAgcSharedRows, s.ears});
  f.in.state = check.array<T>("the state", b.state, state);
  f.in.window = check.array<T>("the window", b.window, {s.segments, s.hop});
  f.out.nap = check.optional<T>("nap", b.nap, trace);
  f.out.bm = check.optional<T>("bm", b.bm, trace);
  f.out.ohc = check.optional<T>("ohc", b.ohc, trace);
  f.out.agc = check.optional<T>("agc", b.agc_out, trace);
  f.out.potential = check.optional<T>("receptor_potential", b.potential, trace);
  f.out.firings = check.optional<T>("firings", b.firings,
                                    {s.clips, s.samples, s.ears, s.channels, s.classes});
  f.out.frames =
      check.optional<T>("frames", b.frames, {s.clips, frames, s.segments, s.ears, s.channels});
  f.state = check.array<T>("the state after", b.state_out, state);
  f.checkpoints = check.optional<T>(
      "checkpoints", b.checkpoints,
      {s.checkpoints, s.clips, s.state_rows, s.ears, s.channels});
  if (!check.fine()) return check.error();
  for (ffi::AnyBuffer out : {b.nap, b.bm, b.ohc, b.agc_out, b.potential, b.firings, b.frames,
                             b.checkpoints}) {
    prefer_large_pages(out.untyped_data(), out.size_bytes());
  }
  const bool done = run_tasks<T>(
      s, o, pool, [&](const Kernels<T>& k, Task t) { return k.forward_bytes(f, t); },
      [&](const Kernels<T>& k, Task t, void* memory) { k.forward(f, t, memory); });
  return done ? ffi::Error::Success() : out_of_memory();
}

struct BackwardBuffers {
  ffi::AnyBuffer audio, coefficients, agc, window, phase, checkpoints;
  ffi::AnyBuffer nap, bm, ohc, agc_out, potential, firings, frames, state;
  ffi::AnyBuffer audio_bar, coefficients_bar, agc_bar, state_bar;
};

template <class T>
ffi::Error backward(ffi::ThreadPool pool, const Options& o, const BackwardBuffers& b) {
  Check check;
  const int64_t frames = b.frames.element_count() ? b.frames.dimensions()[1] : 0;
  Backward<T> f{};
  f.shape = shape_of(check, o, b.audio, b.coefficients, b.state, b.window, frames, b.phase);
  if (!check.fine()) return check.error();
  const Shape& s = f.shape;
  const Dims trace{s.clips, s.samples, s.ears, s.channels};
  const Dims state{s.clips, s.state_rows, s.ears, s.channels};
  const Dims audio{s.clips, s.samples, s.ears};
  const Dims coefficients{s.coefficient_rows, s.ears, s.channels};
  const int64_t agc_rows = kAgcStageRows * s.stages + kAgcSharedRows;
  f.in.audio = check.array<T>("audio", b.audio, audio);
  f.in.coefficients = check.array<T>("coefficients", b.coefficients, coefficients);
  f.in.agc = check.array<T>("coefficients of the gain control", b.agc, {agc_rows, s.ears});
  f.in.window = check.array<T>("the window", b.window, {s.segments, s.hop});
  f.checkpoints = check.array<T>(
      "checkpoints", b.checkpoints,
      {s.checkpoints, s.clips, s.state_rows, s.ears, s.channels});
  f.out.nap = check.optional<T>("nap", b.nap, trace);
  f.out.bm = check.optional<T>("bm", b.bm, trace);
  f.out.ohc = check.optional<T>("ohc", b.ohc, trace);
  f.out.agc = check.optional<T>("agc", b.agc_out, trace);
  f.out.potential = check.optional<T>("receptor_potential", b.potential, trace);
  f.out.firings = check.optional<T>("firings", b.firings,
                                    {s.clips, s.samples, s.ears, s.channels, s.classes});
  f.out.frames =
      check.optional<T>("frames", b.frames, {s.clips, frames, s.segments, s.ears, s.channels});
  f.state = check.array<T>("the cotangent of the state", b.state, state);
  f.audio_bar = check.array<T>("the gradient of the audio", b.audio_bar, audio);
  T* const coefficients_bar =
      check.array<T>("the gradient of coefficients", b.coefficients_bar, coefficients);
  T* const agc_bar = check.array<T>("the gradient of gain control", b.agc_bar, {agc_rows, s.ears});
  f.state_bar = check.array<T>("the gradient of the state", b.state_bar, state);
  if (!check.fine()) return check.error();
  const int64_t rows = s.coefficient_rows + agc_rows, row = s.ears * s.channels;
  AlignedMemory sums(static_cast<size_t>(s.clips * rows * row) * sizeof(double));
  if (s.clips && !sums.at) return out_of_memory();
  f.sums = static_cast<double*>(sums.at);
  prefer_large_pages(f.audio_bar, b.audio_bar.size_bytes());
  const bool done = run_tasks<T>(
      s, o, pool, [&](const Kernels<T>& k, Task t) { return k.backward_bytes(f, t); },
      [&](const Kernels<T>& k, Task t, void* memory) { k.backward(f, t, memory); });
  if (!done) return out_of_memory();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t e = 0; e < s.ears; ++e) {
      double over_channels = 0;
      for (int64_t c = 0; c < s.channels; ++c) {
        double sum = 0;
        for (int64_t clip = 0; clip < s.clips; ++clip) {
          sum += f.sums[((clip * rows + r) * s.ears + e) * s.channels + c];
        }
        if (r < s.coefficient_rows) {
          coefficients_bar[r * row + e * s.channels + c] = static_cast<T>(sum);
        } else {
          over_channels += sum;
        }
      }
      if (r >= s.coefficient_rows) {
        agc_bar[(r - s.coefficient_rows) * s.ears + e] = static_cast<T>(over_channels);
      }
    }
  }
  return ffi::Error::Success();
}

typedef ffi::Result<ffi::AnyBuffer> Out;

ffi::Error forward_any(ffi::ThreadPool pool, ffi::AnyBuffer audio, ffi::AnyBuffer coefficients,
                       ffi::AnyBuffer agc, ffi::AnyBuffer state, ffi::AnyBuffer window,
                       ffi::AnyBuffer phase, Out nap, Out bm, Out ohc, Out agc_out, Out potential,
                       Out firings, Out frames, Out state_out, Out checkpoints, int64_t style,
                       int64_t classes, int64_t delay, int64_t open_loop, int64_t linear,
                       int64_t interval, int64_t threads, int64_t isa, Numbers decimations,
                       Numbers taps, Numbers iterations) {
  const Options o{style,   classes, delay, open_loop,   linear, interval,
                  threads, isa,     decimations, taps, iterations};
  const ForwardBuffers b{audio, coefficients, agc,        state,    window,  phase,      *nap, *bm,
                         *ohc,  *agc_out,     *potential, *firings, *frames, *state_out, *checkpoints};
  if (audio.element_type() == ffi::F64) return forward<double>(pool, o, b);
  return forward<float>(pool, o, b);
}

ffi::Error backward_any(ffi::ThreadPool pool, ffi::AnyBuffer audio, ffi::AnyBuffer coefficients,
                        ffi::AnyBuffer agc, ffi::AnyBuffer window, ffi::AnyBuffer phase,
                        ffi::AnyBuffer checkpoints, ffi::AnyBuffer nap, ffi::AnyBuffer bm,
                        ffi::AnyBuffer ohc, ffi::AnyBuffer agc_out, ffi::AnyBuffer potential,
                        ffi::AnyBuffer firings, ffi::AnyBuffer frames, ffi::AnyBuffer state,
                        Out audio_bar, Out coefficients_bar, Out agc_bar, Out state_bar,
                        int64_t style, int64_t classes, int64_t delay, int64_t open_loop,
                        int64_t linear, int64_t interval, int64_t threads, int64_t isa,
                        Numbers decimations, Numbers taps, Numbers iterations) {
  const Options o{style,   classes, delay, open_loop,   linear, interval,
                  threads, isa,     decimations, taps, iterations};
  const BackwardBuffers b{audio, coefficients, agc,       window,  phase,  checkpoints,
                          nap,   bm,           ohc,       agc_out, potential, firings,
                          frames, state,       *audio_bar, *coefficients_bar, *agc_bar, *state_bar};
  if (audio.element_type() == ffi::F64) return backward<double>(pool, o, b);
  return backward<float>(pool, o, b);
}

template <class Binding>
auto with_options(Binding binding) {
  return std::move(binding)
      .template Attr<int64_t>("style")
      .template Attr<int64_t>("classes")
      .template Attr<int64_t>("delay")
      .template Attr<int64_t>("open_loop")
      .template Attr<int64_t>("linear")
      .template Attr<int64_t>("interval")
      .template Attr<int64_t>("threads")
      .template Attr<int64_t>("isa")
      .template Attr<Numbers>("decimations")
      .template Attr<Numbers>("taps")
      .template Attr<Numbers>("iterations");
}

}  // namespace

XLA_FFI_DEFINE_HANDLER(kForward, forward_any,
                       with_options(ffi::Ffi::Bind()
                                        .Ctx<ffi::ThreadPool>()
                                        .Arg<ffi::AnyBuffer>()  // audio
                                        .Arg<ffi::AnyBuffer>()  // coefficients
                                        .Arg<ffi::AnyBuffer>()  // of the gain control
                                        .Arg<ffi::AnyBuffer>()  // state
                                        .Arg<ffi::AnyBuffer>()  // window
                                        .Arg<ffi::AnyBuffer>()  // phase
                                        .Ret<ffi::AnyBuffer>()  // nap
                                        .Ret<ffi::AnyBuffer>()  // bm
                                        .Ret<ffi::AnyBuffer>()  // ohc
                                        .Ret<ffi::AnyBuffer>()  // agc
                                        .Ret<ffi::AnyBuffer>()  // receptor potential
                                        .Ret<ffi::AnyBuffer>()  // firings
                                        .Ret<ffi::AnyBuffer>()  // frames
                                        .Ret<ffi::AnyBuffer>()  // state
                                        .Ret<ffi::AnyBuffer>()  // checkpoints
                                    ));

XLA_FFI_DEFINE_HANDLER(kBackward, backward_any,
                       with_options(ffi::Ffi::Bind()
                                        .Ctx<ffi::ThreadPool>()
                                        .Arg<ffi::AnyBuffer>()  // audio
                                        .Arg<ffi::AnyBuffer>()  // coefficients
                                        .Arg<ffi::AnyBuffer>()  // of the gain control
                                        .Arg<ffi::AnyBuffer>()  // window
                                        .Arg<ffi::AnyBuffer>()  // phase
                                        .Arg<ffi::AnyBuffer>()  // checkpoints
                                        .Arg<ffi::AnyBuffer>()  // cotangents: nap
                                        .Arg<ffi::AnyBuffer>()  // bm
                                        .Arg<ffi::AnyBuffer>()  // ohc
                                        .Arg<ffi::AnyBuffer>()  // agc
                                        .Arg<ffi::AnyBuffer>()  // receptor potential
                                        .Arg<ffi::AnyBuffer>()  // firings
                                        .Arg<ffi::AnyBuffer>()  // frames
                                        .Arg<ffi::AnyBuffer>()  // state
                                        .Ret<ffi::AnyBuffer>()  // gradients: audio
                                        .Ret<ffi::AnyBuffer>()  // coefficients
                                        .Ret<ffi::AnyBuffer>()  // of the gain control
                                        .Ret<ffi::AnyBuffer>()  // state
                                    ));

}  // namespace carfac

#define HYBRID_EXPORT extern "C" __attribute__((visibility("default")))

HYBRID_EXPORT XLA_FFI_Error* hybrid_carfac_forward(XLA_FFI_CallFrame* frame) {
  return carfac::kForward(frame);
}
HYBRID_EXPORT XLA_FFI_Error* hybrid_carfac_backward(XLA_FFI_CallFrame* frame) {
  return carfac::kBackward(frame);
}
HYBRID_EXPORT int64_t hybrid_carfac_interface() { return carfac::kInterface; }
HYBRID_EXPORT int64_t hybrid_carfac_isa() { return carfac::best_isa(); }
