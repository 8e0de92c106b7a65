// Counts the bytes of tensors: a figure of memory that does not depend on the machine, its load or malloc.
#pragma once

#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <cstdint>
#include <cstring>

namespace qat::testing {

// For its lifetime every new CPU tensor is counted. One at a time; tensors may outlive it.
class CountingAllocator final : public c10::Allocator {
 public:
  CountingAllocator() : before_(c10::GetCPUAllocator()) {
    now_ = peak_ = 0;
    c10::SetCPUAllocator(this);
  }
  ~CountingAllocator() override { c10::SetCPUAllocator(before_); }
  CountingAllocator(const CountingAllocator&) = delete;
  CountingAllocator& operator=(const CountingAllocator&) = delete;

  // Bytes of tensors made since the start that still exist, now and at most.
  int64_t bytes() const { return now_; }
  int64_t peak() const { return peak_; }

  c10::DataPtr allocate(size_t size) override {
    c10::DataPtr data = before_->allocate(size);
    auto* kept = new Kept{std::move(data), static_cast<int64_t>(size)};
    const int64_t now = now_ += kept->size;
    for (int64_t peak = peak_; now > peak && !peak_.compare_exchange_weak(peak, now);) {
    }
    return {kept->data.get(), kept, &release, kept->data.device()};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t size) const override { std::memcpy(to, from, size); }

 private:
  struct Kept {
    c10::DataPtr data;
    int64_t size;
  };
  static void release(void* context) {
    auto* kept = static_cast<Kept*>(context);
    now_ -= kept->size;
    delete kept;
  }

  c10::Allocator* before_;
  static inline std::atomic<int64_t> now_ = 0;
  static inline std::atomic<int64_t> peak_ = 0;
};

}  // namespace qat::testing
