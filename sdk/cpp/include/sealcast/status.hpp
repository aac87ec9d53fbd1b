// What everything here is made of: bytes, statuses, results. Include sealcast.hpp.
#ifndef SEALCAST_STATUS_HPP
#define SEALCAST_STATUS_HPP

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>
#ifdef SEALCAST_EXCEPTIONS
#include <stdexcept>
#endif

#include "sealcast.h"

// What is compiled with exceptions and what is not has other names for the linker, so both may be in one program.
#ifdef SEALCAST_EXCEPTIONS
#define SEALCAST_NAMESPACE_BEGIN namespace sealcast { inline namespace throwing {
#else
#define SEALCAST_NAMESPACE_BEGIN namespace sealcast { inline namespace plain {
#endif
#define SEALCAST_NAMESPACE_END } }

SEALCAST_NAMESPACE_BEGIN

using duration = std::chrono::microseconds;
/// A wait without end.
inline constexpr duration forever = duration::max();
/// Site ids and stream ids.
using id = std::array<std::uint8_t, 16>;

/// Bytes of somebody else, as std::span<const std::uint8_t> of C++20.
class bytes_view {
public:
    constexpr bytes_view() noexcept : raw_{nullptr, 0} {}
    constexpr bytes_view(const std::uint8_t* data, std::size_t size) noexcept : raw_{data, size} {}
    bytes_view(const void* data, std::size_t size) noexcept : raw_{static_cast<const std::uint8_t*>(data), size} {}
    bytes_view(std::string_view text) noexcept : bytes_view(static_cast<const void*>(text.data()), text.size()) {}
    bytes_view(const char* text) noexcept : bytes_view(std::string_view(text)) {}
    /// std::vector, std::array, std::string, std::span and whatever else has its bytes side by side.
    template <class Container, class = std::enable_if_t<sizeof(*std::declval<const Container&>().data()) == 1>,
              class = decltype(std::declval<const Container&>().size())>
    bytes_view(const Container& bytes) noexcept : bytes_view(static_cast<const void*>(bytes.data()), bytes.size()) {}

    constexpr const std::uint8_t* data() const noexcept { return raw_.data; }
    constexpr std::size_t size() const noexcept { return raw_.length; }
    constexpr bool empty() const noexcept { return raw_.length == 0; }
    constexpr const std::uint8_t* begin() const noexcept { return raw_.data; }
    constexpr const std::uint8_t* end() const noexcept { return raw_.data + raw_.length; }
    constexpr std::uint8_t operator[](std::size_t place) const noexcept { return raw_.data[place]; }
    /// The same bytes as text.
    std::string_view text() const noexcept {
        return empty() ? std::string_view() : std::string_view(reinterpret_cast<const char*>(raw_.data), raw_.length);
    }
    constexpr const sealcast_bytes& raw() const noexcept { return raw_; }

private:
    sealcast_bytes raw_;
};
// sealcast_publisher_send_many and others are given arrays of views as they are.
static_assert(sizeof(bytes_view) == sizeof(sealcast_bytes) && std::is_standard_layout_v<bytes_view>);

#ifdef SEALCAST_EXCEPTIONS
/// What status::require, status::check and result::value throw.
class error : public std::runtime_error {
public:
    error(sealcast_status code, const std::string& text) : std::runtime_error(text), code_(code) {}
    sealcast_status code() const noexcept { return code_; }
    sealcast_category category() const noexcept { return sealcast_status_category(code_); }

private:
    sealcast_status code_;
};
#endif

/// What became of a call. True if it is done.
class [[nodiscard]] status {
public:
    status() noexcept = default;
    /// Of a call that this thread made just now: takes what the library says about it.
    explicit status(sealcast_status code) : code_(code) {
        // A full queue is met at full speed, and says no more than its name.
        if (is_error() && code != SEALCAST_STATUS_QUEUE_FULL) {
            text_.resize(sealcast_last_error(nullptr, 0));
            sealcast_last_error(text_.data(), text_.size() + 1);
        }
    }
    status(sealcast_status code, std::string text) : code_(code), text_(std::move(text)) {}

