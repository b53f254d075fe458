// The server's side of one HTTP/2 connection (RFC 9113) that carries gRPC and plain requests, without socket or clock.
// In: octets as they come, and the time; messages, answers and statuses to send. Out: events; octets to write, as
// pieces of which the large ones are shared. Never: I/O; more state for a peer than limits.hpp allows; priorities,
// server push.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "grpc_stream.hpp"
#include "hpack.hpp"
#include "http2_frames.hpp"
#include "http2_request.hpp"
#include "http2_stream.hpp"
#include "limits.hpp"
#include "payload.hpp"

namespace kumafast::http2 {

struct Event {
    enum class Kind : std::uint8_t {
        kRequest,      // text: the path; headers; timeout
        kMessage,      // text: the message, or what has come of the body
        kHalfClose,    // the client sends no more on this stream
        kReset,        // the stream is gone; code: why
        kEnd,          // the connection cannot go on, and its streams are gone; code: why, text: in words
        kHttpRequest,  // no gRPC. text: the path; method; headers
    };
    Kind kind;
    std::uint32_t stream = 0;
    std::uint32_t code = 0;
    std::string text = {};
    Fields headers = {};
    // Nanoseconds; negative where the client gave none.
    std::int64_t timeout = -1;
    std::string method = {};
};

// The octets of one connection's messages that are not complete, counted for the whole process too.
class Partial {
  public:
    Partial() = default;
    Partial(const Partial&) = delete;
    ~Partial() { *this = 0; }
    Partial& operator=(std::size_t bytes) {
        all_.fetch_add(bytes - bytes_, std::memory_order_relaxed);
        bytes_ = bytes;
        return *this;
    }
    Partial& operator=(const Partial&) = delete;
    Partial& operator-=(std::size_t bytes) { return *this = bytes_ - bytes; }
    operator std::size_t() const { return bytes_; }
    static std::size_t of_all() { return all_.load(std::memory_order_relaxed); }

  private:
    static inline std::atomic<std::size_t> all_ = 0;
    std::size_t bytes_ = 0;
};

enum class Sent : std::uint8_t { kQueued, kGone, kFull };

struct SessionOptions {
    std::size_t message_bytes_max = limits::kMessageBytesMax;
    std::uint32_t streams_max = limits::kStreamsMax;
};

class Session {
  public:
    explicit Session(const SessionOptions& options) : options_(options) {
        std::string settings;
        write_setting(settings, Setting::kMaxConcurrentStreams, options.streams_max);
        write_setting(settings, Setting::kInitialWindowSize, limits::kStreamWindow);
        write_setting(settings, Setting::kMaxHeaderListSize, limits::kHeaderListBytesMax);
        write_frame(control_, FrameType::kSettings, 0, 0, settings);
        write_frame32(control_, FrameType::kWindowUpdate, 0, limits::kConnectionWindow - limits::kInitialWindow);
    }

    // Appends what `octets` bring to `events`. `now`: seconds of a clock that never goes back. Frames
    // are taken in while there are fewer events than `events_max`, and header lists of few octets; where `is_behind`
    // says that some are left, nothing more should be read before `receive` of nothing has taken them in.
    void receive(std::span<const std::uint8_t> octets, double now, std::vector<Event>& events,
                 std::size_t events_max = SIZE_MAX) {
        if (is_failed_) return;
        events_ = &events;
        refill(now);
        std::string joined;
        if (!pending_.empty()) {
            joined.swap(pending_);
            joined.append(reinterpret_cast<const char*>(octets.data()), octets.size());
            octets = {reinterpret_cast<const std::uint8_t*>(joined.data()), joined.size()};
        }
        if (!has_preface_ && !read_preface(octets)) return;
        for (decoded_ = 0; !is_failed_ && octets.size() >= kFrameHeaderBytes && has_room(events_max);) {
            FrameHeader frame = read_frame_header(octets.data());
            if (frame.length > limits::kFrameBytesMax) {
                return fail(ErrorCode::kFrameSizeError, "a frame larger than SETTINGS_MAX_FRAME_SIZE");
            }
            if (octets.size() < kFrameHeaderBytes + frame.length) break;
            read_frame(frame, octets.subspan(kFrameHeaderBytes, frame.length));
            octets = octets.subspan(kFrameHeaderBytes + frame.length);
            if (control_.size() > limits::kControlBytesMax) {
                fail(ErrorCode::kEnhanceYourCalm, "answers are not being read");
            }
        }
        if (!is_failed_) pending_.assign(octets.begin(), octets.end());
    }

