// Mutated connections against the wire: wire_fuzz CONNECTIONS SEED. Built with KUMAFAST_FUZZ, best with sanitizers.
// In: a number and a seed; the same seed, the same run. Out: what happened, counted; exit 1 at the first finding.
// A finding: a sanitizer's, output that is not made of whole frames, more memory than the limits add up to, a leak.
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <map>
#include <new>
#include <random>
#include <string>
#include <vector>

#include "discovery_request.hpp"
#include "http2_session.hpp"
#include "outgoing.hpp"

using namespace kumafast;
using namespace kumafast::http2;

#ifdef __SANITIZE_ADDRESS__
extern "C" std::size_t __sanitizer_get_current_allocated_bytes();
#endif

namespace {

std::size_t live_bytes() {
#ifdef __SANITIZE_ADDRESS__
    return __sanitizer_get_current_allocated_bytes();
#else
    return mallinfo2().uordblks + mallinfo2().hblkhd;
#endif
}
std::size_t live_descriptors() {
    auto all = std::filesystem::directory_iterator("/proc/self/fd");
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

std::mt19937_64 dice;
std::size_t roll(std::size_t sides) { return dice() % sides; }

void check(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "finding: %s\n", what);
    std::abort();
}

std::string frame(FrameType type, std::uint8_t flags, std::uint32_t stream, std::string_view content) {
    std::string out;
    write_frame(out, type, flags, stream, content);
    return out;
}

std::string request_block() {
    // Of each four requests one is no gRPC.
    bool is_plain = roll(4) == 0;
    std::string block = is_plain && roll(2) ? "\x82\x86" : "\x83\x86";
    write_field(block, 4, {}, roll(4) ? "/test.Echo/Stream" : "/nowhere");
    write_field(block, 1, {}, "localhost");
    write_field(block, 31, {}, is_plain ? "application/json" : "application/grpc");
    if (roll(2)) write_field(block, 0, "te", "trailers");
    if (roll(4) == 0) write_field(block, 0, "grpc-timeout", roll(2) ? "20S" : "x");
    if (roll(4) == 0) write_field(block, 28, {}, std::to_string(roll(40)));
    for (std::size_t count = roll(3); count > 0; --count) {
        // Literals that enter the table, and references to it.
        std::string value(roll(60), 'v');
        block += "\x40\x03key";
        block.push_back(static_cast<char>(value.size()));
        block += value;
        if (roll(2)) block.push_back(static_cast<char>(0x80 | (62 + (roll(50) ? 0 : roll(3)))));
    }
    return block;
}

// The beginning of a discovery request: fields that are texts, some of them of another length than they say.
std::string fields() {
    std::string all;
    for (std::size_t count = roll(6); count > 0; --count) {
        std::string content(roll(150), 'f');
        all.push_back(static_cast<char>((1 + roll(6)) << 3 | (roll(30) ? 2 : roll(8))));
        std::size_t size = roll(20) ? content.size() : dice();
        for (; size >= 0x80; size >>= 7) all.push_back(static_cast<char>(size | 0x80));
        all.push_back(static_cast<char>(size));
        all += content;
    }
    return all;
}

void check_field(const std::string& text, std::uint64_t number) {
    // A copy of its very size, so that a sanitizer sees a look beyond its end.
    std::vector<std::uint8_t> octets(text.begin(), text.end());
    xds::Field field = xds::find_field(octets, number);
    if (field.end == 0) return;
    check(field.start < field.content && field.content <= field.end && field.end <= octets.size(), "a field outside");
    check((octets[field.start] >> 3 & 15) == (number & 15), "another field");
}

std::string message() {
    std::string body = roll(2) ? fields() : std::string(roll(8) ? roll(200) : roll(40000), 'm'), out;
    out.push_back(roll(60) ? 0 : static_cast<char>(roll(3)));
    write32(out, static_cast<std::uint32_t>(roll(60) ? body.size() : dice()));
    return out + body;
}

// The next stream that a client opens in order.
std::uint32_t next_stream = 1;
std::uint32_t some_stream() {
    return static_cast<std::uint32_t>(roll(60) ? 1 + 2 * roll((next_stream - 1) / 2) : roll(40));
}

std::string some_frame() {
    std::uint8_t flags = static_cast<std::uint8_t>(roll(20) ? 0 : dice());
    switch (roll(12)) {
        case 0:
        case 1: {
            std::string block = request_block();
            std::uint32_t id = next_stream;
            if (roll(60)) next_stream += 2;
            std::size_t cut = roll(4) ? block.size() : roll(block.size());
            if (cut == block.size()) return frame(FrameType::kHeaders, flag::kEndHeaders | (roll(8) == 0), id, block);
            return frame(FrameType::kHeaders, 0, id, block.substr(0, cut)) +
                   frame(FrameType::kContinuation, flag::kEndHeaders, id, block.substr(cut));
        }
        case 2: {
            std::string settings;
            for (std::size_t count = roll(4); count > 0; --count) {
                write_setting(settings, static_cast<Setting>(roll(40) ? 1 + 3 * roll(2) : roll(8)),
                              static_cast<std::uint32_t>(roll(60) ? roll(70000) : dice()));
            }
            return frame(FrameType::kSettings, roll(40) ? 0 : flag::kAck, 0, settings);
        }
        case 3:
            return frame(FrameType::kPing, flags, 0, roll(2) ? "draining" : "12345678");
        case 4: {
            std::string content;
            write32(content, static_cast<std::uint32_t>(roll(60) ? 1 + roll(100000) : dice()));
            return frame(FrameType::kWindowUpdate, 0, roll(2) ? 0 : some_stream(), content);
        }
        case 5:
            return frame(FrameType::kRstStream, 0, some_stream(), std::string(4, '\0'));
        case 6:
            return frame(static_cast<FrameType>(roll(14)), flags, some_stream(), std::string(roll(20), 'x'));
        default: {
            std::string all, content = message();
            std::uint32_t id = some_stream();
            for (std::size_t at = 0; at < content.size();) {
                std::size_t part = std::min(1 + roll(16384), content.size() - at);
                all += frame(FrameType::kData, roll(30) ? 0 : flag::kEndStream, id, content.substr(at, part));
                at += part;
            }
            return all;
        }
    }
}

std::string conversation() {
    next_stream = 1;
    std::string all(kPreface);
    all += frame(FrameType::kSettings, 0, 0, "");
    std::string block = request_block();
    all += frame(FrameType::kHeaders, flag::kEndHeaders, next_stream, block);
    next_stream += 2;
    for (std::size_t count = 1 + roll(20); count > 0; --count) all += some_frame();
    for (std::size_t count = roll(3) ? 0 : roll(6); count > 0 && all.size() > 30; --count) {
        std::size_t at = roll(20) ? 24 + roll(all.size() - 24) : roll(all.size());
        switch (roll(6)) {
            case 0:
                all[at] = static_cast<char>(dice());
                break;
            case 1:
                all[at] = static_cast<char>(all[at] ^ 1 << roll(8));
                break;
            case 2:
                all.erase(at, roll(20));
                break;
            case 3:
                all.insert(at, std::string(roll(20), static_cast<char>(dice())));
                break;
            case 4:
                all.insert(at, all.substr(roll(all.size()), roll(60)));
                break;
            case 5:
                all.resize(at);
                break;
        }
    }
    return all;
}

// What came out must be whole frames of types that a server sends, and on each stream in order: headers, DATA, an end.
struct Reader {
    enum class State { kNothing, kOpen, kEnded };
    std::string octets;
    std::size_t frames = 0, data = 0;
    std::map<std::uint32_t, State> streams;

