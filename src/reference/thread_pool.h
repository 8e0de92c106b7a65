// A fixed set of threads that share the iterations of loops. Results never depend on how many there are.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace qat {

class ThreadPool {
 public:
  // `threads` counts the caller; 0 = one per processor.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Calls body(0) ... body(count - 1), each once, on all threads; returns when all are done. The first exception that a
  // body threw is thrown again here. One loop at a time.
  void run(int64_t count, const std::function<void(int64_t)>& body);

 private:
  void work();
  // Runs iterations of the current loop as long as there are any; `lock` is held before and after.
  void take_iterations(std::unique_lock<std::mutex>& lock);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable done_;
  const std::function<void(int64_t)>* body_ = nullptr;
  int64_t count_ = 0;
  int64_t next_ = 0;
  int64_t running_ = 0;  // iterations that were taken and are not done
  bool stop_ = false;
  std::exception_ptr error_;
};

}  // namespace qat
