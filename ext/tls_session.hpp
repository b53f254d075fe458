// TLS, the server's side, over memory: OpenSSL without a socket. Only where its headers were found (KUMAFAST_HAS_TLS).
// In: PEM files once; then ciphertext as it comes and plaintext to send. Out: plaintext; ciphertext to write.
// Never: versions below 1.2, renegotiation, session tickets (a reconnect costs a handshake; idle state costs all day).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "outgoing.hpp"
#include "prefetch.hpp"

#ifdef KUMAFAST_HAS_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <array>
#include <memory>

namespace kumafast::tls {

inline constexpr bool kIsAvailable = true;

// The newest error of this thread in words, and none left behind.
inline std::string take_error(const char* fallback) {
    unsigned long code = 0, each = 0;
    while ((each = ERR_get_error()) != 0) {
        if (code == 0) code = each;
    }
    if (code == 0) return fallback;
    char text[256];
    ERR_error_string_n(code, text, sizeof text);
    return text;
}

// Certificate, key and whom to trust. Immutable once loaded, and shared: sessions that began with one keep it, so that
// certificates are reloaded by loading another context for the sessions to come.
class Context {
  public:
    // `client_ca` is empty where clients need no certificate. Returns the error in words; empty: loaded.
    std::string load(const std::string& certificate, const std::string& key, const std::string& client_ca) {
        ERR_clear_error();
        std::shared_ptr<SSL_CTX> made(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
        if (!made) return take_error("no memory for TLS");
        SSL_CTX_set_min_proto_version(made.get(), TLS1_2_VERSION);
        SSL_CTX_set_options(made.get(), SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                            SSL_OP_CIPHER_SERVER_PREFERENCE);
        // Buffers are given back when they are empty: 32 KB less for each connection that idles.
        SSL_CTX_set_mode(
            made.get(), SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        // The shortest key first, as nearly everybody has it: ten rounds for a block instead of fourteen.
        SSL_CTX_set_ciphersuites(made.get(),
                                 "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
        // A record's head is not asked for by itself, but taken with what has come.
        SSL_CTX_set_read_ahead(made.get(), 1);
        SSL_CTX_set_session_cache_mode(made.get(), SSL_SESS_CACHE_OFF);
        SSL_CTX_set_num_tickets(made.get(), 0);
        SSL_CTX_set_alpn_select_cb(made.get(), choose_protocol, nullptr);
        if (SSL_CTX_use_certificate_chain_file(made.get(), certificate.c_str()) != 1 ||
            SSL_CTX_use_PrivateKey_file(made.get(), key.c_str(), SSL_FILETYPE_PEM) != 1 ||
            SSL_CTX_check_private_key(made.get()) != 1) {
            return take_error("the certificate or its key cannot be used");
        }
        if (!client_ca.empty()) {
            if (SSL_CTX_load_verify_locations(made.get(), client_ca.c_str(), nullptr) != 1) {
                return take_error("the clients' authority cannot be used");
            }
            SSL_CTX_set_client_CA_list(made.get(), SSL_load_client_CA_file(client_ca.c_str()));
            SSL_CTX_set_verify(made.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
        }
        context_ = std::move(made);
        return {};
    }
    SSL_CTX* get() const { return context_.get(); }

  private:
    // A client that offers neither goes on without: Envoy names no protocol, and the first bytes decide in any case.
    static int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* length, const unsigned char* offered,
                               unsigned int size, void*) {
        static constexpr unsigned char kOurs[] = "\x02h2\x08http/1.1";
        unsigned char* found = nullptr;
        if (SSL_select_next_proto(&found, length, kOurs, sizeof kOurs - 1, offered, size) != OPENSSL_NPN_NEGOTIATED) {
            return SSL_TLSEXT_ERR_NOACK;
        }
        *chosen = found;
        return SSL_TLSEXT_ERR_OK;
    }

    std::shared_ptr<SSL_CTX> context_;
};

// Ours instead of OpenSSL's memory BIO: that keeps the most that it ever held; this reads straight from what came and
// writes straight to what goes.
struct Pipe {
    std::span<const std::uint8_t> incoming;
    std::string outgoing;

    static int read(BIO* bio, char* data, std::size_t size, std::size_t* count) {
        Pipe& pipe = *static_cast<Pipe*>(BIO_get_data(bio));
        BIO_clear_retry_flags(bio);
        *count = std::min(size, pipe.incoming.size());
        if (*count == 0) {
            BIO_set_retry_read(bio);
            return 0;
        }
        std::copy_n(pipe.incoming.begin(), *count, reinterpret_cast<std::uint8_t*>(data));
        pipe.incoming = pipe.incoming.subspan(*count);
        return 1;
    }
    static int write(BIO* bio, const char* data, std::size_t size, std::size_t* count) {
        std::string& outgoing = static_cast<Pipe*>(BIO_get_data(bio))->outgoing;
        if (outgoing.empty()) outgoing.swap(spare());
        outgoing.append(data, size);
        *count = size;
        return 1;
    }
    static long control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

    // Empty, with room from before: each thread allocates once what most connections fill and empty again in one call.
    static std::string& spare() {
        static thread_local std::string spare;
        return spare;
    }

    static const BIO_METHOD* method() {
        static const BIO_METHOD* const kMethod = [] {
            BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "pipe");
            BIO_meth_set_read_ex(made, read);
            BIO_meth_set_write_ex(made, write);
            BIO_meth_set_ctrl(made, control);
            return made;
        }();
        return kMethod;
    }
};

class Session {
  public:
    explicit Session(const Context& context) : ssl_(SSL_new(context.get()), SSL_free) {
        BIO* bio = BIO_new(Pipe::method());
        BIO_set_data(bio, &pipe_);
        BIO_set_init(bio, 1);
        SSL_set_bio(ssl_.get(), bio, bio);
        SSL_set_accept_state(ssl_.get());
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    // Appends the plaintext that `ciphertext` completes. False: the session is over, by the client's will or an error;
    // `error` then has the words, empty for an orderly end.
    bool receive(std::span<const std::uint8_t> ciphertext, std::string& plaintext) {
        if (is_over_) return false;
        pipe_.incoming = ciphertext;
        forget_errors();
        // Records are at most 16 KB of plaintext. Nothing is kept here between two calls.
        static thread_local std::array<char, kRecordBytesMax> record;
        for (;;) {
            std::size_t count = 0;
            int result = SSL_read_ex(ssl_.get(), record.data(), record.size(), &count);
            if (result == 1) {
                plaintext.append(record.data(), count);
                if (!pipe_.incoming.empty() || SSL_has_pending(ssl_.get())) continue;
                // To ask once more would tell only that there is no more.
                return true;
            }
            int why = SSL_get_error(ssl_.get(), result);
            pipe_.incoming = {};
            if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) return true;
            is_over_ = true;
            if (why != SSL_ERROR_ZERO_RETURN) error_ = take_error("the connection broke");
            return false;
        }
    }

    // Asks for the memory that the next call uses first.
    void prefetch() const { kumafast::prefetch(ssl_.get(), kPrefetchBytes); }

    // Encrypts. Only after the handshake; before it nobody has anything to say. False: the session is over.
    bool send(std::span<const std::uint8_t> plaintext) {
        forget_errors();
        while (!plaintext.empty() && !is_over_) {
            std::size_t count = 0;
            if (SSL_write_ex(ssl_.get(), plaintext.data(), plaintext.size(), &count) != 1) {
                is_over_ = true;
                error_ = take_error("nothing can be sent");
            }
            plaintext = plaintext.subspan(count);
        }
        return !is_over_;
    }

    // The same for what a connection has gathered. A frame's head goes with its content, not in a record of its own.
    bool send(const Outgoing& plaintext) {
        if (plaintext.segments().size() == 1) return send(plaintext.octets(plaintext.segments().front()));
        static thread_local std::array<std::uint8_t, kRecordBytesMax> record;
        std::size_t count = 0;
        for (auto& segment : plaintext.segments()) {
            std::span<const std::uint8_t> octets = plaintext.octets(segment);
            while (!octets.empty()) {
                std::size_t part = std::min(octets.size(), record.size() - count);
                std::copy_n(octets.begin(), part, record.begin() + static_cast<std::ptrdiff_t>(count));
                octets = octets.subspan(part);
                count += part;
                if (count == record.size()) {
                    send(std::span<const std::uint8_t>(record));
                    count = 0;
                }
            }
        }
        return send(std::span<const std::uint8_t>(record).first(count));
    }

    // Says that nothing more will be sent.
    void close() {
        if (!is_over_ && is_established()) SSL_shutdown(ssl_.get());
        is_over_ = true;
        ERR_clear_error();
    }

    const std::string& outgoing() const { return pipe_.outgoing; }
    // Forgets what was outgoing: it has been written.
    void clear_outgoing() {
        pipe_.outgoing.clear();
        if (pipe_.outgoing.capacity() > kSpareBytesMax) return std::string().swap(pipe_.outgoing);
        Pipe::spare().swap(pipe_.outgoing);
        if (pipe_.outgoing.capacity() > 0) std::string().swap(pipe_.outgoing);
    }
    bool is_established() const { return SSL_is_init_finished(ssl_.get()); }
    bool is_over() const { return is_over_; }
    const std::string& error() const { return error_; }
    std::string version() const { return SSL_get_version(ssl_.get()); }
    std::string protocol() const {
        const unsigned char* name = nullptr;
        unsigned length = 0;
        SSL_get0_alpn_selected(ssl_.get(), &name, &length);
        return std::string(reinterpret_cast<const char*>(name), length);
    }
    // The client's certificate as DER; empty where it gave none.
    std::string client_certificate() const {
        std::string der;
        if (X509* certificate = SSL_get0_peer_certificate(ssl_.get())) {
            der.resize(static_cast<std::size_t>(std::max(0, i2d_X509(certificate, nullptr))));
            unsigned char* at = reinterpret_cast<unsigned char*>(der.data());
            i2d_X509(certificate, &at);
        }
        return der;
    }

  private:
    static constexpr std::size_t kSpareBytesMax = 1u << 20;
    static constexpr std::size_t kRecordBytesMax = 16384;
    // Of the 7.6 KB of OpenSSL's own object, 20 lines are used for a record: nearly all are within these.
    static constexpr std::size_t kPrefetchBytes = 3328;

    // OpenSSL tells one call's errors from another's only where none are left. There hardly ever are, and to clear its
    // list takes more than to look at it.
    static void forget_errors() {
        if (ERR_peek_error() != 0) ERR_clear_error();
    }

    Pipe pipe_;
    std::unique_ptr<SSL, decltype(&SSL_free)> ssl_;
    std::string error_;
    bool is_over_ = false;
};

}  // namespace kumafast::tls

#else

namespace kumafast::tls {

inline constexpr bool kIsAvailable = false;

// The same face with nothing behind it, so that the binding is one; `load` says why, and no session is ever made.
class Context {
  public:
    std::string load(const std::string&, const std::string&, const std::string&) {
        return "kumafast was built without OpenSSL";
    }
};
class Session {
  public:
    explicit Session(const Context&) {}
    bool receive(std::span<const std::uint8_t>, std::string&) { return false; }
    bool send(std::span<const std::uint8_t>) { return false; }
    bool send(const Outgoing&) { return false; }
    void close() {}
    std::string outgoing() const { return {}; }
    void clear_outgoing() {}
    void prefetch() const {}
    bool is_established() const { return false; }
    bool is_over() const { return true; }
    std::string error() const { return {}; }
    std::string version() const { return {}; }
    std::string protocol() const { return {}; }
    std::string client_certificate() const { return {}; }
};

}  // namespace kumafast::tls

#endif
