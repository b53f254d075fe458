// Mutated connections against TLS: tls_fuzz CONNECTIONS SEED. Built with KUMAFAST_FUZZ, best with sanitizers.
// In: a number and a seed of the dice. Out: what happened, counted; exit 1 at the first finding.
// A finding: a sanitizer's, a leak, output that is not made of whole records, plaintext that the client did not write,
// life after the end. The client is OpenSSL's own; what passes between both is cut, changed, repeated or left out.
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "tls_session.hpp"

using namespace kumafast;

namespace {

std::mt19937_64 dice;
std::size_t roll(std::size_t sides) { return dice() % sides; }

void check(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "finding: %s\n", what);
    std::abort();
}

// A self-signed certificate with its key, in files that live as long as this.
struct Identity {
    std::string directory, certificate, key;

    Identity() {
        char name[] = "/tmp/tls_fuzz.XXXXXX";
        check(mkdtemp(name) != nullptr, "no directory for certificates");
        directory = name;
        certificate = directory + "/server.crt";
        key = directory + "/server.key";
        EVP_PKEY* made = EVP_EC_gen("P-256");
        X509* x509 = X509_new();
        X509_set_version(x509, X509_VERSION_3);
        ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
        X509_gmtime_adj(X509_getm_notBefore(x509), -60);
        X509_gmtime_adj(X509_getm_notAfter(x509), 86400);
        X509_NAME* subject = X509_get_subject_name(x509);
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("fuzz"), -1, -1,
                                   0);
        X509_set_issuer_name(x509, subject);
        X509_EXTENSION* is_ca = X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, "critical,CA:TRUE");
        X509_add_ext(x509, is_ca, -1);
        X509_EXTENSION_free(is_ca);
        X509_set_pubkey(x509, made);
        X509_sign(x509, made, EVP_sha256());
        std::unique_ptr<FILE, int (*)(FILE*)> out(std::fopen(certificate.c_str(), "w"), std::fclose);
        PEM_write_X509(out.get(), x509);
        out.reset(std::fopen(key.c_str(), "w"));
        PEM_write_PrivateKey(out.get(), made, nullptr, nullptr, 0, nullptr, nullptr);
        X509_free(x509);
        EVP_PKEY_free(made);
    }
    ~Identity() {
        unlink(certificate.c_str());
        unlink(key.c_str());
        rmdir(directory.c_str());
    }
};

// OpenSSL's client over memory.
struct Client {
    std::unique_ptr<SSL, decltype(&SSL_free)> ssl;
    BIO* in = BIO_new(BIO_s_mem());
    BIO* out = BIO_new(BIO_s_mem());
    std::string written, read;

    explicit Client(SSL_CTX* context) : ssl(SSL_new(context), SSL_free) {
        SSL_set_bio(ssl.get(), in, out);
        SSL_set_connect_state(ssl.get());
        if (roll(3) == 0) SSL_set_max_proto_version(ssl.get(), TLS1_2_VERSION);
        static constexpr unsigned char kOffers[3][8] = {"\x02h2", "\x01x", "\x01x\x02h2"};
        if (std::size_t which = roll(4); which < 3) {
            SSL_set_alpn_protos(ssl.get(), kOffers[which], which == 2 ? 5 : which == 1 ? 2 : 3);
        }
    }

    void act() {
        if (!SSL_is_init_finished(ssl.get())) {
            SSL_do_handshake(ssl.get());
        } else if (roll(12) == 0) {
            SSL_renegotiate(ssl.get());
            SSL_do_handshake(ssl.get());
        } else if (roll(12) == 0) {
            SSL_key_update(ssl.get(), SSL_KEY_UPDATE_REQUESTED);
        } else if (roll(16) == 0) {
            SSL_shutdown(ssl.get());
        } else {
            std::string text(roll(6) ? roll(300) : roll(40000), static_cast<char>('a' + roll(26)));
            std::size_t count = 0;
            if (SSL_write_ex(ssl.get(), text.data(), text.size(), &count) == 1) written.append(text, 0, count);
        }
        char room[20000];
        std::size_t count = 0;
        while (SSL_read_ex(ssl.get(), room, sizeof room, &count) == 1) read.append(room, count);
        ERR_clear_error();
    }
    std::string take() {
        char* data = nullptr;
        long size = BIO_get_mem_data(out, &data);
        std::string taken(data, static_cast<std::size_t>(size));
        (void)BIO_reset(out);
        return taken;
    }
    void give(const std::string& octets) {
        if (!octets.empty()) BIO_write(in, octets.data(), static_cast<int>(octets.size()));
    }
};