    sealcast_status code() const noexcept { return code_; }
    bool ok() const noexcept { return code_ == SEALCAST_STATUS_OK; }
    explicit operator bool() const noexcept { return ok(); }
    /// Nothing came in the time that was given. No error.
    bool is_timeout() const noexcept { return code_ == SEALCAST_STATUS_TIMEOUT; }
    /// Nothing will come any more. No error.
    bool is_closed() const noexcept { return code_ == SEALCAST_STATUS_CLOSED; }
    bool is_error() const noexcept { return category() != SEALCAST_CATEGORY_NONE; }
    /// What a caller can do about it; also the exit code of a program that it ends.
    sealcast_category category() const noexcept { return sealcast_status_category(code_); }
    /// Such as "not-allowed".
    std::string_view name() const noexcept {
        const char* name = sealcast_status_name(code_);
        return name ? name : "unknown";
    }
    /// One line: what is wrong, the value, and the cure. Without secrets; of what is no error the name.
    std::string text() const { return text_.empty() ? std::string(name()) : text_; }

#ifdef SEALCAST_EXCEPTIONS
    /// Throws unless it is done: also after a timeout.
    void require() const {
        if (!ok()) {
            throw error(code_, text());
        }
    }
    /// Throws if it is an error; a timeout and an end are none.
    const status& check() const {
        if (is_error()) {
            throw error(code_, text());
        }
        return *this;
    }
#endif

private:
    sealcast_status code_ = SEALCAST_STATUS_OK;
    std::string text_;
};

/// A value, or why there is none. True if there is a value.
template <class T>
class [[nodiscard]] result {
public:
    result(T value) : held_(std::in_place_index<0>, std::move(value)) {}
    result(status why) : held_(std::in_place_index<1>, std::move(why)) {}

    explicit operator bool() const noexcept { return held_.index() == 0; }
    /// Why there is no value; SEALCAST_STATUS_OK where there is one.
    status why() const { return *this ? status() : *std::get_if<1>(&held_); }
    /// The value. Where there is none it throws with SEALCAST_EXCEPTIONS, and else ends the program.
    T& value() & {
        need();
        return *std::get_if<0>(&held_);
    }
    const T& value() const& {
        need();
        return *std::get_if<0>(&held_);
    }
    T&& value() && {
        need();
        return std::move(*std::get_if<0>(&held_));
    }
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T&& operator*() && { return std::move(*this).value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }

private:
    void need() const {
        if (!*this) {
#ifdef SEALCAST_EXCEPTIONS
            std::get_if<1>(&held_)->require();
#endif
            std::abort();
        }
    }

    std::variant<T, status> held_;
};

namespace detail {

inline std::uint64_t microseconds(duration time) noexcept {
    return time == forever ? SEALCAST_FOREVER : static_cast<std::uint64_t>(std::max<duration::rep>(time.count(), 0));
}

/// C would take what is before a NUL for the whole.
inline status check_texts(std::initializer_list<std::string_view> texts) {
    for (std::string_view text : texts) {
        if (text.find('\0') != text.npos) {
            std::string shown(text);
            std::replace(shown.begin(), shown.end(), '\0', '?');
            return {SEALCAST_STATUS_INVALID_ARGUMENT, "a text must not hold the character NUL: " + shown};
        }
    }
    return {};
}

inline const char* or_null(const std::string& text) noexcept { return text.empty() ? nullptr : text.c_str(); }

inline std::string_view text(const char* text) noexcept { return text ? text : std::string_view(); }

template <std::size_t N>
std::string_view fixed_text(const char (&text)[N]) noexcept {
    return {text, static_cast<std::size_t>(std::find(text, text + N, '\0') - text)};
}

template <class Handle, sealcast_status (*Free)(Handle*)>
struct freed {
    void operator()(Handle* handle) const noexcept { Free(handle); }
};

/// Calls `read(buffer, capacity, &length)` until the buffer is long enough.
template <class Read>
result<std::vector<std::uint8_t>> read_bytes(Read read) {
    std::vector<std::uint8_t> bytes(4096);
    for (;;) {
        std::size_t length = 0;
        sealcast_status code = read(bytes.data(), bytes.size(), &length);
        if (code == SEALCAST_STATUS_BUFFER_TOO_SMALL && length > bytes.size()) {
            bytes.resize(length);
            continue;
        }
        if (code != SEALCAST_STATUS_OK) {
            return status(code);
        }
        bytes.resize(length);
        return bytes;
    }
}

/// A topic as C has it. Longer ones than any that is allowed are refused here.
class topic_text {
public:
    explicit topic_text(std::string_view topic) noexcept {
        is_good_ = topic.size() < sizeof text_ && topic.find('\0') == std::string_view::npos;
        if (is_good_) {
            std::copy(topic.begin(), topic.end(), text_);
            text_[topic.size()] = 0;
        }
    }
    bool is_good() const noexcept { return is_good_; }
    const char* get() const noexcept { return text_; }
    static status refusal(std::string_view topic) {
        status text = check_texts({topic});
        std::string length = std::to_string(topic.size());
        return text ? status(SEALCAST_STATUS_TOO_LONG, "a topic has up to 255 bytes, this one " + length) : text;
    }

private:
    char text_[256];
    bool is_good_;
};

}  // namespace detail

SEALCAST_NAMESPACE_END

#endif
