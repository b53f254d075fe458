// Every limit of the wire, in one table. Each bounds what one peer may make the server hold or do; what it says when
// a limit is passed stands beside it. ARCHITECTURE.md shows the same table.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kumafast::limits {

// ---- What a peer may make us hold -----------------------------------------------------------------------------

// The largest frame we take, the least that HTTP/2 allows to announce: a partial frame is all that waits for its rest.
// FRAME_SIZE_ERROR.
inline constexpr std::uint32_t kFrameBytesMax = 16384;
// A header block as it comes, over all its frames. ENHANCE_YOUR_CALM for the connection.
inline constexpr std::size_t kHeaderBlockBytesMax = 32768;
// CONTINUATION frames of one block: empty ones would never reach the limit above. ENHANCE_YOUR_CALM.
inline constexpr std::uint32_t kContinuationsMax = 16;
// A header list once decoded, counted as RFC 9113 6.5.2 does: a few bytes can name the same long entry a thousand
// times. RESOURCE_EXHAUSTED for the request.
inline constexpr std::size_t kHeaderListBytesMax = 65536;
// HPACK's dynamic table, the protocol's default.
inline constexpr std::size_t kHeaderTableBytes = 4096;
// One message that a client sends, unless the caller says otherwise. RESOURCE_EXHAUSTED for the stream.
inline constexpr std::size_t kMessageBytesMax = 4u << 20;
// Partial messages of one connection together, in units of the message limit. RESOURCE_EXHAUSTED for the stream that
// passes it.
inline constexpr std::size_t kPartialMessagesMax = 2;
// The same over all connections of the process, and what each connection may hold of it whatever the others do: a
// client's node is 61 kB. RESOURCE_EXHAUSTED for the stream that passes it.
inline constexpr std::size_t kPartialBytesOfAllMax = 256u << 20;
inline constexpr std::size_t kPartialBytesOfEach = 128u << 10;
// What a plain request may bring on its stream, twice what the application takes and refuses in better words. 413.
inline constexpr std::size_t kBodyBytesMax = 8u << 20;
// Bodies of all requests of one connection that are not answered. 503 for the one that passes it.
inline constexpr std::size_t kBodiesBytesMax = 32u << 20;
// The head of an answer to it, which must fit one frame of the smallest that a client may ask for: the one that
// answers is told no.
inline constexpr std::size_t kHeadBytesMax = 8192;
// Streams open at a time on one connection. REFUSED_STREAM, which tells the client to try again elsewhere.
inline constexpr std::uint32_t kStreamsMax = 1000;
// What is queued on one stream and not written, because its client does not read: the one that sends is told no.
inline constexpr std::size_t kQueuedBytesMax = 64u << 20;
// Answers to PING, SETTINGS and broken streams that the client does not read. ENHANCE_YOUR_CALM.
inline constexpr std::size_t kControlBytesMax = 65536;
// Streams that we ended and whose late frames are passed over in silence.
inline constexpr std::size_t kRecentlyResetMax = 16;
// Entries of one SETTINGS, each of which may concern all streams; there are ten kinds. ENHANCE_YOUR_CALM.
inline constexpr std::size_t kSettingsMax = 32;
// A message of an error, before it is percent-encoded, and a reason that GOAWAY carries.
inline constexpr std::size_t kStatusTextMax = 1024;

// ---- What one discovery request may ask for. INVALID_ARGUMENT for its stream -------------------------------------

// 20,000 names take 30 ms to look up and answer; versions, of which a client that comes back has one for each resource
// that it holds, are cheaper.
inline constexpr std::size_t kNamesMax = 20000;
inline constexpr std::size_t kVersionsMax = 131072;
// A name, a type, a version or a nonce; and an entry of a map, which has two of them.
inline constexpr std::size_t kTextBytesMax = 4096;
// An Envoy's own is 61 kB.
inline constexpr std::size_t kNodeBytesMax = 256u << 10;
inline constexpr std::size_t kErrorBytesMax = 1u << 20;
// There are five that are not counted above, and each should come once.
inline constexpr std::size_t kOtherFieldsMax = 64;

// ---- What a peer may make us do: a budget that time and useful work refill. ENHANCE_YOUR_CALM ------------------

inline constexpr double kBudgetMax = 8000;
inline constexpr double kBudgetEachSecond = 800;
// Each DATA frame that we send entitles the client to as much: its window updates and its probing of the bandwidth.
inline constexpr double kBudgetEachFrameSent = 4;
// Rapid reset: a request that is opened and thrown away makes the server work for nobody.
inline constexpr double kCostOfReset = 20;
// Also for each `kHeaderListBytesMax` that a header list comes to: what decoding takes grows with it.
inline constexpr double kCostOfRefusal = 10;
// The answer pays for it, where there is one.
inline constexpr double kCostOfRequest = 4;
inline constexpr double kCostOfSettings = 20;
inline constexpr double kCostOfPing = 4;
// WINDOW_UPDATE, PRIORITY, empty DATA, padding, unknown types: cheap, but of no use by the thousand. So is a message
// of so few octets that it can name nothing.
inline constexpr double kCostOfSmallFrame = 1;
inline constexpr std::size_t kSmallMessageBytes = 16;

// What one connection may bring in one turn of a driver that has others to serve: frames are taken in while there are
// fewer events than this, and fewer octets of decoded header lists, for a list that is refused is no event. The rest
// waits, and nothing more is read.
inline constexpr std::size_t kEventsEachTurn = 32;
inline constexpr std::size_t kListedBytesEachTurn = 1u << 20;

// ---- Windows: how much may be under way -------------------------------------------------------------------------

// What a client may send unasked on one stream, and on one connection; given back when half is used up.
inline constexpr std::int64_t kStreamWindow = 262144;
inline constexpr std::int64_t kConnectionWindow = 1048576;
// What the protocol starts with, and the most that it knows.
inline constexpr std::int64_t kInitialWindow = 65535;
inline constexpr std::int64_t kWindowMax = 0x7fffffff;
// The largest frame we send, whatever the client would take: others on the connection wait for its end.
inline constexpr std::uint32_t kFrameSentBytesMax = 65536;

}  // namespace kumafast::limits
