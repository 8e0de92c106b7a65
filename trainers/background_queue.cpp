#include "trainers/background_queue.h"

#include <utility>

namespace qat {

BackgroundQueue::BackgroundQueue() : thread_([this] { work(); }) {}

BackgroundQueue::~BackgroundQueue() {
  {
    const std::lock_guard lock(lock_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void BackgroundQueue::push(std::function<void()> task) {
  {
    const std::lock_guard lock(lock_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
}

void BackgroundQueue::wait() {
  std::unique_lock lock(lock_);
  changed_.wait(lock, [this] { return !busy_ && tasks_.empty(); });
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void BackgroundQueue::work() {
  std::unique_lock lock(lock_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !tasks_.empty(); });
    if (ending_) return;
    const auto task = std::move(tasks_.front());
    tasks_.pop_front();
    const bool wanted = !failure_;
    busy_ = true;
    lock.unlock();
    std::exception_ptr failure;
    try {
      if (wanted) task();
    } catch (...) {
      failure = std::current_exception();
    }
    lock.lock();
    busy_ = false;
    if (failure) failure_ = failure;
    changed_.notify_all();
  }
}

}  // namespace qat
