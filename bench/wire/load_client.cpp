// Many simulated sidecars in one process: connections, each with delta ADS streams that acknowledge what they are sent.
//
// In: options, and lines on stdin: `open`, `expect COUNT`, `counts`, `quit`. Out: a line of JSON for each, when it is
// done or its time is over. Never: an address but loopback's; a wait without an end.
#include <getopt.h>
#include <sys/resource.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>

#include "connection.hpp"
#include "delta_client.hpp"

namespace {

using load::DeltaClient;

constexpr unsigned kErrorsShown = 5;

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
    // Of sidecars: those of which every stream had an answer, and those that are closed without.
    std::size_t answered = 0, failed = 0;
};

class Sidecar final : public load::Connection {
  public:
    Sidecar(Load& load, unsigned index)
        : Connection(load.options.is_tls), load_(load), index_(index), answers_(load.options.streams) {}

    bool connect() { return Connection::connect(load_.options.port, load_.options.first + index_); }

    void take_message(std::size_t stream, std::string_view message) override {
        const std::string_view nonce = load::nonce_of(message);
        if (nonce.empty()) return take_failure("a response has no nonce");
        ++load_.tally.pushes;
        load_.tally.bytes += message.size();
        load_.tally.arrivals_ns.push_back(arrived_ns_);
        if (!answers_[stream]) {
            answers_[stream] = true;
            if (++answered_ == answers_.size()) ++load_.answered;
        }
        http2_.send(stream, load_.client.acknowledgement(node_number(stream), nonce));
        ++load_.tally.acknowledgements;
    }

  protected:
    void begin() override {
        for (std::size_t at = 0; at < answers_.size(); ++at) {
            const std::size_t stream = http2_.open_stream(load::kDeltaPath, is_tls_);
            http2_.send(stream, load_.client.subscription(node_number(stream)));
        }
    }

    void failed(const char* what) override {
        if (answered_ < answers_.size()) ++load_.failed;
        if (load_.tally.errors++ < kErrorsShown) std::fprintf(stderr, "load_client: sidecar %u: %s\n", index_, what);
    }

  private:
    unsigned node_number(std::size_t stream) const {
        return (load_.options.first + index_) * load_.options.streams + static_cast<unsigned>(stream);
    }

    Load& load_;
    unsigned index_;
    std::vector<bool> answers_;
    std::size_t answered_ = 0;
};

class Fleet final : public load::Poller {
  public:
    Fleet(const Options& options, const DeltaClient& client)
        : Poller(options.is_tls), options_(options), load_{options, client, {}} {
        for (unsigned at = 0; at < options.connections; ++at) {
            sidecars_.push_back(std::make_unique<Sidecar>(load_, at));
        }
    }

  protected:
    void obey(const char* line) override {
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

  private:
    // All connect, at most `window` at a time; done when every stream has had its first answer and acknowledged it.
    void open() {
        begin();
        while (!is_over_ && finished() < sidecars_.size() && !is_late()) {
            while (begun_ < sidecars_.size() && begun_ - finished() < options_.window) {
                Sidecar& sidecar = *sidecars_[begun_++];
                if (sidecar.connect()) watch(sidecar, EPOLL_CTL_ADD);
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
        began_ns_ = load::now_ns();
        began_cpu_us_ = load::cpu_us();
    }

    std::size_t finished() const { return load_.answered + load_.failed; }
    bool is_late() const { return load::now_ns() - began_ns_ > options_.timeout_s * 1'000'000'000LL; }

    // Until every acknowledgement is the kernel's.
    void drain() {
        for (const auto& sidecar : sidecars_) {
            while (!is_over_ && sidecar->state == load::Connection::State::kOpen && !sidecar->is_quiet() && !is_late())
                turn();
        }
    }

    void report(const char* event) {
        const Tally& tally = load_.tally;
        reported_ = tally.pushes;
        std::printf(
            "{\"event\": \"%s\", \"connected\": %zu, \"pushes\": %lu, \"acknowledgements\": %lu, \"bytes\": %lu, "
            "\"errors\": %lu, \"began_ns\": %ld, \"ended_ns\": %ld, \"cpu_us\": %.0f, \"arrivals_us\": [",
            event, load_.answered, tally.pushes, tally.acknowledgements, tally.bytes, tally.errors, began_ns_,
            load::now_ns(), load::cpu_us() - began_cpu_us_);
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
    std::vector<std::unique_ptr<Sidecar>> sidecars_;
    std::size_t begun_ = 0;
    std::uint64_t reported_ = 0;
    std::int64_t began_ns_ = 0;
    double began_cpu_us_ = 0;
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
