// A thread that does one task after another while its owner goes on.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace qat {

class BackgroundQueue {
 public:
  BackgroundQueue();
  // Leaves out tasks that have not begun.
  ~BackgroundQueue();
  BackgroundQueue(const BackgroundQueue&) = delete;
  BackgroundQueue& operator=(const BackgroundQueue&) = delete;

  void push(std::function<void()> task);
  // Returns when all tasks are done. Throws what the first one threw that failed; those after it are left out.
  void wait();

 private:
  void work();

  std::mutex lock_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  std::exception_ptr failure_;
  bool busy_ = false;
  bool ending_ = false;
  std::thread thread_;
};

}  // namespace qat
