// Tens of thousands of simulated Envoys in one process: connections with several streams, each stream a node of its
// own.
//
// In: options, and lines on stdin: `open`, `mark`, `count`, `tell`, `arrivals FILE`, `holdings FILE`, `contents FILE`,
// `quit`. Out: a line of JSON for each; those of `open` come when it is done, and others meanwhile. Never: an address
// but loopback's; a wait without an end but for the next line.
#include <getopt.h>
#include <sys/resource.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>

#include "connection.hpp"
#include "delta_envoy.hpp"

namespace {

using load::Contents, load::DeltaEnvoy;

constexpr unsigned kErrorsShown = 5;

struct Options {
    std::uint16_t port = 0;
    unsigned connections = 1, streams = 1, first = 0, window = 64, timeout_s = 600;
    std::string node_file, node_prefix = "default.dp-";
};

struct Arrival {
    std::int64_t at_ns;
    std::uint32_t envoy, name;
};

// What has happened since the last `mark`.
struct Tally {
    load::Received received;
    std::uint64_t acknowledgements = 0, errors = 0;
    std::vector<Arrival> endpoints;
};

// What all connections share.
struct Load {
    const Options& options;
    std::string node;
    Contents contents{};
    Tally tally{};
    std::uint64_t configured = 0, closed = 0;
    // Of each Envoy: when it was sent something last.
    std::vector<std::int64_t> last_ns{};
};

class Host final : public load::Connection {
  public:
    Host(Load& load, unsigned index)
        : Connection(false),
          load_(load),
          index_(index),
          envoys_(load.options.streams),
          was_configured_(load.options.streams) {}

    bool connect() { return Connection::connect(load_.options.port, load_.options.first + index_); }
    bool is_configured() const { return configured_ == envoys_.size(); }
    const std::vector<DeltaEnvoy>& envoys() const { return envoys_; }

    void take_message(std::size_t stream, std::string_view message) override {
        DeltaEnvoy& envoy = envoys_[stream];
        const auto number = static_cast<std::uint32_t>(index_ * envoys_.size() + stream);
        requests_.clear();
        const auto arrived = [&](std::uint32_t name) { load_.tally.endpoints.push_back({arrived_ns_, number, name}); };
        if (!envoy.receive(message, load_.contents, load_.tally.received, requests_, arrived))
            return take_failure("a message is no response");
        load_.last_ns[number] = arrived_ns_;
        if (!was_configured_[stream] && envoy.is_configured()) {
            was_configured_[stream] = true;
            ++load_.configured;
            ++configured_;
        }
        ++load_.tally.acknowledgements;
        for (const std::string& request : requests_) http2_.send(stream, request);
    }

  protected:
    void begin() override {
        for (std::size_t at = 0; at < envoys_.size(); ++at) {
            const std::size_t stream = http2_.open_stream(load::kDeltaPath, is_tls_);
            http2_.send(stream, DeltaEnvoy::opened(node_id(at), load_.node));
        }
    }

    void failed(const char* what) override {
        ++load_.closed;
        if (load_.tally.errors++ < kErrorsShown) std::fprintf(stderr, "envoys: connection %u: %s\n", index_, what);
    }

  private:
    std::string node_id(std::size_t stream) const {
        char digits[16];
        std::snprintf(digits, sizeof digits, "%06zu", (load_.options.first + index_) * envoys_.size() + stream);
        return load_.options.node_prefix + digits;
    }

    Load& load_;
    unsigned index_;
    std::vector<DeltaEnvoy> envoys_;
    std::vector<bool> was_configured_;
    std::size_t configured_ = 0;
    static inline DeltaEnvoy::Requests requests_;
};

class Fleet final : public load::Poller {
  public:
    Fleet(const Options& options, std::string node)
        : Poller(false), options_(options), load_{options, std::move(node)} {
        load_.last_ns.resize(std::size_t{options.connections} * options.streams);
        for (unsigned at = 0; at < options.connections; ++at) hosts_.push_back(std::make_unique<Host>(load_, at));
        mark();
    }

  protected:
    void obey(const char* line) override {
        char path[512];
        if (std::string_view(line).starts_with("open")) {
            open();
            tell("open", true);
        } else if (std::string_view(line).starts_with("mark")) {
            mark();
            tell("mark", false);
        } else if (std::string_view(line).starts_with("count")) {
            tell("count", false);
        } else if (std::string_view(line).starts_with("tell")) {
            tell("tell", true);
        } else if (std::sscanf(line, "arrivals %511s", path) == 1) {
            write_arrivals(path);
        } else if (std::sscanf(line, "holdings %511s", path) == 1) {
            write_holdings(path);
        } else if (std::sscanf(line, "contents %511s", path) == 1) {
            write_contents(path);
        } else {
            is_over_ = true;
        }
    }

  private:
    // All connect, at most `window` at a time; done when each Envoy could serve.
    void open() {
        mark();
        std::size_t begun = 0, before = 0;
        std::vector<bool> is_done(hosts_.size());
        while (!is_over_ && load_.configured < load_.last_ns.size() && load_.closed == 0 && !is_late()) {
            std::size_t done = before;
            for (std::size_t at = 0; at < begun; ++at) {
                if (is_done[at] || !hosts_[at]->is_configured()) continue;
                is_done[at] = true;
                ++done;
            }
            for (before = done; begun < hosts_.size() && begun - done < options_.window; ++begun) {
                if (hosts_[begun]->connect()) watch(*hosts_[begun], EPOLL_CTL_ADD);
            }
            turn();
        }
    }

