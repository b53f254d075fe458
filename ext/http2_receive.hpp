// The receiving half of `http2::Session`: one function for each type of frame (RFC 9113 section 6).
// In: whole frames, in order. Out: events, answers in `control_`, streams opened and ended.
// Never: trust in a number that the client sends before it is compared with its limit.
#pragma once

#include "http2_session.hpp"

namespace kumafast::http2 {

// Takes the preface off the front. False: it is not complete yet, or wrong.
inline bool Session::read_preface(Octets& octets) {
    std::size_t known = std::min(octets.size(), kPreface.size());
    if (!std::equal(octets.begin(), octets.begin() + known, kPreface.begin())) {
        fail(ErrorCode::kProtocolError, "not the preface of HTTP/2");
        return false;
    }
    if (known < kPreface.size()) {
        pending_.assign(octets.begin(), octets.end());
        return false;
    }
    has_preface_ = true;
    octets = octets.subspan(known);
    return true;
}

inline void Session::read_frame(const FrameHeader& frame, Octets content) {
    if (block_stream_ != 0 && (frame.type != FrameType::kContinuation || frame.stream != block_stream_)) {
        return fail(ErrorCode::kProtocolError, "a header block was interrupted");
    }
    if (!has_settings_ && (frame.type != FrameType::kSettings || frame.has(flag::kAck))) {
        return fail(ErrorCode::kProtocolError, "the first frame must be SETTINGS");
    }
    switch (frame.type) {
        case FrameType::kData:
            return read_data(frame, content);
        case FrameType::kHeaders:
            return read_headers(frame, content);
        case FrameType::kContinuation:
            return read_continuation(frame, content);
        case FrameType::kRstStream:
            return read_reset(frame, content);
        case FrameType::kSettings:
            return read_settings(frame, content);
        case FrameType::kPing:
            return read_ping(frame, content);
        case FrameType::kWindowUpdate:
            return read_window_update(frame, content);
        case FrameType::kPushPromise:
            return fail(ErrorCode::kProtocolError, "a client must not push");
        case FrameType::kPriority:
            // Nothing depends on it, but its form is checked (RFC 9113 6.3).
            if (frame.stream == 0) return fail(ErrorCode::kProtocolError, "PRIORITY for no stream");
            if (content.size() != 5) {
                if (Stream* stream = find(frame.stream)) return break_stream(*stream, ErrorCode::kFrameSizeError);
                return fail(ErrorCode::kFrameSizeError, "PRIORITY has 5 octets");
            }
            return spend(limits::kCostOfSmallFrame, "too many small frames");
        case FrameType::kGoaway:
            // Its streams go on; it opens no more, which needs no answer.
            if (frame.stream != 0) return fail(ErrorCode::kProtocolError, "GOAWAY for a stream");
            if (content.size() < 8) return fail(ErrorCode::kFrameSizeError, "GOAWAY has at least 8 octets");
            return spend(limits::kCostOfSmallFrame, "too many small frames");
    }
    // Types that are not known are ignored (RFC 9113 5.5).
    spend(limits::kCostOfSmallFrame, "too many frames of unknown types");
}

inline void Session::read_data(const FrameHeader& frame, Octets content) {
    if (frame.stream == 0) return fail(ErrorCode::kProtocolError, "DATA for no stream");
    // Padding counts, and so does what is passed over (RFC 9113 6.9.1).
    receive_used_ += frame.length;
    if (receive_used_ > limits::kConnectionWindow) {
        return fail(ErrorCode::kFlowControlError, "more DATA than the connection's window");
    }
    if (receive_used_ >= limits::kConnectionWindow / 2) {
        write_frame32(control_, FrameType::kWindowUpdate, 0, static_cast<std::uint32_t>(receive_used_));
        receive_used_ = 0;
    }
    if (!strip_padding(frame, content)) return fail(ErrorCode::kProtocolError, "padding longer than its frame");
    bool is_last = frame.has(flag::kEndStream);
    if (content.empty() && !is_last) spend(limits::kCostOfSmallFrame, "too many empty frames");
    Stream* stream = find(frame.stream);
    if (!stream) {
        if (is_failed_ || was_reset(frame.stream)) return;
        if (is_idle(frame.stream)) return fail(ErrorCode::kProtocolError, "DATA for an idle stream");
        reset_stream(frame.stream, ErrorCode::kStreamClosed);
        return spend(limits::kCostOfRefusal, "too much for closed streams");
    }
    if (stream->is_remote_closed) return break_stream(*stream, ErrorCode::kStreamClosed);
    stream->receive_used += frame.length;
    if (stream->receive_used > limits::kStreamWindow) return break_stream(*stream, ErrorCode::kFlowControlError);
    if (stream->content_left >= 0) {
        stream->content_left -= static_cast<std::int64_t>(content.size());
        if (stream->content_left < 0 || (is_last && stream->content_left > 0)) {
            return break_stream(*stream, ErrorCode::kProtocolError);
        }
    }
    read_content(*stream, content, is_last);
}

inline void Session::read_content(Stream& stream, Octets content, bool is_last) {
    if (stream.is_http) {
        if (!read_body(stream, content)) return;
    } else if (!stream.is_finishing) {
        std::size_t held = stream.reader.held();
        std::size_t others = partial_bytes_ - held;
        std::size_t small = 0;
        grpc::Refusal refusal =
            stream.reader.read(content, options_.message_bytes_max, room_beside(others), [&](Octets whole) {
                small += whole.size() < limits::kSmallMessageBytes;
                stream.is_heard = true;
                events_->push_back({Event::Kind::kMessage, stream.id, 0,
                                    std::string(reinterpret_cast<const char*>(whole.data()), whole.size())});
            });
        partial_bytes_ = others + stream.reader.held();
        stream.heard_at = last_refill_;
        note_owing(stream);
        if (refusal) refuse_told(stream, refusal);
        spend(static_cast<double>(small) * limits::kCostOfSmallFrame, "too many small messages");
        if (is_failed_) return;
    }
    if (is_last) return half_close(stream);
    if (stream.receive_used < limits::kStreamWindow / 2) return;
    // The client of a call that is ending has nothing more to say, and gets no room for it; that of a plain request,
    // whose body may be passed over, gets none beyond the limit.
    if (stream.is_finishing && (!stream.is_http || stream.body_bytes > limits::kBodyBytesMax)) return;
    write_frame32(control_, FrameType::kWindowUpdate, stream.id, static_cast<std::uint32_t>(stream.receive_used));
    stream.receive_used = 0;
}

// Gives the application what has come of a body. False: the stream is gone.
inline bool Session::read_body(Stream& stream, Octets content) {
    std::uint32_t id = stream.id;
    stream.body_bytes += content.size();
    if (stream.body_bytes > limits::kBodyBytesMax) {
        if (stream.is_answered) {
            reset_stream(id, ErrorCode::kNoError);
            return false;
        }
        if (stream.is_finishing) return true;
        bodies_bytes_ += content.size();
        tell_reset(stream, ErrorCode::kCancel, "a body is larger than the server takes");
        refuse_http(stream, 413, ErrorCode::kCancel);
        return find(id) != nullptr;
    }
    if (content.empty() || stream.is_finishing) return true;
    bodies_bytes_ += content.size();
    if (bodies_bytes_ > limits::kBodiesBytesMax) {
        tell_reset(stream, ErrorCode::kCancel, "too much of requests without an answer on one connection");
        refuse_http(stream, 503, ErrorCode::kCancel);
        return find(id) != nullptr;
    }
    std::string_view octets(reinterpret_cast<const char*>(content.data()), content.size());
    // Frames of a few octets make one event, as far as they have come together.
    if (!events_->empty() && events_->back().kind == Event::Kind::kMessage && events_->back().stream == id) {
        events_->back().text.append(octets);
    } else {
        events_->push_back({Event::Kind::kMessage, id, 0, std::string(octets)});
    }
    return true;
}

inline void Session::end_silence(double before, std::vector<Event>& events) {
    events_ = &events;
    if (is_failed_ || is_behind()) return;
    if (!pending_.empty() || block_stream_ != 0 || !has_settings_) {
        if (last_refill_ > before) return;
        return fail(has_settings_ ? ErrorCode::kEnhanceYourCalm : ErrorCode::kSettingsTimeout,
                    "what was begun has not gone on in time");
    }
    for (auto& stream : streams_) {
        if (!stream->is_owing || stream->heard_at > before) continue;
        refuse_told(*stream, {grpc::Status::kDeadlineExceeded, "a message has not come in time"});
    }
}

inline void Session::half_close(Stream& stream) {
    stream.is_remote_closed = true;
    note_owing(stream);
    if (stream.is_answered) return erase(stream.id);
    if (stream.is_finishing) return;
    if (!stream.reader.is_between_messages()) {
        return refuse_told(stream, {grpc::Status::kInternal, "the client ended within a message"});
    }
    events_->push_back({Event::Kind::kHalfClose, stream.id});
}

inline void Session::read_headers(const FrameHeader& frame, Octets content) {
    if (frame.stream % 2 == 0) return fail(ErrorCode::kProtocolError, "a client's streams have odd numbers");
    if (!strip_padding(frame, content)) return fail(ErrorCode::kProtocolError, "padding longer than its frame");
    if (frame.has(flag::kPriority)) {
        if (content.size() < 5) return fail(ErrorCode::kFrameSizeError, "HEADERS without room for its priority");
        content = content.subspan(5);
    }
    bool is_last = frame.has(flag::kEndStream);
    if (frame.has(flag::kEndHeaders)) return end_block(frame.stream, is_last, content);
    block_.assign(content.begin(), content.end());
    block_stream_ = frame.stream;
    is_block_last_ = is_last;
    continuations_ = 0;
}

inline bool Session::has_room(std::size_t events_max) const {
    return events_max == SIZE_MAX || (events_->size() < events_max && decoded_ < limits::kListedBytesEachTurn);
}

inline void Session::read_continuation(const FrameHeader& frame, Octets content) {
    if (block_stream_ == 0) return fail(ErrorCode::kProtocolError, "CONTINUATION of nothing");
    if (++continuations_ > limits::kContinuationsMax) {
        return fail(ErrorCode::kEnhanceYourCalm, "a header block in too many frames");
    }
    if (block_.size() + content.size() > limits::kHeaderBlockBytesMax) {
        return fail(ErrorCode::kEnhanceYourCalm, "a header block too large");
    }
    block_.append(reinterpret_cast<const char*>(content.data()), content.size());
    if (!frame.has(flag::kEndHeaders)) return;
    std::string block;
    block.swap(block_);
    block_stream_ = 0;
    end_block(frame.stream, is_block_last_, {reinterpret_cast<const std::uint8_t*>(block.data()), block.size()});
}

// Every block is decoded, whatever becomes of its stream: both sides' tables must stay alike.
inline void Session::end_block(std::uint32_t id, bool is_last, Octets block) {
    Stream* stream = find(id);
    RequestReader reader(stream != nullptr);
    std::size_t listed = 0;
    auto take = [&](std::string_view name, std::string_view value) { reader.take(name, value); };
    if (!hpack_.decode(block, listed, take)) {
        return fail(ErrorCode::kCompressionError, "a header block that cannot be decoded");
    }
    decoded_ += listed;
    bool is_too_large = listed > limits::kHeaderListBytesMax;
    if (is_too_large) {
        double times = static_cast<double>(listed) / limits::kHeaderListBytesMax;
        spend(times * limits::kCostOfRefusal, "too many header lists that are too large");
        if (is_failed_) return;
    }
    if (stream) return end_trailers(*stream, is_last, reader.is_malformed());
    if (id <= last_id_) {
        if (was_reset(id)) return;
        return fail(ErrorCode::kStreamClosed, "HEADERS for a closed stream");
    }
    last_id_ = id;
    // A list that was cut off cannot be judged.
    bool is_malformed = !is_too_large && (reader.is_malformed() || (is_last && reader.request().content_length > 0));
    if (is_malformed || drain_ == Drain::kDone || streams_.size() >= options_.streams_max) {
        reset_stream(id, is_malformed ? ErrorCode::kProtocolError : ErrorCode::kRefusedStream);
        return spend(limits::kCostOfRefusal, "too many requests that cannot be served");
    }
    spend(limits::kCostOfRequest, "too many requests");
    if (is_failed_) return;
    streams_.push_back(std::make_unique<Stream>(id, initial_window_));
    if (!is_too_large) return open_stream(id, is_last, reader.request());
    Stream& refused = *streams_.back();
    refused.is_remote_closed = is_last;
    if (!grpc::is_content_type(reader.request().header("content-type"))) {
        return refuse_http(refused, 431, ErrorCode::kNoError);
    }
    refuse(refused, static_cast<std::uint8_t>(grpc::Status::kResourceExhausted), "a header list too large");
}

inline void Session::open_stream(std::uint32_t id, bool is_last, Request& request) {
    Stream& stream = *streams_.back();
    stream.is_remote_closed = is_last;
    stream.content_left = request.content_length;
    if (request.method != "POST" || !grpc::is_content_type(request.header("content-type"))) {
        return open_http(stream, is_last, request);
    }
    Event event{Event::Kind::kRequest, id};
    if (std::string_view text = request.header("grpc-timeout"); !text.empty()) {
        std::optional<std::int64_t> timeout = grpc::parse_timeout(text);
        if (!timeout) {
            return refuse(stream, static_cast<std::uint8_t>(grpc::Status::kInternal), "a malformed grpc-timeout");
        }
        event.timeout = *timeout;
    }
    stream.heard_at = last_refill_;
    note_owing(stream);
    request.keep_chosen();
    event.text = std::move(request.path);
    event.headers = std::move(request.headers);
    events_->push_back(std::move(event));
    if (is_last) events_->push_back({Event::Kind::kHalfClose, id});
}

inline void Session::open_http(Stream& stream, bool is_last, Request& request) {
    stream.is_http = true;
    stream.queue.leave_out_prefixes();
    Event event{Event::Kind::kHttpRequest, stream.id};
    event.method = std::move(request.method);
    event.text = std::move(request.path);
    event.headers = std::move(request.headers);
    events_->push_back(std::move(event));
    if (is_last) events_->push_back({Event::Kind::kHalfClose, stream.id});
}

inline void Session::end_trailers(Stream& stream, bool is_last, bool is_malformed) {
    if (stream.is_remote_closed) return break_stream(stream, ErrorCode::kStreamClosed);
    // Their values mean nothing to a server, and a length that was promised must have come.
    if (!is_last || is_malformed || stream.content_left > 0) return break_stream(stream, ErrorCode::kProtocolError);
    half_close(stream);
}

inline void Session::read_reset(const FrameHeader& frame, Octets content) {
    if (frame.stream == 0) return fail(ErrorCode::kProtocolError, "RST_STREAM for no stream");
    if (content.size() != 4) return fail(ErrorCode::kFrameSizeError, "RST_STREAM has 4 octets");
    if (is_idle(frame.stream)) return fail(ErrorCode::kProtocolError, "RST_STREAM for an idle stream");
    Stream* stream = find(frame.stream);
    if (!stream) {
        // The client knows by now that it is closed: nothing of it is on its way any more.
        std::ranges::replace(recently_reset_, frame.stream, 0u);
        return spend(limits::kCostOfSmallFrame, "too many small frames");
    }
    tell_reset(*stream, static_cast<ErrorCode>(read32(content.data())));
    erase(frame.stream);
    spend(limits::kCostOfReset, "too many streams reset");
}

inline void Session::read_settings(const FrameHeader& frame, Octets content) {
    if (frame.stream != 0) return fail(ErrorCode::kProtocolError, "SETTINGS for a stream");
    if (frame.has(flag::kAck)) {
        if (!content.empty()) return fail(ErrorCode::kFrameSizeError, "an acknowledgement with content");
        return spend(limits::kCostOfSmallFrame, "too many small frames");
    }
    if (content.size() % 6 != 0) return fail(ErrorCode::kFrameSizeError, "SETTINGS has 6 octets for each");
    if (content.size() / 6 > limits::kSettingsMax) return fail(ErrorCode::kEnhanceYourCalm, "too long SETTINGS");
    has_settings_ = true;
    for (; !content.empty() && !is_failed_; content = content.subspan(6)) {
        apply_setting(static_cast<Setting>(read16(content.data())), read32(content.data() + 2));
    }
    if (is_failed_) return;
    write_frame(control_, FrameType::kSettings, flag::kAck, 0, "");
    spend(limits::kCostOfSettings, "too many SETTINGS");
}

inline void Session::apply_setting(Setting setting, std::uint32_t value) {
    switch (setting) {
        case Setting::kHeaderTableSize:
            owes_table_update_ |= value < table_bytes_;
            table_bytes_ = value;
            return;
        case Setting::kEnablePush:
            if (value > 1) fail(ErrorCode::kProtocolError, "SETTINGS_ENABLE_PUSH must be 0 or 1");
            return;
        case Setting::kInitialWindowSize: {
            if (value > limits::kWindowMax) return fail(ErrorCode::kFlowControlError, "a window too large");
            std::int64_t change = static_cast<std::int64_t>(value) - initial_window_;
            initial_window_ = value;
            for (auto& stream : streams_) {
                stream->send_window += change;
                if (stream->send_window > limits::kWindowMax) {
                    return fail(ErrorCode::kFlowControlError, "a window too large");
                }
                if (stream->can_send()) list(*stream);
            }
            return;
        }
        case Setting::kMaxFrameSize:
            if (value < 16384 || value > 16777215) return fail(ErrorCode::kProtocolError, "a frame size out of range");
            frame_bytes_max_ = std::min(value, limits::kFrameSentBytesMax);
            return;
        case Setting::kMaxConcurrentStreams:
        case Setting::kMaxHeaderListSize:
            // They bound what we never do: push, and send long lists.
            return;
    }
    // Settings that are not known are ignored (RFC 9113 6.5.2).
}

inline void Session::read_ping(const FrameHeader& frame, Octets content) {
    if (frame.stream != 0) return fail(ErrorCode::kProtocolError, "PING for a stream");
    if (content.size() != 8) return fail(ErrorCode::kFrameSizeError, "PING has 8 octets");
    std::string_view opaque(reinterpret_cast<const char*>(content.data()), content.size());
    if (!frame.has(flag::kAck)) {
        write_frame(control_, FrameType::kPing, flag::kAck, 0, opaque);
    } else if (drain_ == Drain::kAsked && opaque == kDrainPing) {
        end_drain();
    }
    spend(limits::kCostOfPing, "too many PINGs");
}

inline void Session::read_window_update(const FrameHeader& frame, Octets content) {
    if (content.size() != 4) return fail(ErrorCode::kFrameSizeError, "WINDOW_UPDATE has 4 octets");
    std::uint32_t increment = read31(content.data());
    spend(limits::kCostOfSmallFrame, "too many small frames");
    if (is_failed_) return;
    if (frame.stream == 0) {
        if (increment == 0) return fail(ErrorCode::kProtocolError, "a window update of nothing");
        send_window_ += increment;
        if (send_window_ > limits::kWindowMax) fail(ErrorCode::kFlowControlError, "a window too large");
        return;
    }
    Stream* stream = find(frame.stream);
    if (!stream) {
        if (is_idle(frame.stream)) fail(ErrorCode::kProtocolError, "WINDOW_UPDATE for an idle stream");
        return;
    }
    if (increment == 0) return break_stream(*stream, ErrorCode::kProtocolError);
    stream->send_window += increment;
    if (stream->send_window > limits::kWindowMax) return break_stream(*stream, ErrorCode::kFlowControlError);
    if (stream->can_send()) list(*stream);
}

}  // namespace kumafast::http2
