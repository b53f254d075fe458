// The fields of a message of protobuf, one after the other, and how one that holds a text is written.
// In: the octets of one message. Out: each field's number and content, and where it stands. Never: what a field means.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace kumafast::xds {

// Takes fields off the front of a message, one at a time.
class FieldReader {
  public:
    // How a field is written: the low bits of its key.
    static constexpr unsigned kVarint = 0, kFixed64 = 1, kText = 2, kGroup = 3, kFixed32 = 5;

    FieldReader() = default;
    explicit FieldReader(std::span<const std::uint8_t> octets) : octets_(octets) {}

    // False: there is none (`is_done`), or it is not well formed, or begins a group (`is_group`).
    bool next() {
        if (at_ == octets_.size()) return false;
        is_whole_ = take();
        return is_whole_;
    }
    std::uint64_t number() const { return number_; }
    // Whether it is a text or a message; then `content` is what it holds, which is nothing in any other.
    bool is_text() const { return kind_ == kText; }
    std::span<const std::uint8_t> content() const { return content_; }
    std::uint64_t size() const { return content_.size(); }
    // Where the field begins and ends in the message.
    std::size_t start() const { return start_; }
    std::size_t end() const { return at_; }
    bool is_done() const { return is_whole_ && at_ == octets_.size(); }
    bool is_group() const { return !is_whole_ && kind_ == kGroup; }

  private:
    bool take() {
        start_ = at_;
        content_ = {};
        std::uint64_t key = 0, value = 0;
        if (!read(key)) return false;
        number_ = key >> 3;
        kind_ = static_cast<unsigned>(key & 7);
        switch (kind_) {
            case kVarint:
                return read(value);
            case kFixed64:
                return skip(8);
            case kText:
                if (!read(value) || !skip(value)) return false;
                content_ = octets_.subspan(at_ - static_cast<std::size_t>(value), static_cast<std::size_t>(value));
                return true;
            case kFixed32:
                return skip(4);
        }
        return false;
    }

    bool read(std::uint64_t& value) {
        value = 0;
        for (unsigned shift = 0; shift < 64 && at_ < octets_.size(); shift += 7) {
            std::uint8_t octet = octets_[at_++];
            value |= static_cast<std::uint64_t>(octet & 0x7f) << shift;
            if (octet < 0x80) return true;
        }
        return false;
    }
    bool skip(std::uint64_t count) {
        if (count > octets_.size() - at_) return false;
        at_ += static_cast<std::size_t>(count);
        return true;
    }

    std::span<const std::uint8_t> octets_;
    std::span<const std::uint8_t> content_;
    std::size_t at_ = 0;
    std::size_t start_ = 0;
    std::uint64_t number_ = 0;
    unsigned kind_ = kVarint;
    bool is_whole_ = true;
};

// An entry of a map of texts; what is absent is empty.
struct TextEntry {
    std::span<const std::uint8_t> key;
    std::span<const std::uint8_t> value;
};

// False: it is not well formed, or has anything but one key and one value, which no library writes.
inline bool read_entry(std::span<const std::uint8_t> octets, TextEntry& entry) {
    entry = {};
    bool has_key = false, has_value = false;
    FieldReader reader(octets);
    while (reader.next()) {
        bool is_key = reader.number() == 1;
        bool& has = is_key ? has_key : has_value;
        if (!reader.is_text() || (!is_key && reader.number() != 2) || has) return false;
        has = true;
        (is_key ? entry.key : entry.value) = reader.content();
    }
    return reader.is_done();
}

inline void write_varint(std::string& out, std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
    out.push_back(static_cast<char>(value));
}

// Appends a field that holds a text, also where that is empty.
inline void write_text(std::string& out, std::uint64_t number, std::span<const std::uint8_t> text) {
    write_varint(out, number << 3 | FieldReader::kText);
    write_varint(out, text.size());
    out.append(reinterpret_cast<const char*>(text.data()), text.size());
}

}  // namespace kumafast::xds