    void mark() {
        load_.tally = {};
        std::fill(load_.last_ns.begin(), load_.last_ns.end(), 0);
        began_ns_ = load::now_ns();
        began_cpu_us_ = load::cpu_us();
    }

    bool is_late() const { return load::now_ns() - began_ns_ > options_.timeout_s * 1'000'000'000LL; }

    // Counts since the mark; with `names_last` also the microsecond at which each Envoy was sent something last, or -1.
    void tell(const char* event, bool names_last) {
        const Tally& tally = load_.tally;
        const load::Received& received = tally.received;
        std::size_t unsent = 0;
        for (const auto& host : hosts_) unsent += host->state == load::Connection::State::kOpen && !host->is_quiet();
        std::printf(
            "{\"event\": \"%s\", \"configured\": %lu, \"closed\": %lu, \"messages\": %lu, \"bytes\": %lu, "
            "\"resources\": {\"Cluster\": %lu, \"ClusterLoadAssignment\": %lu, \"Listener\": %lu}, \"removed\": %lu, "
            "\"held_already\": %lu, \"for_warming\": %lu, \"wrong_versions\": %lu, \"acknowledgements\": %lu, "
            "\"unsent\": %zu, \"errors\": %lu, \"began_ns\": %ld, \"cpu_us\": %.0f, \"last_us\": [",
            event, load_.configured, load_.closed, received.messages, received.bytes,
            received.resources[Contents::kCluster], received.resources[Contents::kEndpoint],
            received.resources[Contents::kListener], received.removed, received.held_already, received.for_warming,
            received.wrong_versions, tally.acknowledgements, unsent, tally.errors, began_ns_,
            load::cpu_us() - began_cpu_us_);
        const char* separator = "";
        for (std::size_t at = 0; names_last && at < load_.last_ns.size(); ++at) {
            const std::int64_t last = load_.last_ns[at];
            std::printf("%s%ld", separator, last == 0 ? -1 : (last - began_ns_) / 1000);
            separator = ",";
        }
        std::printf("]}\n");
        std::fflush(stdout);
    }

    unsigned number(std::size_t envoy) const {
        return options_.first * options_.streams + static_cast<unsigned>(envoy);
    }

    // A line for each assignment of endpoints since the mark: nanosecond, number of the Envoy, name.
    void write_arrivals(const char* path) {
        std::ofstream file(path);
        for (const Arrival& each : load_.tally.endpoints) {
            file << each.at_ns << ' ' << number(each.envoy) << ' ' << load_.contents.name_text(each.name) << '\n';
        }
        wrote(file, load_.tally.endpoints.size());
    }

    // A line for each Envoy: its number, how many clusters wait for their endpoints, the contents that it holds.
    void write_holdings(const char* path) {
        std::ofstream file(path);
        std::size_t envoy = 0;
        for (const auto& host : hosts_) {
            for (const DeltaEnvoy& each : host->envoys()) {
                file << number(envoy++) << ' ' << each.warming().size();
                for (unsigned type = 0; type < Contents::kTypes; ++type) {
                    for (const auto& [name, content] : each.held(type)) file << ' ' << content;
                }
                file << '\n';
            }
        }
        wrote(file, envoy);
    }

    // Each content: a line with its type, version, size and name, and then its bytes.
    void write_contents(const char* path) {
        std::ofstream file(path, std::ios::binary);
        for (const Contents::Content& each : load_.contents.all()) {
            file << each.type << ' ' << each.version << ' ' << each.body.size() << ' '
                 << load_.contents.name_text(each.name) << '\n'
                 << each.body;
        }
        wrote(file, load_.contents.all().size());
    }

    void wrote(std::ofstream& file, std::size_t count) {
        file.flush();
        std::printf("{\"event\": \"wrote\", \"count\": %zu, \"is_whole\": %s}\n", count, file ? "true" : "false");
        std::fflush(stdout);
    }

    const Options& options_;
    Load load_;
    std::vector<std::unique_ptr<Host>> hosts_;
    std::int64_t began_ns_ = 0;
    double began_cpu_us_ = 0;
};

bool parse(int count, char** arguments, Options& options) {
    const option known[] = {{"port", 1, nullptr, 'p'},    {"connections", 1, nullptr, 'n'},
                            {"streams", 1, nullptr, 's'}, {"first", 1, nullptr, 'f'},
                            {"window", 1, nullptr, 'w'},  {"timeout-s", 1, nullptr, 't'},
                            {"node", 1, nullptr, 'd'},    {nullptr, 0, nullptr, 0}};
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
        std::fprintf(stderr, "usage: envoys --port P --connections N --streams N --node FILE [--first N] …\n");
        return 2;
    }
    std::ifstream file(options.node_file, std::ios::binary);
    std::string node{std::istreambuf_iterator<char>(file), {}};
    if (node.empty()) {
        std::fprintf(stderr, "envoys: no node in %s\n", options.node_file.c_str());
        return 2;
    }
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    Fleet(options, std::move(node)).run();
    return 0;
}
