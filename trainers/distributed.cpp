#include "trainers/distributed.h"

// The wheel's headers hide Gloo without this; the declarations they need are Debian's, the code is LibTorch's own.
#define USE_C10D_GLOO

#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "core/error.h"
#include "trainers/library_reason.h"

namespace qat {

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::seconds;

// A process may wait long for one that evaluates or saves; whether that one lives is the watch's business.
constexpr std::chrono::minutes kTransferTimeout{60};
constexpr seconds kSignOfLife{1};
constexpr seconds kSilence{20};  // without a sign of life a process counts as dead
constexpr seconds kFarewell{5};  // how long the process that serves the store waits for the others to end

constexpr const char* kGoOn = "What was saved last is whole: go on with --resume, with as many processes as there are";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int64_t number_from_environment(const char* name, int64_t least, int64_t most) {
  const std::string text = environment(name);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= least && value <= most) return value;
  fail_usage("the environment variable ", name, " is \"", text, "\", a number from ", least, " to ", most,
             " is wanted. Start with torchrun --no-python, or without RANK and WORLD_SIZE for one process");
}

std::string key_of(const char* kind, int64_t rank) { return join(kind, "/", rank); }

std::vector<uint8_t> bytes_of(int64_t value) {
  const std::string text = std::to_string(value);
  return {text.begin(), text.end()};
}

}  // namespace

// The store that all can reach, the connections between any two, and a thread that watches whether all live.
class ProcessGroup::Links {
 public:
  Links(int64_t rank, int64_t size, seconds patience)
      : rank_(rank), size_(size), port_(number_from_environment("MASTER_PORT", 1, 65535)), patience_(patience) {
    if (environment("MASTER_ADDR").empty()) fail_usage("the environment variable MASTER_ADDR is not set; see torchrun");
    // A write to a process that has just died is an error to tell of, not the end of this one without a word.
    std::signal(SIGPIPE, SIG_IGN);
    address_ = join(environment("MASTER_ADDR"), ":", port_);
    // torchrun serves the store itself and says so.
    serves_ = rank == 0 && environment("TORCHELASTIC_USE_AGENT_STORE") != "True";
    try {
      store_ = connect(serves_);
      watched_ = connect(false);
    } catch (const std::exception& error) {
      fail(
          "rank ", rank_, ": the store at ", address_, serves_ ? " cannot be served" : " cannot be reached", " within ",
          patience_.count(), " s (", reason_of(error), "). Check that the first process runs, that MASTER_ADDR and ",
          "MASTER_PORT are the same on all machines, that no other run uses the port, and that no firewall is between");
    }
    wait_for_all();
    connect_processes();
    watch_ = std::thread([this] { watch(); });
  }

  ~Links() {
    stop_watching();
    groups_.clear();
  }

  // Connects any two processes (once more). GLOO_SOCKET_IFNAME, as everywhere in PyTorch, names the network interface
  // where the host name does not.
  size_t connect_processes() {
    const std::string interface = environment("GLOO_SOCKET_IFNAME");
    auto options = c10d::ProcessGroupGloo::Options::create(kTransferTimeout);
    try {
      options->devices.push_back(interface.empty() ? c10d::ProcessGroupGloo::createDefaultDevice()
                                                   : c10d::ProcessGroupGloo::createDeviceForInterface(interface));
      const auto store = c10::make_intrusive<c10d::PrefixStore>(join("connections ", groups_.size()), store_);
      groups_.push_back(c10::make_intrusive<c10d::ProcessGroupGloo>(store, static_cast<int>(rank_),
                                                                    static_cast<int>(size_), options));
    } catch (const std::exception& error) {
      fail("rank ", rank_, " cannot connect to the other processes (", reason_of(error),
           "). On several machines set GLOO_SOCKET_IFNAME to the network interface that they share");
    }
    return groups_.size() - 1;
  }

  // Over a connection of its own: a thread that waits for a key holds up all others of its connection.
  c10::intrusive_ptr<c10d::Store> store(const std::string& prefix) const {
    return c10::make_intrusive<c10d::PrefixStore>(prefix, connect(false));
  }

