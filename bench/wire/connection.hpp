// Many connections of a load client on one epoll, and the commands that it is given on stdin.
//
// In: addresses, bytes, lines. Out: calls of what a client adds: what is said first, what is done with a message, with
// a line. Never: an address but loopback's; what is asked for.
#pragma once

#include <sys/epoll.h>

#include <cstdint>
#include <cstdio>
#include <ctime>
#include <string>
#include <string_view>

#include "http2_client.hpp"
#include "socket.hpp"

namespace load {

// Each source address has 28,000 ports; those of connections that were just closed are not free yet.
inline constexpr unsigned kConnectionsForAddress = 4000;

inline std::int64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

inline double cpu_us() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

// A connection that is read and written when epoll says so.
class Connection : public Receiver {
  public:
    enum class State { kIdle, kConnecting, kShaking, kOpen, kClosed };

    explicit Connection(bool is_tls) : http2_(*this), is_tls_(is_tls) {}

    State state = State::kIdle;
    bool wants_to_write = true;

    int fd() const { return socket_.fd(); }
    bool is_quiet() const { return http2_.out.empty() && http2_.is_drained(); }
    const Socket& socket() const { return socket_; }

    // The connection with this number begins; false where the kernel refuses it.
    bool connect(std::uint16_t port, unsigned number) {
        state = State::kConnecting;
        if (socket_.connect(port, static_cast<std::uint8_t>(2 + number / kConnectionsForAddress))) return true;
        fail("cannot connect");
        return false;
    }

    void advance(TlsContext* context, std::uint32_t events, std::string& buffer) {
        if (state == State::kConnecting) {
            if (events & (EPOLLERR | EPOLLHUP)) return fail("the connection was refused");
            state = State::kShaking;
        }
        if (state == State::kShaking) {
            const Progress progress = socket_.shake_hands(context);
            if (progress == Progress::kFailed) return fail("the TLS handshake failed");
            wants_to_write = false;
            if (progress == Progress::kWait) return;
            state = State::kOpen;
            http2_.open();
            begin();
        } else if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
            read(buffer);
        }
        write();
    }

    void take_failure(const char* what) override { fail(what); }

  protected:
    // It is open: what is said first.
    virtual void begin() = 0;
    // It is closed, which is told once.
    virtual void failed(const char* what) = 0;

    Http2Client http2_;
    // When what is being read was there.
    std::int64_t arrived_ns_ = 0;
    bool is_tls_;

  private:
    void read(std::string& buffer) {
        while (state == State::kOpen) {
            std::size_t count = 0;
            const Progress progress = socket_.read(buffer.data(), buffer.size(), count);
            if (progress == Progress::kFailed) return fail("the server closed the connection");
            if (progress == Progress::kWait) return;
            arrived_ns_ = now_ns();
            http2_.receive({buffer.data(), count});
            // Without TLS a shorter read has emptied the socket, and epoll would say otherwise.
            if (!is_tls_ && count < buffer.size()) return;
        }
    }

    void write() {
        if (state != State::kOpen) return;
        wants_to_write = false;
        if (http2_.out.empty()) return;
        const Progress progress = socket_.write(http2_.out);
        if (progress == Progress::kFailed) return fail("the server does not take what is written");
        wants_to_write = progress == Progress::kWait;
        if (!wants_to_write) http2_.out.shrink_to_fit();
    }

    void fail(const char* what) {
        if (state == State::kClosed) return;
        state = State::kClosed;
        failed(what);
    }

    Socket socket_;
};

// Runs until it is told to, or whoever started it is gone.
class Poller {
  public:
    explicit Poller(bool is_tls) {
        if (is_tls) tls_ = create_tls_context();
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.ptr = nullptr;
        epoll_ctl(epoll_, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    }

    Poller(const Poller&) = delete;
    Poller& operator=(const Poller&) = delete;
    virtual ~Poller() { free_tls_context(tls_); }

    void run() {
        while (!is_over_) turn();
    }

  protected:
    virtual void obey(const char* line) = 0;

    void turn() {
        epoll_event events[kEventsMax];
        const int count = epoll_wait(epoll_, events, kEventsMax, kTickMs);
        for (int at = 0; at < count; ++at) {
            if (events[at].data.ptr == nullptr) {
                take_line();
            } else {
                advance(*static_cast<Connection*>(events[at].data.ptr), events[at].events);
            }
        }
    }

    void watch(Connection& connection, int operation) {
        epoll_event event{};
        event.events = EPOLLIN | (connection.wants_to_write ? EPOLLOUT : 0u);
        event.data.ptr = &connection;
        epoll_ctl(epoll_, operation, connection.fd(), &event);
    }

    bool is_over_ = false;

  private:
    static constexpr int kEventsMax = 512;
    static constexpr int kTickMs = 100;

    void take_line() {
        char line[1024];
        const ssize_t count = read(STDIN_FILENO, line, sizeof line - 1);
        is_over_ = count <= 0;
        if (is_over_) return;
        line[count] = '\0';
        obey(line);
    }

    void advance(Connection& connection, std::uint32_t events) {
        const bool wanted_to_write = connection.wants_to_write;
        connection.advance(tls_, events, buffer_);
        if (connection.state == Connection::State::kClosed) {
            epoll_ctl(epoll_, EPOLL_CTL_DEL, connection.fd(), nullptr);
        } else if (connection.wants_to_write != wanted_to_write) {
            watch(connection, EPOLL_CTL_MOD);
        }
    }

    TlsContext* tls_ = nullptr;
    int epoll_ = epoll_create1(EPOLL_CLOEXEC);
    std::string buffer_ = std::string(1u << 18, '\0');
};

}  // namespace load
