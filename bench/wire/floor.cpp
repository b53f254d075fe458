// The floor: what the kernel alone takes for a push to many sockets and an acknowledgement of each.
//
// In: two files of bytes, what a client is sent first and what a push is; on stdin `push`, `stats`, `settle`, `quit`.
// Out: a line of JSON for each. Never: a look at what clients send; each push is one send, each acknowledgement one
// recv.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

constexpr int kEventsMax = 512, kBacklog = 4096;

[[noreturn]] void fail(const char* what) {
    std::perror(what);
    std::exit(1);
}

std::string read_file(const char* path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) fail(path);
    return {std::istreambuf_iterator<char>(file), {}};
}

class Floor {
  public:
    Floor(std::string opening, std::string push) : opening_(std::move(opening)), push_(std::move(push)) {
        epoll_ = epoll_create1(EPOLL_CLOEXEC);
        listening_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        auto* any = reinterpret_cast<sockaddr*>(&address);
        if (bind(listening_, any, sizeof address) != 0 || listen(listening_, kBacklog) != 0) fail("listen");
        socklen_t length = sizeof address;
        if (getsockname(listening_, any, &length) != 0) fail("getsockname");
        std::printf("{\"port\": %d}\n", ntohs(address.sin_port));
        std::fflush(stdout);
        add(listening_);
        add(STDIN_FILENO);
    }

    void run() {
        epoll_event events[kEventsMax];
        for (;;) {
            const int count = epoll_wait(epoll_, events, kEventsMax, -1);
            if (count < 0 && errno != EINTR) fail("epoll_wait");
            for (int at = 0; at < count; ++at) {
                const int fd = events[at].data.fd;
                if (fd == listening_) {
                    accept_all();
                } else if (fd == STDIN_FILENO) {
                    if (!obey()) return;
                } else {
                    receive(fd);
                }
            }
        }
    }

  private:
    void add(int fd) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.fd = fd;
        if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
    }

    void accept_all() {
        for (int fd; (fd = accept4(listening_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
            const int yes = 1;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            if (static_cast<std::size_t>(fd) >= has_begun_.size()) has_begun_.resize(fd + 1024u);
            has_begun_[fd] = false;
            add(fd);
        }
    }

    void receive(int fd) {
        const ssize_t count = recv(fd, buffer_, sizeof buffer_, 0);
        if (count < 0 && errno == EAGAIN) return;
        if (count <= 0) {
            close(fd);
            std::erase(sockets_, fd);
        } else if (has_begun_[fd]) {
            ++received_;
        } else {
            has_begun_[fd] = true;
            sockets_.push_back(fd);
            send_all(fd, opening_);
        }
    }

    static void send_all(int fd, const std::string& bytes) {
        if (send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(bytes.size())) {
            std::perror("send");
        }
    }

    bool obey() {
        char line[256];
        const ssize_t count = read(STDIN_FILENO, line, sizeof line);
        if (count <= 0) return false;
        const std::string command(line, line + count);
        if (command.starts_with("quit")) return false;
        if (command.starts_with("push")) {
            for (const int fd : sockets_) send_all(fd, push_);
        }
        std::printf("{\"streams\": %zu, \"received\": %zu}\n", sockets_.size(), received_);
        std::fflush(stdout);
        return true;
    }

    std::string opening_, push_;
    int epoll_ = -1, listening_ = -1;
    std::vector<int> sockets_;
    std::vector<bool> has_begun_;
    std::size_t received_ = 0;
    char buffer_[65536];
};

}  // namespace

int main(int count, char** arguments) {
    if (count != 3) {
        std::fprintf(stderr, "usage: floor OPENING_FILE PUSH_FILE\n");
        return 2;
    }
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    static Floor floor(read_file(arguments[1]), read_file(arguments[2]));
    floor.run();
    return 0;
}
