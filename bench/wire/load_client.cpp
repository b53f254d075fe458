// Many simulated sidecars in one process: connections, each with delta ADS streams that acknowledge what they are sent.
//
// In: options, and lines on stdin: `open`, `expect COUNT`, `counts`, `quit`. Out: a line of JSON for each, when it is
// done or its time is over. Never: an address but loopback's; a wait without an end.
#include <getopt.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <memory>

#include "delta_client.hpp"
#include "http2_client.hpp"
#include "socket.hpp"

namespace {

using load::DeltaClient, load::Progress;

constexpr int kEventsMax = 512;
constexpr int kTickMs = 100;
// Each source address has 28,000 ports; those of connections that were just closed are not free yet.
constexpr unsigned kConnectionsForAddress = 4000;
constexpr unsigned kErrorsShown = 5;

std::int64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1'000'000'000LL + now.tv_nsec;
}

double cpu_us() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

struct Options {
    std::uint16_t port = 0;
    unsigned connections = 1, streams = 1, first = 0, window = 256, timeout_s = 120;
    bool is_tls = false, repeats_node = false;
    std::string node_file;
    std::string type_url = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    std::vector<std::string> names;
};

// What has happened since the last `open` or `expect`.
struct Tally {
    std::uint64_t pushes = 0, acknowledgements = 0, bytes = 0, errors = 0;
    std::vector<std::int64_t> arrivals_ns;
};

struct Load {
    const Options& options;
    const DeltaClient& client;
    Tally tally;
};

class Sidecar final : public load::Receiver {
  public:
    enum class State { kIdle, kConnecting, kShaking, kOpen, kClosed };

    Sidecar(Load& load, unsigned index) : load_(load), index_(index), http2_(*this), answers_(load.options.streams) {}

    State state = State::kIdle;
    bool wants_to_write = true;

    int fd() const { return socket_.fd(); }
    bool is_answered() const { return answered_ == answers_.size(); }
    bool is_quiet() const { return http2_.out.empty() && http2_.is_drained(); }
    const load::Socket& socket() const { return socket_; }

    bool connect() {
        state = State::kConnecting;
        const unsigned number = load_.options.first + index_;
        const auto source = static_cast<std::uint8_t>(2 + number / kConnectionsForAddress);
        if (socket_.connect(load_.options.port, source)) return true;
        fail("cannot connect");
        return false;
    }

    void advance(load::TlsContext* context, std::uint32_t events, std::string& buffer) {
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
            begin();
        } else if (events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
            read(buffer);
        }
        write();
    }

    void take_message(std::size_t stream, std::string_view message) override {
        const std::string_view nonce = load::nonce_of(message);
        if (nonce.empty()) return take_failure("a response has no nonce");
        ++load_.tally.pushes;
        load_.tally.bytes += message.size();
        load_.tally.arrivals_ns.push_back(arrived_ns_);
        if (!answers_[stream]) {
            answers_[stream] = true;
            ++answered_;
        }
        http2_.send(stream, load_.client.acknowledgement(node_number(stream), nonce));
        ++load_.tally.acknowledgements;
    }

    void take_failure(const char* what) override { fail(what); }

  private:
    unsigned node_number(std::size_t stream) const {
        return (load_.options.first + index_) * load_.options.streams + static_cast<unsigned>(stream);
    }

    void begin() {
        http2_.open();
        for (std::size_t at = 0; at < answers_.size(); ++at) {
            const std::size_t stream = http2_.open_stream(load::kDeltaPath, load_.options.is_tls);
            http2_.send(stream, load_.client.subscription(node_number(stream)));
        }
    }

    void read(std::string& buffer) {
        while (state == State::kOpen) {
            std::size_t count = 0;
            const Progress progress = socket_.read(buffer.data(), buffer.size(), count);
            if (progress == Progress::kFailed) return fail("the server closed the connection");
            if (progress == Progress::kWait) return;
            arrived_ns_ = now_ns();
            http2_.receive({buffer.data(), count});
            // Without TLS a shorter read has emptied the socket, and epoll would say otherwise.
            if (!load_.options.is_tls && count < buffer.size()) return;
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
        if (load_.tally.errors++ < kErrorsShown) std::fprintf(stderr, "load_client: sidecar %u: %s\n", index_, what);
    }

    Load& load_;
    unsigned index_;
    load::Socket socket_;
    load::Http2Client http2_;
    std::vector<bool> answers_;
    std::size_t answered_ = 0;
    std::int64_t arrived_ns_ = 0;
};