    // Whether something has been given to `receive` and could be taken in now.
    bool is_behind() const {
        if (is_failed_ || pending_.size() < kFrameHeaderBytes || !has_preface_) return false;
        return pending_.size() >=
               kFrameHeaderBytes + read_frame_header(reinterpret_cast<const std::uint8_t*>(pending_.data())).length;
    }

    // Whether the client has begun something and left the rest for later; also a call without its first message.
    bool owes() const {
        return !is_failed_ && (!has_settings_ || block_stream_ != 0 || !pending_.empty() || owing_ > 0);
    }
    // Ends what is left so since `before`, a time as `receive` is given: calls with DEADLINE_EXCEEDED, else all.
    void end_silence(double before, std::vector<Event>& events);
    void prefetch(int step) const { prefetch_streams(streams_, step); }

    // Queues one message. kFull: the client does not read, and nothing was queued.
    Sent send(std::uint32_t id, const Payload& payload) {
        Stream* stream = find(id);
        if (!stream || stream->is_finishing || (stream->is_http && !stream->has_head())) return Sent::kGone;
        // An octet of nothing is said by nothing, where no prefix goes before it.
        if (stream->is_http && payload.size() == 0) return Sent::kQueued;
        std::size_t queued = stream->queue.bytes();
        if (queued > 0 && queued + payload.size() > limits::kQueuedBytesMax) return Sent::kFull;
        stream->queue.push(payload);
        list(*stream);
        return Sent::kQueued;
    }

    // Begins the answer to a plain request; `head` comes from `write_head`. False: it is gone, or has begun already.
    bool respond(std::uint32_t id, std::string head) {
        Stream* stream = find(id);
        if (!stream || stream->is_finishing || !stream->is_http || stream->has_head()) return false;
        stream->head = std::move(head);
        list(*stream);
        return true;
    }

    // Ends a stream with a gRPC status, after what is queued. False: it is gone, or ends already. A plain answer ends
    // where it is, and in an error for any status but 0.
    bool finish(std::uint32_t id, std::uint8_t status, std::string_view text) {
        Stream* stream = find(id);
        if (!stream || stream->is_finishing) return false;
        if (stream->is_http && !(status == 0 && stream->has_head())) {
            refuse_http(*stream, 500, ErrorCode::kInternalError);
        } else {
            refuse(*stream, status, text);
        }
        return true;
    }

    // Ends a stream at once; what is queued is dropped. False: it is gone.
    bool reset(std::uint32_t id, ErrorCode code) {
        if (!find(id)) return false;
        reset_stream(id, code);
        return true;
    }

    // Octets that are queued on a stream; 0 also where it is gone.
    std::size_t queued(std::uint32_t id) const {
        const Stream* stream = find(id);
        return stream ? stream->queue.bytes() : 0;
    }

    // Asks the client to open no more streams. Those on their way are served; once it has answered, later ones are not
    // (RFC 9113 6.8); the connection is done when its last stream is. A second call does not wait for the answer.
    void drain() {
        if (is_failed_ || drain_ == Drain::kDone) return;
        if (drain_ == Drain::kAsked) {
            end_drain();
            return;
        }
        drain_ = Drain::kAsked;
        write_goaway(kStreamIdMax, ErrorCode::kNoError, "");
        write_frame(control_, FrameType::kPing, 0, 0, kDrainPing);
    }

    // Gives `sink` what may be written now, at most about `budget` octets, streams in turn: `sink.copy(span)` is given
    // what lives for the call only, `sink.share(payload, offset, count)` what lives as long as the payload.
    template <class Sink>
    void collect(Sink& sink, std::size_t budget) {
        if (!control_.empty()) {
            sink.copy(std::span(reinterpret_cast<const std::uint8_t*>(control_.data()), control_.size()));
            budget -= std::min(budget, control_.size());
            std::string().swap(control_);
        }
        bool is_moving = true;
        while (is_moving && budget > 0 && !listed_.empty()) {
            is_moving = false;
            std::vector<std::uint32_t> turn;
            turn.swap(listed_);
            for (std::uint32_t id : turn) {
                Stream* stream = find(id);
                if (!stream) continue;
                stream->is_listed = false;
                if (budget > 0) is_moving |= write_stream(*stream, sink, budget);
                // Written to the end, it may be gone.
                if ((stream = find(id)) && stream->can_send()) list(*stream);
            }
        }
        if (listed_.empty()) std::vector<std::uint32_t>().swap(listed_);
    }