// Changes octets on their way; `earlier` is what passed before in the same direction.
std::string mutate(std::string octets, const std::string& earlier) {
    for (std::size_t count = 1 + roll(3); count > 0; --count) {
        std::size_t at = octets.empty() ? 0
                         : roll(4)      ? roll(octets.size())
                                        : roll(std::min<std::size_t>(octets.size(), 12));
        switch (roll(8)) {
            case 0:
                if (!octets.empty()) octets[at] = static_cast<char>(dice());
                break;
            case 1:
                if (!octets.empty()) octets[at] = static_cast<char>(octets[at] ^ 1 << roll(8));
                break;
            case 2:
                octets.erase(at, roll(40));
                break;
            case 3:
                octets.insert(at, std::string(roll(40), static_cast<char>(dice())));
                break;
            case 4:
                octets.resize(at);
                break;
            case 5:
                // A replay.
                if (!earlier.empty()) octets.insert(at, earlier.substr(roll(earlier.size()), roll(2000)));
                break;
            case 6:
                octets.append("\x15\x03\x03\x00\x02", 5).push_back(static_cast<char>(roll(3)));
                octets.push_back(static_cast<char>(dice()));
                break;
            case 7:
                // A record as long as there may be, and longer.
                octets +=
                    std::string("\x17\x03\x03", 3) + static_cast<char>(0x40 + roll(3)) + static_cast<char>(dice());
                octets += std::string(roll(20000), static_cast<char>(dice()));
                break;
        }
    }
    return octets;
}

// What the server says is whole records of types that there are.
void check_records(const std::string& octets) {
    std::size_t at = 0;
    while (at < octets.size()) {
        check(octets.size() - at >= 5, "a piece of a record's header");
        auto octet = [&](std::size_t index) { return static_cast<unsigned char>(octets[at + index]); };
        // Not its version: OpenSSL refuses a wrong one under that very version.
        check(octet(0) >= 20 && octet(0) <= 23, "a strange record");
        std::size_t length = static_cast<std::size_t>(octet(3)) << 8 | octet(4);
        check(length <= 16384 + 256 + 64 && octets.size() - at >= 5 + length, "a piece of a record, or too much");
        at += 5 + length;
    }
}

struct Totals {
    std::size_t established = 0, mutated = 0, errors = 0, orderly = 0, received = 0, sent = 0;
};

class Connection {
  public:
    Connection(const tls::Context& context, SSL_CTX* client) : server_(context), client_(client) {
        // Some meet no mutation at all, most meet it sooner or later.
        mutation_odds_ = roll(5) == 0 ? 0 : 2 + roll(14);
    }

    void run(Totals& totals) {
        for (std::size_t steps = 4 + roll(24); steps > 0 && goes_on_; --steps) {
            client_.act();
            deliver(pass(client_.take(), to_server_));
            act();
            std::string said = server_.outgoing();
            server_.clear_outgoing();
            check_records(said);
            client_.give(pass(std::move(said), to_client_));
        }
        check(client_.written.starts_with(received_), "plaintext that the client did not write");
        check(sent_.starts_with(client_.read), "plaintext that the server did not write");
        totals.established += was_established_;
        totals.mutated += is_mutated_;
        totals.errors += !server_.error().empty();
        totals.orderly += server_.is_over() && server_.error().empty();
        totals.received += received_.size();
        totals.sent += sent_.size();
    }

