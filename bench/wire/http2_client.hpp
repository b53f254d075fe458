// The client's side of HTTP/2 and gRPC, as much of it as a load client needs against any server. Knows no sockets.
//
// In: bytes of the server, messages to send. Out: bytes to write in `out`, whole messages to a `Receiver`.
// Never: decoded headers; a status that a server sends is an end of the stream, which no load client expects.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace load {

// What an Envoy that is told nothing else would be generous with: far more than a push, so that windows never stall
// one.
inline constexpr std::uint32_t kWindow = 16u << 20;
inline constexpr std::int64_t kInitialWindow = 65535;
inline constexpr std::size_t kFrameBytesMax = 16384;
inline constexpr std::size_t kMessageBytesMax = 64u << 20;
inline constexpr std::size_t kFrameHead = 9;
inline constexpr std::size_t kMessageHead = 5;

class Receiver {
  public:
    virtual ~Receiver() = default;
    virtual void take_message(std::size_t stream, std::string_view message) = 0;
    virtual void take_failure(const char* what) = 0;
};

inline void append_number(std::string& to, std::uint64_t number, int bytes) {
    for (int at = bytes - 1; at >= 0; --at) to.push_back(static_cast<char>(number >> (8 * at)));
}

inline std::uint32_t number_at(std::string_view from, std::size_t at, std::size_t bytes) {
    std::uint32_t number = 0;
    for (std::size_t i = 0; i < bytes; ++i) number = number << 8 | static_cast<std::uint8_t>(from[at + i]);
    return number;
}

class Http2Client {
  public:
    explicit Http2Client(Receiver& receiver) : receiver_(receiver) {}

    // Written to the socket and then cleared by the caller.
    std::string out;

    // The preface and settings; the windows are opened once and refilled when half is used.
    void open() {
        out += "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        std::string settings;
        append_number(settings, 2, 2);  // ENABLE_PUSH
        append_number(settings, 0, 4);
        append_number(settings, 4, 2);  // INITIAL_WINDOW_SIZE
        append_number(settings, kWindow, 4);
        append_frame(Frame::kSettings, 0, 0, settings);
        append_window_update(0, kWindow);
    }

    // Begins a call; returns the number by which `send` and the receiver know it, from 0.
    std::size_t open_stream(std::string_view path, bool is_secure) {
        std::string block;
        block.push_back('\x83');                       // :method POST
        block.push_back(is_secure ? '\x87' : '\x86');  // :scheme
        append_literal(block, 4, {}, path);            // :path
        append_literal(block, 1, {}, "127.0.0.1");     // :authority
        append_literal(block, 0, "te", "trailers");
        append_literal(block, 31, {}, "application/grpc");
        append_literal(block, 58, {}, "grpc-load-client/1");
        streams_.emplace_back();
        streams_.back().send_window = peer_window_;
        append_frame(Frame::kHeaders, kEndHeaders, id_of(streams_.size() - 1), block);
        return streams_.size() - 1;
    }

    // Sends one gRPC message as far as the server's windows let it; the rest goes with its window updates.
    void send(std::size_t stream, std::string_view message) {
        std::string& unsent = streams_[stream].unsent;
        unsent.push_back('\0');
        append_number(unsent, message.size(), 4);
        unsent += message;
        write_unsent(stream);
    }

    // Takes in what the server sent; messages and failures go to the receiver.
    void receive(std::string_view data) {
        if (!partial_frame_.empty()) {
            partial_frame_ += data;
            const std::string joined = std::move(partial_frame_);
            partial_frame_.clear();
            partial_frame_ = joined.substr(take_frames(joined));
        } else {
            const std::size_t taken = take_frames(data);
            if (taken < data.size()) partial_frame_ = data.substr(taken);
        }
        if (partial_frame_.empty()) partial_frame_.shrink_to_fit();
    }