    // Nothing more will come of the connection once what is collected has been written.
    bool want_close() const { return control_.empty() && (is_failed_ || (drain_ == Drain::kDone && streams_.empty())); }
    std::size_t stream_count() const { return streams_.size(); }
    std::size_t partial_bytes() const { return partial_bytes_; }
    std::size_t bodies_bytes() const { return bodies_bytes_; }

    // All that the session holds, itself included; the overhead of the allocator is not.
    std::size_t allocated() const {
        std::size_t bytes = sizeof(Session) + hpack_.allocated() + pending_.capacity() + control_.capacity() +
                            block_.capacity() + listed_.capacity() * sizeof(std::uint32_t) +
                            streams_.capacity() * sizeof(streams_[0]);
        for (auto& stream : streams_) bytes += stream->allocated();
        return bytes;
    }

  private:
    enum class Drain : std::uint8_t { kNone, kAsked, kDone };
    static constexpr std::string_view kDrainPing = "draining";
    using Octets = std::span<const std::uint8_t>;

    // ---- Receiving: http2_receive.hpp
    bool read_preface(Octets& octets);
    void read_frame(const FrameHeader& frame, Octets content);
    void read_data(const FrameHeader& frame, Octets content);
    void read_content(Stream& stream, Octets content, bool is_last);
    void read_headers(const FrameHeader& frame, Octets content);
    void read_continuation(const FrameHeader& frame, Octets content);
    void end_block(std::uint32_t id, bool is_last, Octets block);
    void end_trailers(Stream& stream, bool is_last, bool is_malformed);
    void open_stream(std::uint32_t id, bool is_last, Request& request);
    void open_http(Stream& stream, bool is_last, Request& request);
    bool read_body(Stream& stream, Octets content);
    void read_reset(const FrameHeader& frame, Octets content);
    void read_settings(const FrameHeader& frame, Octets content);
    void apply_setting(Setting setting, std::uint32_t value);
    void read_ping(const FrameHeader& frame, Octets content);
    void read_window_update(const FrameHeader& frame, Octets content);
    void half_close(Stream& stream);

    // ---- Errors
    // A connection error (RFC 9113 5.4.1).
    void fail(ErrorCode code, std::string_view why) {
        if (is_failed_) return;
        is_failed_ = true;
        // Answers that nobody reads are not worth their memory any more.
        if (control_.size() > limits::kControlBytesMax) std::string().swap(control_);
        write_goaway(last_id_, code, why);
        events_->push_back({Event::Kind::kEnd, 0, static_cast<std::uint32_t>(code), std::string(why)});
        streams_.clear();
        owing_ = 0;
        listed_.clear();
        partial_bytes_ = bodies_bytes_ = 0;
        std::string().swap(block_);
    }
    // A stream error (RFC 9113 5.4.2) of the client's.
    void break_stream(Stream& stream, ErrorCode code) {
        tell_reset(stream, code);
        reset_stream(stream.id, code);
        spend(limits::kCostOfRefusal, "too many broken streams");
    }
    void reset_stream(std::uint32_t id, ErrorCode code) {
        erase(id);
        recently_reset_[recently_reset_at_++ % limits::kRecentlyResetMax] = id;
        write_frame32(control_, FrameType::kRstStream, id, static_cast<std::uint32_t>(code));
    }
    void tell_reset(const Stream& stream, ErrorCode code, std::string_view why = {}) {
        // What the application has ended is none of its business any more.
        if (stream.is_finishing) return;
        events_->push_back({Event::Kind::kReset, stream.id, static_cast<std::uint32_t>(code), std::string(why)});
    }
    // Ends a stream in words that a gRPC client understands, and tells the application.
    void refuse_told(Stream& stream, const grpc::Refusal& refusal) {
        tell_reset(stream, ErrorCode::kCancel, refusal.text);
        refuse(stream, static_cast<std::uint8_t>(refusal.status), refusal.text);
    }
    void refuse(Stream& stream, std::uint8_t status, std::string_view text) {
        partial_bytes_ -= stream.reader.held();
        bodies_bytes_ -= stream.held_of_body();
        stream.reader = {};
        stream.is_finishing = true;
        note_owing(stream);
        stream.status = status;
        stream.status_text = text.substr(0, limits::kStatusTextMax);
        list(stream);
    }
    // Ends a plain request with a status alone, or, where its answer has begun already, by a reset.
    void refuse_http(Stream& stream, std::uint16_t status, ErrorCode code) {
        if (stream.has_head()) return reset_stream(stream.id, code);
        stream.is_http = true;
        write_head(stream.head, status, {{"content-length", "0"}});
        refuse(stream, 0, {});
    }

