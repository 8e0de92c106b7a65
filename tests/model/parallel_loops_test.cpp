// That this build's loops over LibTorch's threads run on all of them: without OpenMP, or with a second runtime of it,
// they compile and compute the same, slower.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>

namespace qat {
namespace {

// How many threads took part; each waits a while for all others, so that none does the work of another.
size_t threads_of_a_loop(int wanted) {
  at::set_num_threads(wanted);
  std::atomic<int> came = 0;
  std::mutex adding;
  std::set<std::thread::id> threads;
  at::parallel_for(0, wanted, 1, [&](int64_t, int64_t) {
    ++came;
    for (int i = 0; i < 1000 && came < wanted; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::lock_guard lock(adding);
    threads.insert(std::this_thread::get_id());
  });
  return threads.size();
}

TEST(ParallelLoops, RunOnAsManyThreadsAsLibTorchIsSetTo) {
  const int before = at::get_num_threads();
  for (const int wanted : {1, 2, 3}) EXPECT_EQ(threads_of_a_loop(wanted), static_cast<size_t>(wanted));
  at::set_num_threads(before);
}

}  // namespace
}  // namespace qat