    void follow(const FrameHeader& header) {
        if (header.stream == 0 || header.type == FrameType::kWindowUpdate) return;
        State& state = streams[header.stream];
        if (header.type == FrameType::kHeaders) {
            bool is_trailers = state == State::kOpen;
            check(state != State::kEnded && (!is_trailers || header.has(flag::kEndStream)), "headers out of place");
            state = State::kOpen;
        }
        if (header.type == FrameType::kData) check(state == State::kOpen, "DATA out of place");
        if (header.type == FrameType::kRstStream || header.has(flag::kEndStream)) state = State::kEnded;
    }
    void take(const Outgoing& outgoing) {
        for (auto& segment : outgoing.segments()) {
            if (segment.payload.owner()) {
                auto part = segment.payload.bytes().subspan(segment.offset, segment.count);
                octets.append(reinterpret_cast<const char*>(part.data()), part.size());
            } else {
                octets.append(outgoing.text(), segment.offset, segment.count);
            }
        }
        std::size_t at = 0;
        while (octets.size() - at >= kFrameHeaderBytes) {
            FrameHeader header = read_frame_header(reinterpret_cast<const std::uint8_t*>(octets.data()) + at);
            check(octets.size() - at >= kFrameHeaderBytes + header.length, "a piece of a frame");
            check(frames > 0 || header.type == FrameType::kSettings, "SETTINGS do not come first");
            check(header.type <= FrameType::kWindowUpdate && header.type != FrameType::kPriority, "a strange frame");
            frames += 1;
            data += header.type == FrameType::kData;
            follow(header);
            at += kFrameHeaderBytes + header.length;
        }
        octets.erase(0, at);
        check(octets.empty(), "a piece of a header");
    }
};

struct Totals {
    std::size_t events = 0, messages = 0, ends = 0, frames = 0, data = 0, refused = 0, turns = 0, plain = 0;
};

void respond(Session& session, std::uint32_t id) {
    Fields fields;
    if (roll(2)) fields.emplace_back("content-type", "text/plain");
    if (roll(2)) fields.emplace_back(std::string(roll(20), 'n'), std::string(roll(6000), roll(30) ? 'v' : '\n'));
    std::string head;
    if (write_head(head, static_cast<std::uint16_t>(roll(30) ? 200 + roll(300) : dice()), fields)) {
        session.respond(id, std::move(head));
    }
}

void act(Session& session, const Payload& payload, Totals& totals) {
    std::uint32_t id = some_stream();
    switch (roll(8)) {
        case 0:
            session.finish(id, static_cast<std::uint8_t>(roll(17)), "why \xff not %");
            break;
        case 1:
            session.reset(id, ErrorCode::kCancel);
            break;
        case 2:
            if (roll(8) == 0) session.drain();
            break;
        case 3:
            respond(session, id);
            break;
        default:
            totals.refused += session.send(id, payload) != Sent::kQueued;
    }
}

void run_connection(const Payload& small, const Payload& large, Totals& totals) {
    SessionOptions options;
    options.message_bytes_max = 30000;
    options.streams_max = 4;
    Session session(options);
    Reader reader;
    std::string octets = conversation();
    double now = 0;
    for (std::size_t at = 0; at < octets.size();) {
        std::size_t part = std::min(roll(3) ? octets.size() - at : 1 + roll(60), octets.size() - at);
        std::vector<Event> events;
        session.receive({reinterpret_cast<const std::uint8_t*>(octets.data()) + at, part}, now += 0.001, events,
                        roll(3) ? SIZE_MAX : 1 + roll(3));
        at += part;
        while (session.is_behind()) {
            std::size_t before = events.size();
            session.receive({}, now, events, before + 1 + roll(3));
            totals.turns += 1;
        }
        if (roll(60) == 0) {
            bool owed = session.owes();
            std::size_t before = events.size();
            session.end_silence(now, events);
            check(!session.owes(), "something is owed after its end");
            check(owed || events.size() == before, "an end of what was not owed");
        }
        for (Event& event : events) {
            totals.events += 1;
            totals.messages += event.kind == Event::Kind::kMessage;
            totals.ends += event.kind == Event::Kind::kEnd;
            if (event.kind == Event::Kind::kMessage) check_field(event.text, 1 + roll(6));
            if (event.kind == Event::Kind::kMessage || event.kind == Event::Kind::kHalfClose) {
                if (roll(2)) session.send(event.stream, roll(6) ? small : large);
            }
            if (event.kind == Event::Kind::kHttpRequest) {
                totals.plain += 1;
                if (roll(3)) respond(session, event.stream);
            }
            if (event.kind == Event::Kind::kHalfClose && roll(2)) session.finish(event.stream, 0, "");
        }
        while (roll(3) == 0) act(session, roll(6) ? small : large, totals);
        for (std::size_t count = roll(4); count > 0; --count) {
            Outgoing outgoing;
            session.collect(outgoing, roll(2) ? 262144 : 1 + roll(5000));
            reader.take(outgoing);
        }
        check(session.partial_bytes() <= options.message_bytes_max * limits::kPartialMessagesMax, "too much held");
        check(session.bodies_bytes() <= octets.size(), "bodies that never came");
        check(session.stream_count() > 0 || session.bodies_bytes() == 0, "bodies of no stream");
        check(session.allocated() < 400000, "too much memory");
    }
    totals.frames += reader.frames;
    totals.data += reader.data;
}

}  // namespace

