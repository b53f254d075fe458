// A mutable set of 32-bit ids that adapts to its density, and the arrays that results are written to.
// In: ids, in any order. Out: membership, ascending ids, intersections.
// Never: a bitset as wide as one far-off id; an allocation while ids are written to a result that has been reserved.
#pragma once

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <span>
#include <utility>
#include <vector>

namespace kumafast {

using Id = std::uint32_t;

// A growing array that is not zeroed first and that can give its memory away: results are tens of megabytes.
template <typename T>
class Block {
  public:
    Block() = default;
    Block(Block&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)),
          size_(std::exchange(other.size_, 0)),
          capacity_(std::exchange(other.capacity_, 0)),
          populated_(std::exchange(other.populated_, 0)) {}
    Block& operator=(Block&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        std::swap(capacity_, other.capacity_);
        std::swap(populated_, other.populated_);
        return *this;
    }
    ~Block() { std::free(data_); }

    // Room for `more` items; what `end()` points to may then be written, and `advance` counts it in.
    void reserve(std::size_t more) {
        if (capacity_ - size_ < more) grow(std::max(size_ + more, capacity_ + capacity_ / 2));
        if (size_ + more > populated_) populate(size_ + more);
    }
    // Takes address space for `count` items in all, if it is to be had, so that growing need not move them.
    void expect(std::size_t count) {
        try {
            if (count > capacity_) grow(count);
        } catch (const std::bad_alloc&) {
        }
    }
    void push(T item) {
        reserve(1);
        data_[size_++] = item;
    }
    void append(const T* items, std::size_t count) {
        if (count == 0) return;
        reserve(count);
        std::memcpy(data_ + size_, items, count * sizeof(T));
        size_ += count;
    }
    void advance(T* end) { size_ = static_cast<std::size_t>(end - data_); }
    void truncate(std::size_t size) { size_ = size; }
    // Gives back what was reserved in excess.
    void trim() {
        if (size_ == 0 || size_ == capacity_) return;
        if (void* moved = std::realloc(data_, size_ * sizeof(T)); moved != nullptr) {
            data_ = static_cast<T*>(moved);
            capacity_ = size_;
        }
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    T* end() { return data_ + size_; }
    std::size_t size() const { return size_; }
    std::span<const T> items() const { return {data_, size_}; }
    // Whether `item` is among the items, which must ascend.
    bool has_ascending(T item) const { return std::binary_search(data_, data_ + size_, item); }

  private:
    static constexpr std::size_t kStep = (std::size_t{1} << 18) / sizeof(T);

    void grow(std::size_t capacity) {
        void* moved = std::realloc(data_, capacity * sizeof(T));
        if (moved == nullptr) throw std::bad_alloc();
        data_ = static_cast<T*>(moved);
        capacity_ = capacity;
    }

    // Most of the time of writing a large result is its page faults, one for every 4 KB. Asked for by the step they
    // cost a third less; the steps are small because other threads wait for each. Where the system cannot, nothing is
    // lost.
    void populate(std::size_t count) {
        std::size_t from = std::max(populated_, size_);
        populated_ = std::min(std::max(count, from + kStep), capacity_);
        if (size_ < 4 * kStep) return;
#ifdef MADV_POPULATE_WRITE
        auto begin = (reinterpret_cast<std::uintptr_t>(data_ + from) + 4095) & ~std::uintptr_t{4095};
        auto end = (reinterpret_cast<std::uintptr_t>(data_ + populated_)) & ~std::uintptr_t{4095};
        if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_WRITE);
#endif
    }

    T* data_ = nullptr;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
    std::size_t populated_ = 0;  // up to here the pages have been asked for
};

// Writes the ids of the bits of `word`, the first of which stands for `base`. Returns the new end.
inline Id* write_bits(std::uint64_t word, Id base, Id* out) {
    while (word != 0) {
        *out++ = base + static_cast<Id>(std::countr_zero(word));
        word &= word - 1;
    }
    return out;
}

// Ids below `limit()` are bits, the others an ascending array, so that one far-off id costs four bytes, not a bitset
// as wide as itself. A run of ids becomes bits when at least one bit in 32 would be set (then bits are the smaller
// form) and goes back when fewer than one in 128 is, so that the form cannot flap.
class Posting {
  public:
    std::size_t size() const { return in_words_ + tail_.size(); }

    bool contains(Id id) const {
        if (id < limit()) return (words_[id / 64] >> (id % 64) & 1) != 0;
        return std::binary_search(tail_.begin(), tail_.end(), id);
    }

    // O(1) amortised among bits and at the end; O(size) moves, at most 1/32 of the ids' range, within the array.
    bool insert(Id id) {
        if (id < limit()) {
            std::uint64_t bit = 1ull << (id % 64);
            if ((words_[id / 64] & bit) != 0) return false;
            words_[id / 64] |= bit;
            ++in_words_;
            return true;
        }
        if (tail_.empty() || tail_.back() < id) {
            tail_.push_back(id);
        } else {
            auto at = std::lower_bound(tail_.begin(), tail_.end(), id);
            if (*at == id) return false;
            tail_.insert(at, id);
        }
        if (tail_.size() >= 32 && std::has_single_bit(tail_.size())) promote();
        return true;
    }

