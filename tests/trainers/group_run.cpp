#include "trainers/group_run.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "core/mapped_file.h"

namespace qat::testing {

int free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  EXPECT_EQ(::bind(socket, reinterpret_cast<sockaddr*>(&address), length), 0);
  EXPECT_EQ(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length), 0);
  ::close(socket);
  return ntohs(address.sin_port);
}

GroupRun::~GroupRun() {
  for (const pid_t process : processes_) {
    if (process == 0) continue;
    ::kill(process, SIGKILL);
    ::waitpid(process, nullptr, 0);
  }
}

void GroupRun::start(int rank, int size, const std::vector<std::string>& words) {
  std::vector<std::string> own = words;
  std::vector<char*> arguments;
  for (std::string& word : own) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const std::string file = log(rank).string();
  const pid_t process = ::fork();
  if (process == 0) {
    ::setenv("RANK", std::to_string(rank).c_str(), 1);
    ::setenv("WORLD_SIZE", std::to_string(size).c_str(), 1);
    ::setenv("MASTER_ADDR", "127.0.0.1", 1);
    ::setenv("MASTER_PORT", std::to_string(port_).c_str(), 1);
    ::dup2(::open("/dev/null", O_WRONLY), STDOUT_FILENO);
    ::dup2(::open(file.c_str(), O_WRONLY | O_CREAT, 0644), STDERR_FILENO);
    ::execv(arguments[0], arguments.data());
    ::_exit(127);
  }
  processes_.push_back(process);
}

void GroupRun::signal(int rank, int number) const { ::kill(processes_[static_cast<size_t>(rank)], number); }

std::vector<int> GroupRun::wait(std::chrono::seconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  std::vector<int> codes;
  for (size_t rank = 0; rank < processes_.size(); ++rank) {
    int status = 0;
    while (::waitpid(processes_[rank], &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > end) {
        ADD_FAILURE() << "rank " << rank << " still runs after " << limit.count() << " s: " << all_told();
        return codes;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    processes_[rank] = 0;
    codes.push_back(WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
  }
  return codes;
}

std::string GroupRun::told(int rank) const { return read_text_file(log(rank)); }

std::string GroupRun::all_told() const {
  std::string text;
  for (size_t rank = 0; rank < processes_.size(); ++rank) text += told(static_cast<int>(rank));
  return text;
}

}  // namespace qat::testing