  private:
    std::string pass(std::string octets, std::string& earlier) {
        std::string before = octets;
        if (mutation_odds_ > 0 && !octets.empty() && roll(mutation_odds_) == 0) {
            octets = mutate(std::move(octets), earlier);
            is_mutated_ = true;
        }
        earlier = std::move(before);
        return octets;
    }

    void deliver(const std::string& octets) {
        for (std::size_t at = 0; at < octets.size();) {
            std::size_t part = std::min(roll(3) ? octets.size() - at : 1 + roll(100), octets.size() - at);
            bool was_over = server_.is_over();
            std::size_t before = received_.size();
            bool goes_on =
                server_.receive({reinterpret_cast<const std::uint8_t*>(octets.data()) + at, part}, received_);
            check(!was_over || (!goes_on && received_.size() == before), "life after the end");
            check(goes_on == !server_.is_over(), "an end that is not said");
            at += part;
            // As a transport does: the rest of what has come is not read once the session is over, or sometimes is.
            if (!goes_on && roll(2)) break;
        }
        was_established_ |= server_.is_established() && !server_.is_over();
    }

    void act() {
        // Nobody writes before the handshake is done; afterwards anybody may at any time.
        if (was_established_ && roll(2)) {
            std::string text(roll(6) ? roll(300) : roll(60000), static_cast<char>('A' + roll(26)));
            if (send(text)) sent_ += text;
        }
        if (roll(30) == 0) server_.close();
        if (roll(60) == 0) goes_on_ = false;
        if (roll(10) == 0) {
            server_.protocol();
            server_.version();
            server_.client_certificate();
        }
    }

    // At once, or as a connection gathers it: pieces side by side, and large ones that are shared.
    bool send(std::string& text) {
        std::span<const std::uint8_t> octets(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
        if (roll(2) || text.empty()) return server_.send(octets);
        Payload shared(octets.data(), octets.size(), &text, nullptr);
        Outgoing gathered;
        for (std::size_t at = 0; at < octets.size();) {
            std::size_t part = std::min(1 + roll(20000), octets.size() - at);
            if (roll(2)) {
                gathered.copy(octets.subspan(at, part));
            } else {
                gathered.share(shared, at, part);
            }
            at += part;
        }
        return server_.send(gathered);
    }

    tls::Session server_;
    Client client_;
    std::string to_server_, to_client_, received_, sent_;
    std::size_t mutation_odds_ = 0;
    bool was_established_ = false;
    bool is_mutated_ = false;
    bool goes_on_ = true;
};

using ClientContext = std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)>;

ClientContext client_context(const Identity* identity) {
    ClientContext made(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
    SSL_CTX_set_verify(made.get(), SSL_VERIFY_NONE, nullptr);
    SSL_CTX_set_mode(made.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    if (identity) {
        SSL_CTX_use_certificate_chain_file(made.get(), identity->certificate.c_str());
        SSL_CTX_use_PrivateKey_file(made.get(), identity->key.c_str(), SSL_FILETYPE_PEM);
    }
    return made;
}

}  // namespace

int main(int count, char** words) {
    std::size_t connections = count > 1 ? std::strtoull(words[1], nullptr, 10) : 10000;
    dice.seed(count > 2 ? std::strtoull(words[2], nullptr, 10) : 1);
    Identity identity;
    tls::Context open, strict;
    check(open.load(identity.certificate, identity.key, "").empty(), "no context");
    check(strict.load(identity.certificate, identity.key, identity.certificate).empty(), "no context for clients");
    ClientContext nameless = client_context(nullptr), named = client_context(&identity);
    Totals totals;
    for (std::size_t each = 0; each < connections; ++each) {
        Connection(roll(4) ? open : strict, roll(3) ? nameless.get() : named.get()).run(totals);
    }
    std::printf(
        "%zu connections: %zu mutated, %zu established, %zu ended in error, %zu in order; "
        "%zu bytes received, %zu sent\n",
        connections, totals.mutated, totals.established, totals.errors, totals.orderly, totals.received, totals.sent);
    return 0;
}
