// What comes: messages in batches, events, requests. Include sealcast.hpp.
#ifndef SEALCAST_MESSAGE_HPP
#define SEALCAST_MESSAGE_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "status.hpp"

SEALCAST_NAMESPACE_BEGIN

/// A verified message. It is a view: good until its batch is used again.
class message {
public:
    explicit message(const sealcast_message& raw) noexcept : raw_(&raw) {}
    bytes_view data() const noexcept { return {raw_->data, raw_->length}; }
    std::optional<std::string_view> topic() const noexcept {
        return raw_->topic ? std::optional<std::string_view>(raw_->topic) : std::nullopt;
    }
    /// As the policy writes it: its name, or "<site id>:<name>" of another site.
    std::string_view publisher() const noexcept { return detail::text(raw_->publisher); }
    id stream() const noexcept {
        id stream;
        std::copy(std::begin(raw_->stream), std::end(raw_->stream), stream.begin());
        return stream;
    }
    /// Of the packet that completed it.
    std::uint64_t sequence() const noexcept { return raw_->sequence; }
    std::uint64_t message_id() const noexcept { return raw_->message_id; }
    /// When it was sealed.
    std::chrono::system_clock::time_point time() const noexcept {
        return std::chrono::system_clock::time_point(
            std::chrono::duration_cast<std::chrono::system_clock::duration>(duration(raw_->time)));
    }
    const sealcast_message& raw() const noexcept { return *raw_; }

private:
    const sealcast_message* raw_;
};

/// Messages, and the buffer that they lie in: make one, and use it for every call. They move with it; none is left.
class batch {
public:
    /// `capacity`: bytes at first; it grows where a message is longer. `limit`: messages that one call takes.
    explicit batch(std::size_t capacity = std::size_t{1} << 20, std::size_t limit = 256)
        : capacity_(std::max<std::size_t>(capacity, 1)), messages_(std::max<std::size_t>(limit, 1)) {}
    batch(batch&& other) noexcept : capacity_(other.capacity_) { swap(other); }
    batch& operator=(batch&& other) noexcept { return swap(other), *this; }

    class iterator {
    public:
        using iterator_category = std::input_iterator_tag;
        using value_type = message;
        using difference_type = std::ptrdiff_t;
        using pointer = void;
        using reference = message;
        explicit iterator(const sealcast_message* place) noexcept : place_(place) {}
        message operator*() const noexcept { return message(*place_); }
        iterator& operator++() noexcept {
            ++place_;
            return *this;
        }
        iterator operator++(int) noexcept { return iterator(place_++); }
        bool operator==(const iterator& other) const noexcept { return place_ == other.place_; }
        bool operator!=(const iterator& other) const noexcept { return place_ != other.place_; }

    private:
        const sealcast_message* place_;
    };

    iterator begin() const noexcept { return iterator(messages_.data()); }
    iterator end() const noexcept { return iterator(messages_.data() + count_); }
    std::size_t size() const noexcept { return count_; }
    bool empty() const noexcept { return count_ == 0; }
    message operator[](std::size_t place) const noexcept { return message(messages_[place]); }

private:
    friend class Subscriber;

    void swap(batch& other) noexcept {
        std::swap(buffer_, other.buffer_);
        std::swap(capacity_, other.capacity_);
        std::swap(messages_, other.messages_);
        std::swap(count_, other.count_);
    }
    /// For the message that did not fit, whose length was told.
    void grow() {
        buffer_.reset();
        capacity_ = messages_[0].length;
    }
    /// Made without zeros: pages that no message reaches cost nothing.
    std::uint8_t* buffer() {
        if (!buffer_) {
            buffer_.reset(new std::uint8_t[capacity_]);
        }
        return buffer_.get();
    }

    std::unique_ptr<std::uint8_t[]> buffer_;
    std::size_t capacity_;
    std::vector<sealcast_message> messages_;
    std::size_t count_ = 0;
};