    // How much may be held of a stream's message that is not complete, where so much is held of others already.
    std::size_t room_beside(std::size_t others) const {
        std::size_t most = options_.message_bytes_max * limits::kPartialMessagesMax;
        std::size_t of_all = limits::kPartialBytesOfAllMax - std::min(limits::kPartialBytesOfAllMax, Partial::of_all());
        std::size_t shared = std::max(limits::kPartialBytesOfEach, partial_bytes_ + of_all);
        most = std::min(most, shared);
        return most - std::min(most, others);
    }

    // ---- The budget
    void refill(double now) {
        budget_ = std::min(limits::kBudgetMax, budget_ + std::max(0.0, now - last_refill_) * limits::kBudgetEachSecond);
        last_refill_ = now;
    }
    bool has_room(std::size_t events_max) const;
    void spend(double cost, std::string_view what) {
        budget_ -= cost;
        if (budget_ < 0) fail(ErrorCode::kEnhanceYourCalm, what);
    }

    // ---- Streams
    // Ids only grow, so that streams stand in their order.
    std::vector<std::unique_ptr<Stream>>::const_iterator place(std::uint32_t id) const {
        return std::ranges::lower_bound(streams_, id, {}, [](auto& stream) { return stream->id; });
    }
    Stream* find(std::uint32_t id) const {
        auto at = place(id);
        return at != streams_.end() && (*at)->id == id ? at->get() : nullptr;
    }
    bool is_idle(std::uint32_t id) const { return id % 2 == 0 || id > last_id_; }
    bool was_reset(std::uint32_t id) const { return std::ranges::find(recently_reset_, id) != recently_reset_.end(); }
    void erase(std::uint32_t id) {
        auto at = place(id);
        if (at == streams_.end() || (*at)->id != id) return;
        partial_bytes_ -= (*at)->reader.held();
        bodies_bytes_ -= (*at)->held_of_body();
        owing_ -= (*at)->is_owing;
        streams_.erase(at);
        if (streams_.empty()) std::vector<std::unique_ptr<Stream>>().swap(streams_);
    }
    void note_owing(Stream& stream) {
        if (stream.owes() == stream.is_owing) return;
        stream.is_owing = !stream.is_owing;
        owing_ += stream.is_owing ? 1 : -1;
    }
    void list(Stream& stream) {
        if (stream.is_listed) return;
        stream.is_listed = true;
        listed_.push_back(stream.id);
    }

