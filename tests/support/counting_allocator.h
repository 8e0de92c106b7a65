// Counts the bytes of tensors: a figure of memory that does not depend on the machine, its load or malloc.
#pragma once

#include <c10/core/CPUAllocator.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace qat::testing {

// For its lifetime every new CPU tensor is counted. One at a time; tensors may outlive it.
class CountingAllocator {
 public:
  CountingAllocator() : before_(c10::GetCPUAllocator()) {
    now_ = peak_ = 0;
    c10::SetCPUAllocator(&counting());
  }
  ~CountingAllocator() { c10::SetCPUAllocator(before_); }
  CountingAllocator(const CountingAllocator&) = delete;
  CountingAllocator& operator=(const CountingAllocator&) = delete;

  // Bytes of tensors made since the start that still exist, now and at most.
  int64_t bytes() const { return now_; }
  int64_t peak() const { return peak_; }

 private:
  // Storages remember their allocator, so it lives as long as the program. Sizes stand before the bytes.
  class Counting final : public c10::Allocator {
   public:
    c10::DataPtr allocate(size_t size) override {
      auto* start = static_cast<std::byte*>(c10::GetDefaultCPUAllocator()->raw_allocate(size + kHeader));
      std::memcpy(start, &size, sizeof(size));
      const int64_t now = now_ += static_cast<int64_t>(size);
      for (int64_t peak = peak_; now > peak && !peak_.compare_exchange_weak(peak, now);) {
      }
      return {start + kHeader, start + kHeader, &release, c10::Device(c10::DeviceType::CPU)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void* to, const void* from, size_t size) const override { std::memcpy(to, from, size); }

   private:
    static constexpr size_t kHeader = 64;  // keeps the alignment
    static void release(void* bytes) {
      auto* start = static_cast<std::byte*>(bytes) - kHeader;
      size_t size = 0;
      std::memcpy(&size, start, sizeof(size));
      now_ -= static_cast<int64_t>(size);
      c10::GetDefaultCPUAllocator()->raw_deallocate(start);
    }
  };
  static Counting& counting() {
    static auto* allocator = new Counting;
    return *allocator;
  }

  c10::Allocator* before_;
  static inline std::atomic<int64_t> now_ = 0;
  static inline std::atomic<int64_t> peak_ = 0;
};

}  // namespace qat::testing
