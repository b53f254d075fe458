// A socket that does not block, and the time: what the wire asks of the system.
// In: a descriptor, what was gathered for it. Out: how much of that it has taken, what it has brought.
// Never: waiting; closing it.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "outgoing.hpp"

namespace kumafast {

inline double steady_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

#ifdef MSG_NOSIGNAL
inline constexpr int kSendFlags = MSG_NOSIGNAL;
#else
inline constexpr int kSendFlags = 0;
#endif

// Writes what the socket takes now, as one call of the system, and returns how many octets that was. 0 may mean that it
// has failed: whoever reads from it is told.
inline std::size_t send_now(int descriptor, const void* octets, std::size_t count) {
    ssize_t taken = ::send(descriptor, octets, count, kSendFlags);
    return taken > 0 ? static_cast<std::size_t>(taken) : 0;
}

inline std::size_t send_now(int descriptor, const Outgoing& outgoing) {
    constexpr std::size_t kPiecesMax = 16;
    std::array<iovec, kPiecesMax> pieces;
    std::size_t count = 0;
    for (auto& segment : outgoing.segments()) {
        if (count == kPiecesMax) break;
        pieces[count++] = {const_cast<std::uint8_t*>(outgoing.octets(segment).data()), segment.count};
    }
    if (count == 1) return send_now(descriptor, pieces[0].iov_base, pieces[0].iov_len);
    if (count == 0) return 0;
    msghdr message{};
    message.msg_iov = pieces.data();
    message.msg_iovlen = count;
    ssize_t taken = ::sendmsg(descriptor, &message, kSendFlags);
    return taken > 0 ? static_cast<std::size_t>(taken) : 0;
}

// Reads what the socket has, at most `count` octets, as one call of the system. 0: it has ended. Negative: the error by
// which it has failed, but that EAGAIN means only that there is nothing just now.
inline std::int64_t receive_now(int descriptor, void* octets, std::size_t count) {
    ssize_t taken = ::recv(descriptor, octets, count, MSG_DONTWAIT);
    if (taken >= 0) return taken;
    return errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
}

}  // namespace kumafast