  // False if another process of the group has told already why all end.
  bool may_tell() {
    try {
      return store_->add("ended", 1) == 1;
    } catch (const std::exception&) {
      return true;  // whoever served the store is gone, and so is whoever could have told
    }
  }

  // The process that serves the store goes last, so that the others learn that all was told.
  void wait_for_others_to_end() {
    if (!serves_) return;
    for (const auto start = Clock::now(); Clock::now() - start < kFarewell && store_->add("ended", 0) < size_;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  }

  void stop_watching() {
    {
      const std::lock_guard lock(leaving_lock_);
      leaving_ = true;
    }
    leave_.notify_all();
    if (watch_.joinable()) watch_.join();
  }

  void set_alarm(std::function<void(const std::string&)> alarm) {
    const std::lock_guard lock(leaving_lock_);
    alarm_ = std::move(alarm);
  }

  Transfer transfer(size_t connections, const at::Tensor& tensor, int64_t peer, bool sends) {
    c10d::ProcessGroupGloo& group = *groups_.at(connections);
    QAT_CHECK(tensor.is_contiguous() && peer != rank_);
    // Gloo reads and writes memory of the host: what lies on a device passes through there.
    const at::Tensor host = tensor.is_cpu() ? tensor
                            : sends         ? tensor.to(at::kCPU)
                                            : at::empty_like(tensor, at::TensorOptions(at::kCPU));
    std::vector<at::Tensor> tensors{host};
    const auto broken = [this, peer](const std::exception& error) {
      fail("the connection to rank ", peer, " broke: that process was killed or its machine is gone (",
           reason_of(error), "). ", kGoOn);
    };
    try {
      const auto work =
          sends ? group.send(tensors, static_cast<int>(peer), 0) : group.recv(tensors, static_cast<int>(peer), 0);
      return {[work, tensor, host, sends, broken] {
        try {
          work->wait();
        } catch (const std::exception& error) {
          broken(error);
        }
        if (!sends && !host.is_same(tensor)) tensor.copy_(host);
      }};
    } catch (const std::exception& error) {
      broken(error);
      throw;
    }
  }

 private:
  // A connection of its own each time. Attempts of torchrun to start again must not see each other's keys.
  c10::intrusive_ptr<c10d::Store> connect(bool serve) const {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(port_);
    options.isServer = serve;
    options.waitWorkers = false;
    options.timeout = patience_;
    return c10::make_intrusive<c10d::PrefixStore>(
        "gemma-qat/" + environment("TORCHELASTIC_RESTART_COUNT"),
        c10::make_intrusive<c10d::TCPStore>(environment("MASTER_ADDR"), options));
  }

  void wait_for_all() {
    std::vector<std::string> keys;
    for (int64_t rank = 0; rank < size_; ++rank) keys.push_back(key_of("alive", rank));
    store_->set(keys[static_cast<size_t>(rank_)], bytes_of(0));
    try {
      store_->wait(keys, patience_);
    } catch (const std::exception&) {
      std::string missing;
      for (size_t i = 0; i < keys.size(); ++i) {
        if (!store_->check({keys[i]})) missing += join(missing.empty() ? "" : ", ", i);
      }
      fail("rank ", rank_, " waited ", patience_.count(), " s at ", address_, " for ", size_,
           " processes, and these did not come: rank ", missing, ". Check that WORLD_SIZE (", size_,
           ") is the same everywhere and that every machine was started");
    }
  }

  void watch() {
    struct Seen {
      std::vector<uint8_t> sign;
      Clock::time_point when;
    };
    std::vector<Seen> seen(static_cast<size_t>(size_), Seen{{}, Clock::now()});
    std::vector<std::string> keys;
    for (int64_t rank = 0; rank < size_; ++rank) keys.push_back(key_of("alive", rank));
    for (int64_t beat = 1;; ++beat) {
      std::unique_lock lock(leaving_lock_);
      if (leave_.wait_for(lock, kSignOfLife, [&] { return leaving_; })) return;
      const auto alarm = alarm_;
      lock.unlock();
      if (!alarm) continue;
      try {
        watched_->set(keys[static_cast<size_t>(rank_)], bytes_of(beat));
        if (watched_->add("ended", 0) > 0) alarm("another process has ended");
        const auto signs = watched_->multiGet(keys);
        for (size_t i = 0; i < seen.size(); ++i) {
          if (signs[i] != seen[i].sign) seen[i] = {signs[i], Clock::now()};
          if (Clock::now() - seen[i].when < kSilence) continue;
          alarm(join("rank ", i, " gave no sign of life for ", kSilence.count(),
                     " s: it was killed, or its machine is gone. ", kGoOn));
        }
      } catch (const std::exception& error) {
        lock.lock();
        if (leaving_) return;
        lock.unlock();
        alarm(join("the store at ", address_, " is gone, and with it the process that served it (", reason_of(error),
                   "). ", kGoOn));
      }
    }
  }

  int64_t rank_, size_, port_;
  seconds patience_;
  std::string address_;
  bool serves_ = false;
  c10::intrusive_ptr<c10d::Store> store_, watched_;
  std::vector<c10::intrusive_ptr<c10d::ProcessGroupGloo>> groups_;
  std::mutex leaving_lock_;
  std::condition_variable leave_;
  bool leaving_ = false;
  std::function<void(const std::string&)> alarm_;
  std::thread watch_;
};

ProcessGroup ProcessGroup::from_environment(std::chrono::seconds patience) {
  ProcessGroup group;
  if (environment("WORLD_SIZE").empty() && environment("RANK").empty()) return group;
  group.size_ = number_from_environment("WORLD_SIZE", 1, 1 << 20);
  group.rank_ = number_from_environment("RANK", 0, group.size_ - 1);
  if (!environment("LOCAL_WORLD_SIZE").empty()) {
    group.local_size_ = number_from_environment("LOCAL_WORLD_SIZE", 1, group.size_);
    group.local_rank_ = number_from_environment("LOCAL_RANK", 0, group.local_size_ - 1);
  }
  if (group.size_ > 1) group.links_ = std::make_shared<Links>(group.rank_, group.size_, patience);
  return group;
}

int ProcessGroup::run(const std::function<int()>& body) {
  if (size_ == 1) return body();
  links_->set_alarm([this](const std::string& message) { end_all(message, static_cast<int>(ExitCode::Failed)); });
  try {
    const int code = body();
    any(false);  // all are done
    links_->set_alarm(nullptr);
    any(false);  // and nobody takes the end of another for a failure
    links_->stop_watching();
    return code;
  } catch (const Error& error) {
    end_all(error.what(), static_cast<int>(error.exit_code()));
  } catch (const std::bad_alloc&) {
    end_all("out of memory", static_cast<int>(ExitCode::Failed));
  } catch (const std::exception& error) {
    end_all(error.what(), static_cast<int>(ExitCode::Failed));
  }
}

// Without unwinding: threads wait for processes that are gone, and files are as whole as after a SIGKILL.
void ProcessGroup::end_all(const std::string& message, int exit_code) {
  static std::mutex ending;  // the watch must not end the process while this one tells why
  const std::lock_guard once(ending);
  if (links_->may_tell()) std::fprintf(stderr, "error: rank %d: %s\n", static_cast<int>(rank_), message.c_str());
  std::fflush(stdout);
  std::fflush(stderr);
  links_->wait_for_others_to_end();
  std::_Exit(exit_code);
}

ProcessGroup ProcessGroup::beside() const {
  ProcessGroup group = *this;
  if (links_) group.connections_ = links_->connect_processes();
  return group;
}

c10::intrusive_ptr<c10d::Store> ProcessGroup::store(const std::string& prefix) const { return links_->store(prefix); }

Transfer ProcessGroup::send(const at::Tensor& tensor, int64_t to) {
  return links_->transfer(connections_, tensor, to, true);
}

Transfer ProcessGroup::receive(const at::Tensor& tensor, int64_t from) {
  return links_->transfer(connections_, tensor, from, false);
}

}  // namespace qat
