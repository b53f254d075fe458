// One stream of a connection: what has come of a message, what is to go, how much may.
// In: messages to send, window updates. Out: the next piece of a DATA frame. Never: other streams, frames' headers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "grpc_stream.hpp"
#include "limits.hpp"
#include "payload.hpp"
#include "prefetch.hpp"

namespace kumafast::http2 {

// Messages waiting on one stream, oldest first: references, never copies. Holds no memory when it is empty.
class SendQueue {
  public:
    // Nothing is written before each message from now on: the stream is no gRPC.
    void leave_out_prefixes() { prefix_bytes_ = 0; }
    bool empty() const { return at_ == messages_.size(); }
    // What is to be written, with the prefixes of messages.
    std::size_t bytes() const { return bytes_; }
    std::size_t allocated() const { return messages_.capacity() * sizeof(Payload); }

    void push(Payload payload) {
        bytes_ += payload.size() + prefix_bytes_;
        messages_.push_back(std::move(payload));
    }

    std::size_t left_of_first() const { return messages_[at_].size() + prefix_bytes_ - offset_; }

    // Takes `count` octets, at most `left_of_first()`: `prefix(span)` is given those of the prefix, which must be
    // copied, and `share(payload, offset, count)` the rest.
    template <class Prefix, class Share>
    void take(std::size_t count, Prefix&& prefix, Share&& share) {
        Payload& first = messages_[at_];
        std::uint32_t size = static_cast<std::uint32_t>(first.size());
        bytes_ -= count;
        if (offset_ < prefix_bytes_) {
            std::uint8_t octets[grpc::kPrefixBytes] = {
                0, static_cast<std::uint8_t>(size >> 24), static_cast<std::uint8_t>(size >> 16),
                static_cast<std::uint8_t>(size >> 8), static_cast<std::uint8_t>(size)};
            std::size_t part = std::min(grpc::kPrefixBytes - offset_, count);
            prefix(std::span<const std::uint8_t>(octets + offset_, part));
            offset_ += part;
            count -= part;
        }
        if (count > 0) share(first, offset_ - prefix_bytes_, count);
        offset_ += count;
        if (offset_ == size + prefix_bytes_) drop_first();
    }

    void clear() {
        std::vector<Payload>().swap(messages_);
        at_ = bytes_ = offset_ = 0;
    }

  private:
    void drop_first() {
        offset_ = 0;
        messages_[at_++] = Payload();
        if (at_ == messages_.size()) clear();
    }

    std::vector<Payload> messages_;
    std::size_t at_ = 0;
    std::size_t bytes_ = 0;
    std::size_t offset_ = 0;
    std::size_t prefix_bytes_ = grpc::kPrefixBytes;
};

// A stream exists from its request's headers until both sides have ended it, or one has reset it. Its state in the
// words of RFC 9113 5.1: open, or half-closed (remote) once `is_remote_closed`; what has no Stream is idle or closed.
struct Stream {
    Stream(std::uint32_t stream_id, std::int64_t window) : id(stream_id), send_window(window) {}

    std::uint32_t id;
    bool is_remote_closed = false;
    bool has_sent_headers = false;
    // The application, or the session for it, has said how the stream ends; what still comes in is passed over.
    bool is_finishing = false;
    // Is in the session's list of streams that may have something to write.
    bool is_listed = false;
    // A plain request: its body is given to the application as it comes, its answer has a head and octets.
    bool is_http = false;
    // All of the answer is written while the client still speaks. Its body is passed over up to the limit: there are
    // clients that send all of it before they read, and then would wait for room for ever.
    bool is_answered = false;
    // A call's first message has come; the client owes more of it (`Session::note_owing`).
    bool is_heard = false;
    bool is_owing = false;
    std::uint8_t status = 0;
    // When something came of it last.
    double heard_at = 0;
    // May be negative after SETTINGS (RFC 9113 6.9.2).
    std::int64_t send_window;
    // Octets that came and were not given back by WINDOW_UPDATE.
    std::int64_t receive_used = 0;
    // What content-length promised and has not come; -1 where it promised nothing.
    std::int64_t content_left = -1;
    std::size_t body_bytes = 0;
    // The header block that begins a plain answer, until it is written.
    std::string head;
    std::string status_text;
    grpc::MessageReader reader;
    SendQueue queue;

    // What the application may still hold of the body.
    std::size_t held_of_body() const { return is_finishing ? 0 : body_bytes; }
    bool has_head() const { return has_sent_headers || !head.empty(); }
    // Whether a first message is missing, or the rest of one.
    bool owes() const {
        return !is_http && !is_finishing && !is_remote_closed && !(is_heard && reader.is_between_messages());
    }
    bool can_send() const {
        if (is_answered) return false;
        if (!head.empty()) return true;
        if (queue.empty()) return is_finishing;
        return send_window > 0;
    }
    std::size_t allocated() const {
        return sizeof(Stream) + head.capacity() + status_text.capacity() + reader.allocated() + queue.allocated();
    }
};

// Asks for the memory of a connection's first stream, in two steps: `step` 1 uses what 0 has asked for.
inline void prefetch_streams(const std::vector<std::unique_ptr<Stream>>& streams, int step) {
    if (streams.empty()) return;
    if (step == 0) return prefetch(streams.data(), sizeof streams[0]);
    prefetch(streams.front().get(), sizeof(Stream));
}

}  // namespace kumafast::http2