    // Whether everything that was sent is in `out` or beyond it.
    bool is_drained() const {
        return std::all_of(streams_.begin(), streams_.end(), [](const Stream& each) { return each.unsent.empty(); });
    }

  private:
    enum class Frame : std::uint8_t {
        kData = 0,
        kHeaders = 1,
        kReset = 3,
        kSettings = 4,
        kPing = 6,
        kGoaway = 7,
        kWindowUpdate = 8
    };
    static constexpr std::uint8_t kAck = 1, kEndStream = 1, kEndHeaders = 4, kPadded = 8;

    struct Stream {
        std::int64_t send_window = kInitialWindow;
        std::uint32_t taken = 0;
        std::string partial;
        std::string unsent;
    };

    static std::uint32_t id_of(std::size_t stream) { return static_cast<std::uint32_t>(2 * stream + 1); }

    void append_frame(Frame type, std::uint8_t flags, std::uint32_t id, std::string_view payload) {
        append_number(out, payload.size(), 3);
        out.push_back(static_cast<char>(type));
        out.push_back(static_cast<char>(flags));
        append_number(out, id, 4);
        out += payload;
    }

    void append_window_update(std::uint32_t id, std::uint32_t by) {
        std::string payload;
        append_number(payload, by, 4);
        append_frame(Frame::kWindowUpdate, 0, id, payload);
    }

    static void append_string(std::string& block, std::string_view text) {
        // A length of 7 bits, without Huffman (RFC 7541 5.2); our longest is the path.
        std::size_t rest = text.size();
        if (rest < 127) {
            block.push_back(static_cast<char>(rest));
        } else {
            block.push_back(127);
            for (rest -= 127; rest > 127; rest >>= 7) block.push_back(static_cast<char>(rest | 128));
            block.push_back(static_cast<char>(rest));
        }
        block += text;
    }

    // A literal without indexing (RFC 7541 6.2.2), so that no server's table is filled.
    static void append_literal(std::string& block, int index, std::string_view name, std::string_view value) {
        if (index < 15) {
            block.push_back(static_cast<char>(index));
        } else {
            block.push_back(15);
            block.push_back(static_cast<char>(index - 15));
        }
        if (index == 0) append_string(block, name);
        append_string(block, value);
    }

    void write_unsent(std::size_t stream) {
        Stream& each = streams_[stream];
        std::size_t at = 0;
        while (at < each.unsent.size()) {
            const std::int64_t room = std::min(each.send_window, send_window_);
            if (room <= 0) break;
            const std::size_t count =
                std::min({each.unsent.size() - at, kFrameBytesMax, static_cast<std::size_t>(room)});
            append_frame(Frame::kData, 0, id_of(stream), std::string_view(each.unsent).substr(at, count));
            at += count;
            each.send_window -= static_cast<std::int64_t>(count);
            send_window_ -= static_cast<std::int64_t>(count);
        }
        each.unsent.erase(0, at);
        if (each.unsent.empty()) each.unsent.shrink_to_fit();
    }

    std::size_t take_frames(std::string_view data) {
        std::size_t at = 0;
        while (data.size() - at >= kFrameHead) {
            const std::size_t length = number_at(data, at, 3);
            if (data.size() - at < kFrameHead + length) break;
            const auto type = static_cast<Frame>(data[at + 3]);
            const auto flags = static_cast<std::uint8_t>(data[at + 4]);
            const std::uint32_t id = number_at(data, at + 5, 4) & 0x7fffffff;
            take_frame(type, flags, id, data.substr(at + kFrameHead, length));
            at += kFrameHead + length;
        }
        return at;
    }