    // ---- Writing
    void write_goaway(std::uint32_t last, ErrorCode code, std::string_view why) {
        std::string content;
        write32(content, last);
        write32(content, static_cast<std::uint32_t>(code));
        write_frame(control_, FrameType::kGoaway, 0, 0, content.append(why));
    }
    void end_drain() {
        drain_ = Drain::kDone;
        write_goaway(last_id_, ErrorCode::kNoError, "");
        // Nobody waits for the rest of what is answered.
        for (std::size_t at = streams_.size(); at-- > 0;) {
            if (streams_[at]->is_answered) reset_stream(streams_[at]->id, ErrorCode::kNoError);
        }
    }
    // A new header block; it begins by giving up the table that we never use, once the client has made it smaller
    // (RFC 7541 4.2).
    std::string begin_block() {
        std::string block;
        if (owes_table_update_) block.push_back('\x20');
        owes_table_update_ = false;
        return block;
    }
    template <class Sink>
    void write_block(Sink& sink, std::uint32_t id, std::uint8_t flags, std::string_view block, std::size_t& budget) {
        std::string frame;
        write_frame(frame, FrameType::kHeaders, flags | flag::kEndHeaders, id, block);
        sink.copy(Octets(reinterpret_cast<const std::uint8_t*>(frame.data()), frame.size()));
        budget -= std::min(budget, frame.size());
    }
    // Writes one frame, or the headers of the end. False: the windows do not let it.
    template <class Sink>
    bool write_stream(Stream& stream, Sink& sink, std::size_t& budget) {
        if (!stream.head.empty() && !write_answer(stream, sink, budget)) return false;
        if (stream.queue.empty()) {
            if (stream.is_finishing) write_end(stream, sink, budget);
            return false;
        }
        std::int64_t window = std::min(stream.send_window, send_window_);
        if (window <= 0) return false;
        if (!stream.has_sent_headers) {
            std::string block = begin_block();
            grpc::write_headers(block);
            write_block(sink, stream.id, 0, block, budget);
            stream.has_sent_headers = true;
        }
        std::size_t count = std::min<std::size_t>({stream.queue.left_of_first(), static_cast<std::size_t>(window),
                                                   static_cast<std::size_t>(frame_bytes_max_)});
        std::uint8_t header[kFrameHeaderBytes];
        put_frame_header(header, static_cast<std::uint32_t>(count), FrameType::kData, 0, stream.id);
        sink.copy(Octets(header));
        stream.queue.take(
            count, [&](Octets octets) { sink.copy(octets); },
            [&](const Payload& payload, std::size_t offset, std::size_t part) { sink.share(payload, offset, part); });
        stream.send_window -= static_cast<std::int64_t>(count);
        send_window_ -= static_cast<std::int64_t>(count);
        budget -= std::min(budget, count + kFrameHeaderBytes);
        budget_ = std::min(limits::kBudgetMax, budget_ + limits::kBudgetEachFrameSent);
        return true;
    }
    template <class Sink>
    void write_end(Stream& stream, Sink& sink, std::size_t& budget) {
        if (stream.is_http) {
            std::uint8_t header[kFrameHeaderBytes];
            put_frame_header(header, 0, FrameType::kData, flag::kEndStream, stream.id);
            sink.copy(Octets(header));
            budget -= std::min(budget, kFrameHeaderBytes);
        } else {
            std::string block = begin_block();
            if (!stream.has_sent_headers) grpc::write_headers(block);
            grpc::write_trailers(block, stream.status, stream.status_text);
            write_block(sink, stream.id, flag::kEndStream, block, budget);
        }
        close_local(stream);
    }
    // Writes the head of a plain answer. False: with it the answer ends, and the stream may be gone.
    template <class Sink>
    bool write_answer(Stream& stream, Sink& sink, std::size_t& budget) {
        bool is_all = stream.is_finishing && stream.queue.empty();
        std::string block = begin_block() + stream.head;
        std::string().swap(stream.head);
        stream.has_sent_headers = true;
        write_block(sink, stream.id, is_all ? flag::kEndStream : 0, block, budget);
        if (is_all) close_local(stream);
        return !is_all;
    }
    // After our last word on a stream.
    void close_local(Stream& stream) {
        if (stream.is_remote_closed) return erase(stream.id);
        if (stream.is_http && drain_ != Drain::kDone && stream.body_bytes <= limits::kBodyBytesMax) {
            stream.is_answered = true;
            return;
        }
        // Nobody needs what the client still has to say (RFC 9113 8.1).
        reset_stream(stream.id, ErrorCode::kNoError);
    }

    SessionOptions options_;
    // Where `receive` puts what it finds; of no meaning outside of it.
    std::vector<Event>* events_ = nullptr;
    // Part of a frame, or of the preface.
    std::string pending_;
    // Whole frames that go before all streams: answers, resets, window updates.
    std::string control_;
    // Part of a header block, while `block_stream_` is not 0.
    std::string block_;
    std::vector<std::unique_ptr<Stream>> streams_;
    // Ids of streams that may have something to write.
    std::vector<std::uint32_t> listed_;
    HpackDecoder hpack_;
    double budget_ = limits::kBudgetMax;
    double last_refill_ = 0;
    std::size_t decoded_ = 0;  // octets of header lists in this call of `receive`
    std::int64_t send_window_ = limits::kInitialWindow;
    std::int64_t receive_used_ = 0;
    // What new streams may be sent.
    std::int64_t initial_window_ = limits::kInitialWindow;
    Partial partial_bytes_;
    std::size_t bodies_bytes_ = 0;
    std::uint32_t frame_bytes_max_ = 16384;
    std::uint32_t table_bytes_ = limits::kHeaderTableBytes;
    std::uint32_t last_id_ = 0;
    std::uint32_t block_stream_ = 0;
    std::uint32_t continuations_ = 0;
    // Streams with something begun and not ended.
    std::int32_t owing_ = 0;
    std::array<std::uint32_t, limits::kRecentlyResetMax> recently_reset_{};
    std::uint8_t recently_reset_at_ = 0;
    bool is_block_last_ = false;
    bool has_preface_ = false;
    bool has_settings_ = false;
    bool owes_table_update_ = false;
    bool is_failed_ = false;
    Drain drain_ = Drain::kNone;
};

}  // namespace kumafast::http2

#include "http2_receive.hpp"  // IWYU pragma: export
