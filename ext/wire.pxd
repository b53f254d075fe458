"""The wire's C++ as its binding sees it; std::span parameters are declared as the types that convert to them."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libcpp cimport bool as cpp_bool
from libcpp.pair cimport pair
from libcpp.string cimport string
from libcpp.vector cimport vector


cdef extern from "<string_view>" namespace "std":
    cdef cppclass string_view:
        string_view()
        string_view(const char* data, size_t size)


cdef extern from "<span>" namespace "std":
    cdef cppclass Octets "std::span<const std::uint8_t>":
        Octets()
        Octets(const uint8_t* data, size_t size)
        const uint8_t* data()
        size_t size()


cdef extern from "limits.hpp" namespace "kumafast::limits":
    const size_t kEventsEachTurn
    const size_t kMessageBytesMax
    const uint32_t kStreamsMax


cdef extern from "payload.hpp" namespace "kumafast":
    cdef cppclass CPayload "kumafast::Payload":
        CPayload()
        CPayload(const uint8_t* data, size_t size, void* owner, void (*release)(void*) noexcept) except +
        void* owner()
        uint32_t references()


cdef extern from "lent.hpp" namespace "kumafast":
    cdef cppclass Lent[T]:
        Lent()
        T& get()


cdef extern from "outgoing.hpp" namespace "kumafast":
    cdef cppclass Segment "kumafast::Outgoing::Segment":
        size_t offset
        size_t count
        CPayload payload

    cdef cppclass Outgoing:
        Outgoing()
        void clear()
        size_t bytes()
        const string& text()
        const vector[Segment]& segments()


cdef extern from "http2_fields.hpp" namespace "kumafast::http2":
    ctypedef vector[pair[string, string]] Fields
    cpp_bool write_head(string& block, uint16_t status, const Fields& fields) except +


cdef extern from "socket.hpp" namespace "kumafast":
    double steady_seconds()
    size_t send_now(int descriptor, const Outgoing& outgoing)
    size_t send_now(int descriptor, const void* octets, size_t count)
    int64_t receive_now(int descriptor, void* octets, size_t count)


cdef extern from "prefetch.hpp" namespace "kumafast":
    void prefetch(const void* object, size_t bytes) noexcept


cdef extern from "epoll.hpp" namespace "kumafast":
    cdef cppclass Epoll:
        Epoll()
        cpp_bool open()
        int descriptor()
        cpp_bool watch(int socket)
        void forget(int socket)
        size_t find(size_t most)
        int found(size_t at)
        void strike_out(int socket)


cdef extern from "http2_session.hpp" namespace "kumafast::http2":
    cdef enum class ErrorCode(uint32_t):
        kNoError

    cdef enum class Kind "kumafast::http2::Event::Kind"(uint8_t):
        kRequest "kumafast::http2::Event::Kind::kRequest"
        kMessage "kumafast::http2::Event::Kind::kMessage"
        kHalfClose "kumafast::http2::Event::Kind::kHalfClose"
        kReset "kumafast::http2::Event::Kind::kReset"
        kEnd "kumafast::http2::Event::Kind::kEnd"
        kHttpRequest "kumafast::http2::Event::Kind::kHttpRequest"

    cdef cppclass Event:
        Kind kind
        uint32_t stream
        uint32_t code
        string text
        Fields headers
        int64_t timeout
        string method

    cdef enum class Sent(uint8_t):
        kQueued
        kGone
        kFull

    cdef cppclass SessionOptions:
        size_t message_bytes_max
        uint32_t streams_max

    cdef cppclass Session:
        Session(const SessionOptions& options) except +
        void receive(Octets octets, double now, vector[Event]& events) except +
        void receive(Octets octets, double now, vector[Event]& events, size_t events_max) except +
        bint is_behind()
        void prefetch(int step)
        bint owes()
        void end_silence(double before, vector[Event]& events) except +
        Sent send(uint32_t id, const CPayload& payload) except +
        cpp_bool respond(uint32_t id, string head) except +
        cpp_bool finish(uint32_t id, uint8_t status, string_view text) except +
        cpp_bool reset(uint32_t id, ErrorCode code) except +
        size_t queued(uint32_t id)
        void drain() except +
        void collect(Outgoing& sink, size_t budget) except +
        cpp_bool want_close()
        size_t stream_count()
        size_t allocated()


cdef extern from "discovery_request.hpp" namespace "kumafast::xds":
    cdef cppclass Field:
        Field()
        size_t start
        size_t content
        size_t end

    Field find_field(Octets octets, uint64_t number)