class Fleet {
  public:
    Fleet(const Options& options, const DeltaClient& client) : options_(options), load_{options, client, {}} {
        if (options.is_tls) tls_ = load::create_tls_context();
        for (unsigned at = 0; at < options.connections; ++at) {
            sidecars_.push_back(std::make_unique<Sidecar>(load_, at));
        }
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.ptr = nullptr;
        epoll_ctl(epoll_, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    }

    Fleet(const Fleet&) = delete;
    Fleet& operator=(const Fleet&) = delete;
    ~Fleet() { load::free_tls_context(tls_); }

    // Obeys until it is told to quit, or whoever started it is gone.
    void run() {
        while (!is_over_) turn();
    }

  private:
    void turn() {
        epoll_event events[kEventsMax];
        const int count = epoll_wait(epoll_, events, kEventsMax, kTickMs);
        for (int at = 0; at < count; ++at) {
            if (events[at].data.ptr == nullptr) {
                obey();
            } else {
                advance(*static_cast<Sidecar*>(events[at].data.ptr), events[at].events);
            }
        }
    }

    void advance(Sidecar& sidecar, std::uint32_t events) {
        const bool was_answered = sidecar.is_answered();
        const bool wanted_to_write = sidecar.wants_to_write;
        sidecar.advance(tls_, events, buffer_);
        if (sidecar.state == Sidecar::State::kClosed) {
            epoll_ctl(epoll_, EPOLL_CTL_DEL, sidecar.fd(), nullptr);
            if (!was_answered) ++finished_;
            return;
        }
        if (!was_answered && sidecar.is_answered()) {
            ++answered_;
            ++finished_;
        }
        if (sidecar.wants_to_write != wanted_to_write) watch(sidecar, EPOLL_CTL_MOD);
    }

    void watch(Sidecar& sidecar, int operation) {
        epoll_event event{};
        event.events = EPOLLIN | (sidecar.wants_to_write ? EPOLLOUT : 0u);
        event.data.ptr = &sidecar;
        epoll_ctl(epoll_, operation, sidecar.fd(), &event);
    }

    void obey() {
        char line[256];
        const ssize_t count = read(STDIN_FILENO, line, sizeof line - 1);
        if (count <= 0) {
            is_over_ = true;
            return;
        }
        line[count] = '\0';
        unsigned long expected = 0;
        if (std::string_view(line).starts_with("open")) {
            open();
        } else if (std::sscanf(line, "expect %lu", &expected) == 1) {
            expect(expected);
        } else if (std::string_view(line).starts_with("counts")) {
            count_segments();
        } else {
            is_over_ = true;
        }
    }

    // All connect, at most `window` at a time; done when every stream has had its first answer and acknowledged it.
    void open() {
        begin();
        while (!is_over_ && finished_ < sidecars_.size() && !is_late()) {
            while (begun_ < sidecars_.size() && begun_ - finished_ < options_.window) {
                Sidecar& sidecar = *sidecars_[begun_++];
                if (sidecar.connect()) {
                    watch(sidecar, EPOLL_CTL_ADD);
                } else {
                    ++finished_;
                }
            }
            turn();
        }
        drain();
        report("open");
    }

    void expect(std::uint64_t count) {
        const std::uint64_t unexpected = load_.tally.pushes - reported_;
        begin();
        std::printf("{\"event\": \"ready\", \"unexpected\": %lu}\n", unexpected);
        std::fflush(stdout);
        const std::uint64_t errors = load_.tally.errors;
        while (!is_over_ && load_.tally.pushes < count && load_.tally.errors == errors && !is_late()) turn();
        drain();
        report("round");
    }

    void begin() {
        load_.tally = {};
        began_ns_ = now_ns();
        began_cpu_us_ = cpu_us();
    }

    bool is_late() const { return now_ns() - began_ns_ > options_.timeout_s * 1'000'000'000LL; }

    // Until every acknowledgement is the kernel's.
    void drain() {
        for (const auto& sidecar : sidecars_) {
            while (!is_over_ && sidecar->state == Sidecar::State::kOpen && !sidecar->is_quiet() && !is_late()) turn();
        }
    }

    void report(const char* event) {
        const Tally& tally = load_.tally;
        reported_ = tally.pushes;
        std::printf(
            "{\"event\": \"%s\", \"connected\": %zu, \"pushes\": %lu, \"acknowledgements\": %lu, \"bytes\": %lu, "
            "\"errors\": %lu, \"began_ns\": %ld, \"ended_ns\": %ld, \"cpu_us\": %.0f, \"arrivals_us\": [",
            event, answered_, tally.pushes, tally.acknowledgements, tally.bytes, tally.errors, began_ns_, now_ns(),
            cpu_us() - began_cpu_us_);
        const char* separator = "";
        for (const std::int64_t arrival : tally.arrivals_ns) {
            std::printf("%s%ld", separator, (arrival - began_ns_) / 1000);
            separator = ",";
        }
        std::printf("]}\n");
        std::fflush(stdout);
    }

    void count_segments() {
        unsigned long segments = 0, bytes = 0;
        for (const auto& sidecar : sidecars_) {
            tcp_info counts{};
            if (!sidecar->socket().kernel_counts(counts)) continue;
            segments += counts.tcpi_data_segs_in;
            bytes += counts.tcpi_bytes_received;
        }
        std::printf("{\"event\": \"counts\", \"segments\": %lu, \"bytes\": %lu}\n", segments, bytes);
        std::fflush(stdout);
    }

    const Options& options_;
    Load load_;
    load::TlsContext* tls_ = nullptr;
    int epoll_ = epoll_create1(EPOLL_CLOEXEC);
    std::vector<std::unique_ptr<Sidecar>> sidecars_;
    std::string buffer_ = std::string(1u << 18, '\0');
    std::size_t begun_ = 0, finished_ = 0, answered_ = 0;
    std::uint64_t reported_ = 0;
    std::int64_t began_ns_ = 0;
    double began_cpu_us_ = 0;
    bool is_over_ = false;
};

bool parse(int count, char** arguments, Options& options) {
    const option known[] = {
        {"port", 1, nullptr, 'p'},  {"connections", 1, nullptr, 'n'}, {"streams", 1, nullptr, 's'},
        {"first", 1, nullptr, 'f'}, {"window", 1, nullptr, 'w'},      {"timeout-s", 1, nullptr, 't'},
        {"node", 1, nullptr, 'd'},  {"name", 1, nullptr, 'r'},        {"type-url", 1, nullptr, 'u'},
        {"tls", 0, nullptr, 'S'},   {"repeat-node", 0, nullptr, 'R'}, {nullptr, 0, nullptr, 0}};
    for (int each; (each = getopt_long(count, arguments, "", known, nullptr)) != -1;) {
        const auto number = [] { return static_cast<unsigned>(std::strtoul(optarg, nullptr, 10)); };
        switch (each) {
            case 'p':
                options.port = static_cast<std::uint16_t>(number());
                break;
            case 'n':
                options.connections = number();
                break;
            case 's':
                options.streams = number();
                break;
            case 'f':
                options.first = number();
                break;
            case 'w':
                options.window = number();
                break;
            case 't':
                options.timeout_s = number();
                break;
            case 'd':
                options.node_file = optarg;
                break;
            case 'r':
                options.names.emplace_back(optarg);
                break;
            case 'u':
                options.type_url = optarg;
                break;
            case 'S':
                options.is_tls = true;
                break;
            case 'R':
                options.repeats_node = true;
                break;
            default:
                return false;
        }
    }
    return options.port != 0 && options.connections > 0 && options.streams > 0 && options.window > 0;
}

}  // namespace

int main(int count, char** arguments) {
    Options options;
    if (!parse(count, arguments, options)) {
        std::fprintf(stderr,
                     "usage: load_client --port P --connections N --node FILE [--name RESOURCE]... [--tls] …\n");
        return 2;
    }
    if (options.is_tls && !load::kHasTls) {
        std::fprintf(stderr, "load_client: built without TLS\n");
        return 3;
    }
    std::ifstream file(options.node_file, std::ios::binary);
    const DeltaClient client({std::istreambuf_iterator<char>(file), {}}, options.type_url, options.names,
                             options.repeats_node);
    if (!client.has_numbered_node()) {
        std::fprintf(stderr, "load_client: the node's id must hold -000000\n");
        return 2;
    }
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    Fleet(options, client).run();
    return 0;
}