    bool erase(Id id) {
        if (id >= limit()) {
            auto at = std::lower_bound(tail_.begin(), tail_.end(), id);
            if (at == tail_.end() || *at != id) return false;
            tail_.erase(at);
            return true;
        }
        std::uint64_t bit = 1ull << (id % 64);
        if ((words_[id / 64] & bit) == 0) return false;
        words_[id / 64] &= ~bit;
        --in_words_;
        if (in_words_ * 2 < words_.size()) demote();
        return true;
    }

    void write(Block<Id>& out) const {
        out.reserve(size());
        Id* end = write_bits_from(0, out.end());
        end = std::copy(tail_.begin(), tail_.end(), end);
        out.advance(end);
    }

    // Appends the ids that are in `lead` and in each of `others`: O(size of lead) look-ups, or, where all are bits,
    // one AND for each 64 ids. `lead` should be the smallest.
    static void write_common(const Posting& lead, std::span<const Posting* const> others, Block<Id>& out) {
        out.reserve(lead.size());
        Id* end = out.end();
        std::size_t shared = lead.words_.size();
        for (const Posting* other : others) shared = std::min(shared, other->words_.size());
        for (std::size_t at = 0; at < shared; ++at) {
            std::uint64_t word = lead.words_[at];
            for (const Posting* other : others) word &= other->words_[at];
            end = write_bits(word, static_cast<Id>(at * 64), end);
        }
        // What is left of the lead is written and then filtered in place.
        Id* rest = end;
        end = lead.write_bits_from(shared, end);
        end = std::copy(lead.tail_.begin(), lead.tail_.end(), end);
        for (const Posting* other : others) end = other->filter(rest, end);
        out.advance(end);
    }

    void shrink() {
        words_.shrink_to_fit();
        tail_.shrink_to_fit();
    }
    std::size_t bytes() const {
        return sizeof(*this) + words_.capacity() * sizeof(std::uint64_t) + tail_.capacity() * sizeof(Id);
    }
    bool is_bits() const { return !words_.empty(); }

  private:
    std::uint64_t limit() const { return words_.size() * 64ull; }

    Id* write_bits_from(std::size_t first, Id* out) const {
        for (std::size_t at = first; at < words_.size(); ++at)
            out = write_bits(words_[at], static_cast<Id>(at * 64), out);
        return out;
    }

    // Keeps of the ascending ids in [begin, end) those that are in this. Each search starts where the last one ended
    // and doubles its step, so that both few against many and many against many are cheap.
    Id* filter(Id* begin, Id* end) const {
        Id* kept = begin;
        const Id* at = tail_.data();
        const Id* last = at + tail_.size();
        for (Id* each = begin; each != end; ++each) {
            Id id = *each;
            bool found;
            if (id < limit()) {
                found = (words_[id / 64] >> (id % 64) & 1) != 0;
            } else {
                std::size_t step = 1;
                const Id* high = at;
                while (high < last && *high < id) {
                    at = high + 1;
                    high = static_cast<std::size_t>(last - at) > step ? at + step : last;
                    step *= 2;
                }
                at = std::lower_bound(at, high, id);
                found = at != last && *at == id;
            }
            *kept = id;
            kept += found ? 1 : 0;
        }
        return kept;
    }

    // Turns the longest dense run at the front of the array into bits.
    void promote() {
        std::size_t count = tail_.size();
        while (count >= 32 && count * 32 < tail_[count - 1] + 1ull - limit()) --count;
        if (count < 32) return;
        words_.resize(tail_[count - 1] / 64 + 1);
        for (std::size_t at = 0; at < count; ++at) words_[tail_[at] / 64] |= 1ull << (tail_[at] % 64);
        in_words_ += count;
        // No id of the rest falls into the last word: the run ends before 32 * count, the next id failed the same test
        // for one more and is at or past 32 * (count + 1), and one of the two is a multiple of 64 (relative to
        // limit()).
        tail_.erase(tail_.begin(), tail_.begin() + static_cast<std::ptrdiff_t>(count));
    }

    // Without memory the bits stay: they are correct, only larger. So erasing never throws.
    void demote() noexcept {
        std::vector<Id> ids;
        try {
            ids.resize(size());
        } catch (const std::bad_alloc&) {
            return;
        }
        Id* end = write_bits_from(0, ids.data());
        std::copy(tail_.begin(), tail_.end(), end);
        tail_.swap(ids);
        std::vector<std::uint64_t>().swap(words_);
        in_words_ = 0;
    }

    std::vector<std::uint64_t> words_;
    std::vector<Id> tail_;
    std::size_t in_words_ = 0;
};

}  // namespace kumafast
