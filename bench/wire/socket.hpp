// A non-blocking socket towards the server, with TLS or without: bytes in, bytes out, nothing is blocked on.
//
// In: an address, a port, an SSL_CTX or none. Out: what could be read or written by now.
// Never: epoll, which the load client owns; a check of the server's certificate, which is no part of the load.
#pragma once

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef LOAD_HAS_TLS
#include <openssl/ssl.h>
#endif

#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>

namespace load {

#ifdef LOAD_HAS_TLS
inline constexpr bool kHasTls = true;
using TlsContext = SSL_CTX;

inline TlsContext* create_tls_context() {
    SSL_CTX* context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, nullptr);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(context,
                     SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>("\x02h2"), 3);
    return context;
}
inline void free_tls_context(TlsContext* context) { SSL_CTX_free(context); }
#else
inline constexpr bool kHasTls = false;
struct TlsContext;
inline TlsContext* create_tls_context() { return nullptr; }
inline void free_tls_context(TlsContext*) {}
#endif

enum class Progress { kDone, kWait, kFailed };

class Socket {
  public:
    Socket() = default;
    Socket(const Socket&) = delete;
    Socket& operator=(const Socket&) = delete;
    ~Socket() { close(); }

    int fd() const { return fd_; }

    // Begins to connect, from 127.0.0.`source`; the kernel chooses the port when it knows both ends.
    bool connect(std::uint16_t port, std::uint8_t source) {
        fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd_ < 0) return false;
        const int yes = 1;
        setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        setsockopt(fd_, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(0x7f000000u | source);
        if (bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return false;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(port);
        return ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 || errno == EINPROGRESS;
    }

    // Called when the socket is connected, and again until it is done.
    Progress shake_hands([[maybe_unused]] TlsContext* context) {
#ifdef LOAD_HAS_TLS
        if (context == nullptr) return Progress::kDone;
        if (tls_ == nullptr) {
            tls_ = SSL_new(context);
            if (tls_ == nullptr || SSL_set_fd(tls_, fd_) != 1) return Progress::kFailed;
            SSL_set_connect_state(tls_);
        }
        const int result = SSL_do_handshake(tls_);
        return result == 1 ? Progress::kDone : progress_of(result);
#else
        return Progress::kDone;
#endif
    }

    // Reads what there is, up to the buffer's size; `count` says how much.
    Progress read(char* buffer, std::size_t size, std::size_t& count) {
        count = 0;
#ifdef LOAD_HAS_TLS
        if (tls_ != nullptr) {
            const int result = SSL_read_ex(tls_, buffer, size, &count);
            return result == 1 ? Progress::kDone : progress_of(result);
        }
#endif
        const ssize_t result = recv(fd_, buffer, size, 0);
        if (result > 0) {
            count = static_cast<std::size_t>(result);
            return Progress::kDone;
        }
        return result < 0 && errno == EAGAIN ? Progress::kWait : Progress::kFailed;
    }

    // Writes as much as goes and takes it off the front of `bytes`.
    Progress write(std::string& bytes) {
        std::size_t count = 0;
#ifdef LOAD_HAS_TLS
        if (tls_ != nullptr) {
            const int result = SSL_write_ex(tls_, bytes.data(), bytes.size(), &count);
            if (result != 1) return progress_of(result);
        } else
#endif
        {
            const ssize_t result = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (result < 0) return errno == EAGAIN ? Progress::kWait : Progress::kFailed;
            count = static_cast<std::size_t>(result);
        }
        bytes.erase(0, count);
        return bytes.empty() ? Progress::kDone : Progress::kWait;
    }

    // What the kernel has counted: how the server cut what it wrote can be seen only here.
    bool kernel_counts(tcp_info& counts) const {
        socklen_t length = sizeof counts;
        return fd_ >= 0 && getsockopt(fd_, IPPROTO_TCP, TCP_INFO, &counts, &length) == 0;
    }

    void close() {
#ifdef LOAD_HAS_TLS
        if (tls_ != nullptr) SSL_free(tls_);
        tls_ = nullptr;
#endif
        if (fd_ >= 0) ::close(fd_);
        fd_ = -1;
    }

  private:
#ifdef LOAD_HAS_TLS
    Progress progress_of(int result) const {
        const int error = SSL_get_error(tls_, result);
        return error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? Progress::kWait : Progress::kFailed;
    }

    SSL* tls_ = nullptr;
#endif
    int fd_ = -1;
};

}  // namespace load