int main(int count, char** words) {
    std::size_t connections = count > 1 ? std::strtoull(words[1], nullptr, 10) : 10000;
    dice.seed(count > 2 ? std::strtoull(words[2], nullptr, 10) : 1);
    std::string small_text(2000, 's'), large_text(300000, 'l');
    int owner = 0;
    auto payload_of = [&owner](const std::string& text) {
        return Payload(reinterpret_cast<const std::uint8_t*>(text.data()), text.size(), &owner, nullptr);
    };
    Payload small = payload_of(small_text), large = payload_of(large_text);
    Totals totals;
    // The first ones fill what the library keeps for itself.
    for (int each = 0; each < 100; ++each) run_connection(small, large, totals);
    std::size_t descriptors = live_descriptors(), bytes = live_bytes();
    for (std::size_t each = 0; each < connections; ++each) {
        run_connection(small, large, totals);
        check(small.references() == 1 && large.references() == 1, "a payload is still held");
    }
    // Before anything is printed: that has a buffer of its own.
    std::size_t descriptors_after = live_descriptors(), bytes_after = live_bytes();
    std::printf(
        "%zu connections: %zu events, %zu messages, %zu plain requests, %zu turns, %zu ended in error; %zu frames out, "
        "%zu of DATA\n"
        "descriptors %zu before, %zu after; bytes %zu before, %zu after\n",
        connections, totals.events, totals.messages, totals.plain, totals.turns, totals.ends, totals.frames,
        totals.data, descriptors, descriptors_after, bytes, bytes_after);
    check(descriptors_after == descriptors, "a descriptor is left");
    check(bytes_after == bytes, "memory is left");
    return 0;
}
