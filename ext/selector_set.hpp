// Many selectors against one candidate.
// In: (id, selector) pairs; then the tag lists of one candidate's inbounds. Out: ids with the best rank.
// Never: changed after build; a visit to a selector whose rarest tag the candidate does not have.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "posting.hpp"
#include "tag_table.hpp"

namespace kumafast {

struct SelectorEntry {
    Id id;
    Terms selector;
};

// One matched id with its rank: terms, and how many of them are exact.
struct Hit {
    Id id;
    std::uint32_t terms;
    std::uint32_t exact;
};
static_assert(std::has_unique_object_representations_v<Hit>, "hits are compared as bytes");

// Compressed rows: row i is items[offsets[i] .. offsets[i + 1]).
struct Rows {
    std::vector<std::uint32_t> offsets;
    std::vector<std::uint32_t> items;

    std::span<const std::uint32_t> operator[](std::size_t row) const {
        return {items.data() + offsets[row], items.data() + offsets[row + 1]};
    }
    std::size_t size() const { return offsets.size() - 1; }

    // From pairs of (row, item), sorted here and made distinct.
    static Rows of(std::size_t count, std::vector<std::pair<std::uint32_t, std::uint32_t>> pairs) {
        std::ranges::sort(pairs);
        pairs.erase(std::unique(pairs.begin(), pairs.end()), pairs.end());
        Rows rows;
        rows.offsets.assign(count + 1, 0);
        rows.items.reserve(pairs.size());
        for (auto [row, item] : pairs) {
            ++rows.offsets[row + 1];
            rows.items.push_back(item);
        }
        for (std::size_t row = 0; row < count; ++row) rows.offsets[row + 1] += rows.offsets[row];
        return rows;
    }
};

// An immutable index. Equal selectors are one group, however many ids they have; each group is filed under its rarest
// tag, so that a candidate looks at one bucket for each of its tags.
class SelectorTable {
  public:
    explicit SelectorTable(std::span<const SelectorEntry> entries) {
        if (entries.size() >= std::numeric_limits<std::uint32_t>::max())
            throw std::overflow_error("too many selectors");
        for (const SelectorEntry& entry : entries) ids_.push_back(entry.id);
        std::ranges::sort(ids_);
        ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
        std::vector<std::pair<std::uint32_t, std::uint32_t>> pairs;
        pairs.reserve(entries.size());
        group(entries, pairs);
        groups_of_id_ = Rows::of(ids_.size(), pairs);
        for (auto& [position, group] : pairs) {
            std::uint32_t at = position;
            position = group;
            group = at;
        }
        ids_of_group_ = Rows::of(groups_.size(), std::move(pairs));
        file();
    }

    std::span<const Id> ids() const { return ids_; }
    std::size_t entry_count() const { return groups_of_id_.items.size(); }
    std::span<const Terms> groups() const { return groups_; }
    // Groups of the id at this position of `ids()`.
    std::span<const std::uint32_t> groups_at(std::size_t position) const { return groups_of_id_[position]; }
    std::size_t ids_with(std::uint32_t group) const { return ids_of_group_[group].size(); }
    bool has(Id id) const { return std::ranges::binary_search(ids_, id); }

    // Calls `found(position in ids(), group)` for each selector that `inbound` satisfies: O(its tags + the groups filed
    // under them + hits).
    template <typename Found>
    void match(const Terms& inbound, Found found) const {
        std::uint64_t absent = ~inbound.signature();
        for (TagId tag : inbound.ids()) {
            auto bucket = buckets_.find(tag);
            if (bucket == buckets_.end()) continue;
            for (std::uint32_t at = bucket->second.first; at < bucket->second.second; ++at) {
                const Filed& filed = filed_[at];
                if ((filed.signature & absent) != 0 || !groups_[filed.group].within(inbound)) continue;
                for (std::uint32_t position : ids_of_group_[filed.group]) found(position, groups_[filed.group]);
            }
        }
    }

    // The same for the selector without terms, which needs no inbound.
    template <typename Found>
    void match_always(Found found) const {
        if (always_ == kNone) return;
        for (std::uint32_t position : ids_of_group_[always_]) found(position, groups_[always_]);
    }

    // Appends the entries whose id is not in the ascending `hidden`.
    void list(std::span<const Id> hidden, std::vector<SelectorEntry>& entries) const {
        for (std::size_t at = 0; at < ids_.size(); ++at) {
            if (std::ranges::binary_search(hidden, ids_[at])) continue;
            for (std::uint32_t group : groups_of_id_[at]) entries.push_back({ids_[at], groups_[group]});
        }
    }

  private:
    struct Filed {
        std::uint64_t signature;
        std::uint32_t group;
    };
    static constexpr std::uint32_t kNone = std::numeric_limits<std::uint32_t>::max();

    void group(std::span<const SelectorEntry> entries, std::vector<std::pair<std::uint32_t, std::uint32_t>>& pairs) {
        std::unordered_multimap<std::uint64_t, std::uint32_t> known;
        known.reserve(entries.size());
        for (const SelectorEntry& entry : entries) {
            std::uint32_t found = kNone;
            for (auto [at, end] = known.equal_range(entry.selector.hash()); at != end && found == kNone; ++at) {
                if (groups_[at->second] == entry.selector) found = at->second;
            }
            if (found == kNone) {
                found = static_cast<std::uint32_t>(groups_.size());
                groups_.push_back(entry.selector);
                known.emplace(entry.selector.hash(), found);
            }
            auto position = std::ranges::lower_bound(ids_, entry.id) - ids_.begin();
            pairs.emplace_back(static_cast<std::uint32_t>(position), found);
        }
    }