    void take_frame(Frame type, std::uint8_t flags, std::uint32_t id, std::string_view payload) {
        switch (type) {
            case Frame::kData:
                take_data(flags, id, payload);
                break;
            case Frame::kHeaders:
                if (flags & kEndStream) receiver_.take_failure("a call was ended by the server");
                break;
            case Frame::kReset:
                receiver_.take_failure("a call was reset");
                break;
            case Frame::kGoaway:
                receiver_.take_failure("the server said GOAWAY");
                break;
            case Frame::kSettings:
                if (!(flags & kAck)) take_settings(payload);
                break;
            case Frame::kPing:
                if (!(flags & kAck)) append_frame(Frame::kPing, kAck, 0, payload);
                break;
            case Frame::kWindowUpdate:
                take_window_update(id, payload);
                break;
            default:
                break;
        }
    }

    void take_settings(std::string_view payload) {
        for (std::size_t at = 0; at + 6 <= payload.size(); at += 6) {
            if (number_at(payload, at, 2) != 4) continue;
            // A new initial window moves that of every stream by the difference (RFC 9113 6.9.2).
            const std::int64_t window = number_at(payload, at + 2, 4);
            for (Stream& each : streams_) each.send_window += window - peer_window_;
            peer_window_ = window;
        }
        append_frame(Frame::kSettings, kAck, 0, {});
        for (std::size_t stream = 0; stream < streams_.size(); ++stream) write_unsent(stream);
    }

    void take_window_update(std::uint32_t id, std::string_view payload) {
        if (payload.size() != 4) return receiver_.take_failure("a WINDOW_UPDATE has another size");
        const std::int64_t by = number_at(payload, 0, 4) & 0x7fffffff;
        if (id == 0) {
            send_window_ += by;
            for (std::size_t stream = 0; stream < streams_.size(); ++stream) write_unsent(stream);
        } else if ((id - 1) / 2 < streams_.size()) {
            streams_[(id - 1) / 2].send_window += by;
            write_unsent((id - 1) / 2);
        }
    }

    void take_data(std::uint8_t flags, std::uint32_t id, std::string_view payload) {
        const std::size_t stream = (id - 1) / 2;
        if (id % 2 == 0 || stream >= streams_.size())
            return receiver_.take_failure("DATA on a stream that is not ours");
        refill(stream, static_cast<std::uint32_t>(payload.size()));
        if (flags & kPadded) {
            const auto padding = payload.empty() ? 1 : static_cast<std::uint8_t>(payload[0]) + std::size_t{1};
            if (padding > payload.size()) return receiver_.take_failure("DATA is all padding and more");
            payload = payload.substr(1, payload.size() - padding);
        }
        take_messages(stream, payload);
        if (flags & kEndStream) receiver_.take_failure("a call was ended by the server");
    }

    void refill(std::size_t stream, std::uint32_t count) {
        Stream& each = streams_[stream];
        if ((each.taken += count) >= kWindow / 2) {
            append_window_update(id_of(stream), each.taken);
            each.taken = 0;
        }
        if ((taken_ += count) >= kWindow / 2) {
            append_window_update(0, taken_);
            taken_ = 0;
        }
    }

    void take_messages(std::size_t stream, std::string_view data) {
        std::string& partial = streams_[stream].partial;
        std::string joined;
        if (!partial.empty()) {
            partial += data;
            joined.swap(partial);
            data = joined;
        }
        while (data.size() >= kMessageHead) {
            const std::size_t length = number_at(data, 1, 4);
            if (data[0] != 0 || length > kMessageBytesMax)
                return receiver_.take_failure("a message is not ours to read");
            if (data.size() - kMessageHead < length) break;
            receiver_.take_message(stream, data.substr(kMessageHead, length));
            data.remove_prefix(kMessageHead + length);
        }
        streams_[stream].partial = data;
        if (data.empty()) streams_[stream].partial.shrink_to_fit();
    }

    Receiver& receiver_;
    std::vector<Stream> streams_;
    std::string partial_frame_;
    std::int64_t send_window_ = kInitialWindow;
    std::int64_t peer_window_ = kInitialWindow;
    std::uint32_t taken_ = 0;
};

}  // namespace load