/// One fact besides messages.
class event {
public:
    /// A sealcast_event_kind; pass over those that you do not know.
    std::int32_t kind() const noexcept { return raw_.kind; }
    /// Such as "stream-started"; "unknown" of a later library's kinds.
    const char* name() const noexcept {
        switch (raw_.kind) {
            case SEALCAST_EVENT_KIND_JOINED: return "joined";
            case SEALCAST_EVENT_KIND_GAP: return "gap";
            case SEALCAST_EVENT_KIND_MESSAGE_LOST: return "message-lost";
            case SEALCAST_EVENT_KIND_STREAM_STARTED: return "stream-started";
            case SEALCAST_EVENT_KIND_STREAM_ENDED: return "stream-ended";
            case SEALCAST_EVENT_KIND_STREAM_CLOSED: return "stream-closed";
            case SEALCAST_EVENT_KIND_EQUIVOCATION: return "equivocation";
            case SEALCAST_EVENT_KIND_SUCCESSION_CONFLICT: return "succession-conflict";
            case SEALCAST_EVENT_KIND_EPOCH_CHANGED: return "epoch-changed";
            case SEALCAST_EVENT_KIND_COMMITMENT_MISMATCH: return "commitment-mismatch";
            case SEALCAST_EVENT_KIND_POLICY_CHANGED: return "policy-changed";
            case SEALCAST_EVENT_KIND_REFUSED: return "refused";
            case SEALCAST_EVENT_KIND_OUT_OF_CONTACT: return "out-of-contact";
            case SEALCAST_EVENT_KIND_SOURCE_PASSED_OVER: return "source-passed-over";
            case SEALCAST_EVENT_KIND_BLOCKED: return "blocked";
            default: return "unknown";
        }
    }
    /// What the numbers mean depends on the kind: sealcast.h says it.
    std::uint64_t first() const noexcept { return raw_.first; }
    std::uint64_t last() const noexcept { return raw_.last; }
    /// Whose stream it is; empty where it is about none.
    std::string_view publisher() const noexcept { return detail::fixed_text(raw_.publisher); }
    /// One line for a person.
    std::string_view text() const noexcept { return detail::fixed_text(raw_.text); }
    id stream() const noexcept {
        id stream;
        std::copy(std::begin(raw_.stream), std::end(raw_.stream), stream.begin());
        return stream;
    }
    sealcast_event& raw() noexcept { return raw_; }
    const sealcast_event& raw() const noexcept { return raw_; }

private:
    sealcast_event raw_{};
};

/// A request for a host that makes its own HTTPS, with what it points to: it can be moved, not copied. Empty at first.
/// CONVENTIONS.md says what to keep to.
class request {
public:
    request() noexcept = default;
    request(request&& other) noexcept { swap(other); }
    request& operator=(request&& other) noexcept { return swap(other), *this; }

    std::uint64_t id() const noexcept { return raw_.id; }
    std::string_view method() const noexcept { return detail::text(raw_.method); }
    std::string_view url() const noexcept { return detail::text(raw_.url); }
    std::string_view peer() const noexcept { return detail::text(raw_.peer); }
    std::string_view content_type() const noexcept { return detail::text(raw_.content_type); }
    bytes_view body() const noexcept { return {raw_.body, raw_.body_length}; }
    duration timeout() const noexcept { return duration(raw_.timeout); }
    std::uint64_t identity_generation() const noexcept { return raw_.identity_generation; }

private:
    friend class Subscriber;
    friend class Publisher;

    void swap(request& other) noexcept {
        std::swap(raw_, other.raw_);
        std::swap(buffer_, other.buffer_);
    }
    template <class Next>
    status fill(Next next, std::size_t capacity) {
        // What was there may move with the buffer, also where nothing comes.
        raw_ = {};
        buffer_.resize(capacity);
        return status(next(buffer_.data(), buffer_.size(), &raw_, sizeof raw_));
    }

    sealcast_request raw_{};
    std::vector<std::uint8_t> buffer_;
};

SEALCAST_NAMESPACE_END

#endif
