// Which of many sockets have something to read: the kernel's epoll, asked without waiting.
// In: descriptors. Out: those that are readable now. Never: waiting; reading; where the system has no epoll,
// `open` says so.
#pragma once

#include <cstddef>

#ifdef __linux__
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#endif

namespace kumafast {

class Epoll {
  public:
    static constexpr std::size_t kEventsMax = 256;

    Epoll() = default;
    Epoll(const Epoll&) = delete;
    Epoll& operator=(const Epoll&) = delete;

#ifdef __linux__
    ~Epoll() {
        if (epoll_ >= 0) ::close(epoll_);
    }
    // Whether there is one from now on.
    bool open() {
        if (epoll_ < 0) epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
        return epoll_ >= 0;
    }
    // Readable itself while one of its sockets is.
    int descriptor() const { return epoll_; }
    bool watch(int socket) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = socket;
        return ::epoll_ctl(epoll_, EPOLL_CTL_ADD, socket, &event) == 0;
    }
    void forget(int socket) {
        epoll_event event{};
        ::epoll_ctl(epoll_, EPOLL_CTL_DEL, socket, &event);
    }
    // Finds sockets that are readable, or have failed; returns how many.
    std::size_t find(std::size_t most) {
        int count = ::epoll_wait(epoll_, events_.data(), static_cast<int>(std::min(most, kEventsMax)), 0);
        return count > 0 ? static_cast<std::size_t>(count) : 0;
    }
    // One of those that were found last; -1 where it has been struck out.
    int found(std::size_t at) const { return events_[at].data.fd; }
    // Strikes a socket out of those that were found last. O(kEventsMax).
    void strike_out(int socket) {
        for (epoll_event& event : events_) {
            if (event.data.fd == socket) event.data.fd = -1;
        }
    }

  private:
    int epoll_ = -1;
    std::array<epoll_event, kEventsMax> events_{};
#else
    bool open() { return false; }
    int descriptor() const { return -1; }
    bool watch(int) { return false; }
    void forget(int) {}
    std::size_t find(std::size_t) { return 0; }
    int found(std::size_t) const { return -1; }
    void strike_out(int) {}
#endif
};

}  // namespace kumafast