    void file() {
        std::unordered_map<TagId, std::uint32_t> uses;
        for (const Terms& group : groups_) {
            for (TagId tag : group.ids()) ++uses[tag];
        }
        std::vector<std::pair<TagId, std::uint32_t>> order;
        for (std::uint32_t at = 0; at < groups_.size(); ++at) {
            std::span<const TagId> tags = groups_[at].ids();
            if (tags.empty()) {
                always_ = at;
                continue;
            }
            order.emplace_back(*std::ranges::min_element(tags, {}, [&](TagId tag) { return uses[tag]; }), at);
        }
        std::ranges::sort(order);
        for (auto [tag, group] : order) {
            auto begin = static_cast<std::uint32_t>(filed_.size());
            auto bucket = buckets_.try_emplace(tag, begin, begin).first;
            filed_.push_back({groups_[group].signature(), group});
            ++bucket->second.second;
        }
    }

    std::vector<Id> ids_;                                                         // distinct, ascending
    std::vector<Terms> groups_;                                                   // distinct selectors
    Rows groups_of_id_;                                                           // by position in ids_
    Rows ids_of_group_;                                                           // positions in ids_
    std::unordered_map<TagId, std::pair<std::uint32_t, std::uint32_t>> buckets_;  // tag -> range of filed_
    std::vector<Filed> filed_;
    std::uint32_t always_ = kNone;
};

// What users hold: a large shared table, a small one beside it, and the ids of the large one that are gone. An edit
// copies the small part only; when that has grown past the square root of the large one, both are built anew, so that
// an edit costs O(sqrt(selectors)) amortised.
class SelectorSet {
  public:
    SelectorSet() : SelectorSet(empty(), empty(), {}) {}
    explicit SelectorSet(std::span<const SelectorEntry> entries)
        : SelectorSet(std::make_shared<const SelectorTable>(entries), empty(), {}) {}

    SelectorSet added(std::span<const SelectorEntry> more) const {
        std::vector<SelectorEntry> entries;
        overlay_->list({}, entries);
        entries.insert(entries.end(), more.begin(), more.end());
        return derived(std::move(entries), hidden_);
    }

    // `gone` in any order; ids that are not here are ignored.
    SelectorSet removed(std::vector<Id> gone) const {
        std::ranges::sort(gone);
        std::vector<SelectorEntry> entries;
        overlay_->list(gone, entries);
        std::erase_if(gone, [this](Id id) { return !base_->has(id); });
        std::vector<Id> hidden;
        std::ranges::set_union(hidden_, gone, std::back_inserter(hidden));
        hidden.erase(std::unique(hidden.begin(), hidden.end()), hidden.end());
        return derived(std::move(entries), std::move(hidden));
    }

    std::size_t size() const { return size_; }

    // Ascending ids with the best rank among the alternatives that one of the inbounds satisfies.
    void match(std::span<const Terms> inbounds, std::vector<Hit>& hits) const {
        collect(*base_, inbounds, hidden_, hits);
        collect(*overlay_, inbounds, {}, hits);
        std::ranges::sort(hits, [](const Hit& a, const Hit& b) {
            return std::tie(a.id, b.terms, b.exact) < std::tie(b.id, a.terms, a.exact);
        });
        auto repeated = std::ranges::unique(hits, {}, &Hit::id);
        hits.erase(repeated.begin(), repeated.end());
    }

    const SelectorTable& base() const { return *base_; }
    const SelectorTable& overlay() const { return *overlay_; }
    std::span<const Id> hidden() const { return hidden_; }

  private:
    using Table = std::shared_ptr<const SelectorTable>;

    SelectorSet(Table base, Table overlay, std::vector<Id> hidden)
        : base_(std::move(base)), overlay_(std::move(overlay)), hidden_(std::move(hidden)) {
        size_ = base_->ids().size() - hidden_.size();
        for (Id id : overlay_->ids()) {
            bool in_base = base_->has(id) && !std::ranges::binary_search(hidden_, id);
            size_ += in_base ? 0 : 1;
        }
    }

    static const Table& empty() {
        static const Table table = std::make_shared<const SelectorTable>(std::span<const SelectorEntry>());
        return table;
    }

    SelectorSet derived(std::vector<SelectorEntry> entries, std::vector<Id> hidden) const {
        std::size_t changes = entries.size() + hidden.size();
        if (changes <= 64 || changes * changes <= 16 * base_->entry_count()) {
            return SelectorSet(base_, std::make_shared<const SelectorTable>(entries), std::move(hidden));
        }
        base_->list(hidden, entries);
        return SelectorSet(entries);
    }

    static void collect(const SelectorTable& table, std::span<const Terms> inbounds, std::span<const Id> hidden,
                        std::vector<Hit>& hits) {
        auto found = [&](std::uint32_t position, const Terms& selector) {
            Id id = table.ids()[position];
            if (!hidden.empty() && std::ranges::binary_search(hidden, id)) return;
            hits.push_back({id, selector.size(), selector.exact()});
        };
        table.match_always(found);
        for (const Terms& inbound : inbounds) table.match(inbound, found);
    }

    Table base_;
    Table overlay_;
    std::vector<Id> hidden_;  // ascending, all of them in base_
    std::size_t size_;
};

}  // namespace kumafast
