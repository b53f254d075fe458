// HTTP/2's frames (RFC 9113 sections 4, 6 and 7): their types, flags, settings and error codes; octets in and out.
// In: octets. Out: numbers, and the other way round. Never: state of a connection.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace kumafast::http2 {

inline constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
inline constexpr std::size_t kFrameHeaderBytes = 9;
inline constexpr std::uint32_t kStreamIdMax = 0x7fffffff;

enum class FrameType : std::uint8_t {
    kData = 0,
    kHeaders = 1,
    kPriority = 2,
    kRstStream = 3,
    kSettings = 4,
    kPushPromise = 5,
    kPing = 6,
    kGoaway = 7,
    kWindowUpdate = 8,
    kContinuation = 9,
};

namespace flag {
inline constexpr std::uint8_t kAck = 0x1;
inline constexpr std::uint8_t kEndStream = 0x1;
inline constexpr std::uint8_t kEndHeaders = 0x4;
inline constexpr std::uint8_t kPadded = 0x8;
inline constexpr std::uint8_t kPriority = 0x20;
}  // namespace flag

enum class ErrorCode : std::uint32_t {
    kNoError = 0,
    kProtocolError = 1,
    kInternalError = 2,
    kFlowControlError = 3,
    kSettingsTimeout = 4,
    kStreamClosed = 5,
    kFrameSizeError = 6,
    kRefusedStream = 7,
    kCancel = 8,
    kCompressionError = 9,
    kConnectError = 10,
    kEnhanceYourCalm = 11,
};

enum class Setting : std::uint16_t {
    kHeaderTableSize = 1,
    kEnablePush = 2,
    kMaxConcurrentStreams = 3,
    kInitialWindowSize = 4,
    kMaxFrameSize = 5,
    kMaxHeaderListSize = 6,
};

struct FrameHeader {
    std::uint32_t length;
    FrameType type;
    std::uint8_t flags;
    std::uint32_t stream;

    bool has(std::uint8_t which) const { return flags & which; }
};

inline std::uint16_t read16(const std::uint8_t* at) { return static_cast<std::uint16_t>(at[0] << 8 | at[1]); }
inline std::uint32_t read32(const std::uint8_t* at) {
    return static_cast<std::uint32_t>(at[0]) << 24 | static_cast<std::uint32_t>(at[1]) << 16 |
           static_cast<std::uint32_t>(at[2]) << 8 | at[3];
}
// The topmost bit of a stream's number and of a window's increment is reserved and ignored.
inline std::uint32_t read31(const std::uint8_t* at) { return read32(at) & kStreamIdMax; }

inline FrameHeader read_frame_header(const std::uint8_t* at) {
    return {static_cast<std::uint32_t>(at[0]) << 16 | static_cast<std::uint32_t>(at[1]) << 8 | at[2],
            static_cast<FrameType>(at[3]), at[4], read31(at + 5)};
}

inline void write16(std::string& out, std::uint16_t value) {
    out.push_back(static_cast<char>(value >> 8));
    out.push_back(static_cast<char>(value));
}
inline void write32(std::string& out, std::uint32_t value) {
    write16(out, static_cast<std::uint16_t>(value >> 16));
    write16(out, static_cast<std::uint16_t>(value));
}
inline void write_setting(std::string& out, Setting setting, std::uint32_t value) {
    write16(out, static_cast<std::uint16_t>(setting));
    write32(out, value);
}

inline void put_frame_header(std::uint8_t* at, std::uint32_t length, FrameType type, std::uint8_t flags,
                             std::uint32_t stream) {
    at[0] = static_cast<std::uint8_t>(length >> 16);
    at[1] = static_cast<std::uint8_t>(length >> 8);
    at[2] = static_cast<std::uint8_t>(length);
    at[3] = static_cast<std::uint8_t>(type);
    at[4] = flags;
    at[5] = static_cast<std::uint8_t>(stream >> 24);
    at[6] = static_cast<std::uint8_t>(stream >> 16);
    at[7] = static_cast<std::uint8_t>(stream >> 8);
    at[8] = static_cast<std::uint8_t>(stream);
}

inline void write_frame(std::string& out, FrameType type, std::uint8_t flags, std::uint32_t stream,
                        std::string_view content) {
    std::uint8_t header[kFrameHeaderBytes];
    put_frame_header(header, static_cast<std::uint32_t>(content.size()), type, flags, stream);
    out.append(reinterpret_cast<const char*>(header), sizeof header).append(content);
}
inline void write_frame32(std::string& out, FrameType type, std::uint32_t stream, std::uint32_t value) {
    std::string content;
    write32(content, value);
    write_frame(out, type, 0, stream, content);
}

// Takes padding, and with it its length, off a frame's content. False: padding as long as the content, or longer.
inline bool strip_padding(const FrameHeader& frame, std::span<const std::uint8_t>& content) {
    if (!frame.has(flag::kPadded)) return true;
    if (content.empty() || content[0] >= content.size()) return false;
    content = content.subspan(1, content.size() - 1 - content[0]);
    return true;
}

}  // namespace kumafast::http2
