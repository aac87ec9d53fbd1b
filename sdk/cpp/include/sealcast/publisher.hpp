// Sending. Include sealcast.hpp.
#ifndef SEALCAST_PUBLISHER_HPP
#define SEALCAST_PUBLISHER_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "identity.hpp"
#include "message.hpp"

SEALCAST_NAMESPACE_BEGIN

/// How a publisher sends: publisher_options("ward/ecg").on_interface("eth1"). `values` holds the rest.
class publisher_options {
public:
    explicit publisher_options(std::string channel) : channel_(std::move(channel)) {
        sealcast_publisher_options_init(&values, sizeof values);
    }
    /// A channel of another site, by its id and its key server, "https://host:port".
    publisher_options& of_site(const id& site, std::string keys_url) {
        std::copy(site.begin(), site.end(), std::begin(values.site_id));
        keys_url_ = std::move(keys_url);
        return *this;
    }
    /// Name or address of the network interface, in place of the policy's.
    publisher_options& on_interface(std::string name) { return interface_ = std::move(name), *this; }
    /// "ADDR:PORT" to send to, in place of the policy's group.
    publisher_options& send_to(std::string address) { return send_to_ = std::move(address), *this; }
    /// One of several publishers of this device on the channel.
    publisher_options& instance(std::string name) { return instance_ = std::move(name), *this; }
    /// Keeps the last value of so many topics for who joins later, in so many bytes.
    publisher_options& retain(std::uint32_t topics, std::uint64_t bytes) {
        values.retain_topics = topics;
        values.retain_bytes = bytes;
        return *this;
    }
    /// Parity in place of the policy's.
    publisher_options& fec(sealcast_fec parity) { return values.fec = parity, *this; }
    publisher_options& fec(std::uint32_t sources, std::uint32_t parities) {
        values.fec = SEALCAST_FEC_FIXED;
        values.fec_sources = sources;
        values.fec_parities = parities;
        return *this;
    }
    publisher_options& max_message_bytes(std::uint64_t bytes) { return values.max_message_bytes = bytes, *this; }
    publisher_options& queue_bytes(std::uint64_t bytes) { return values.queue_bytes = bytes, *this; }

    /// The options as C has them, good for as long as this object is left as it is.
    sealcast_publisher_options raw() const noexcept {
        sealcast_publisher_options options = values;
        options.channel = channel_.c_str();
        options.keys_url = detail::or_null(keys_url_);
        options.interface_name = detail::or_null(interface_);
        options.send_to = detail::or_null(send_to_);
        options.instance = detail::or_null(instance_);
        return options;
    }

    sealcast_publisher_options values;

private:
    friend class Publisher;

    status check() const { return detail::check_texts({channel_, keys_url_, interface_, send_to_, instance_}); }

    std::string channel_, keys_url_, interface_, send_to_, instance_;
};

/// The longest datagram that a publisher can be told to make.
inline constexpr std::size_t max_datagram = 9000;

/// Sends to a channel. Its requests have to be made: by Https (sealcast_https.hpp), or by the host.
class Publisher {
public:
    static result<Publisher> make(const Identity& identity, const publisher_options& options, std::uint64_t now = 0) {
        if (status texts = options.check(); !texts) {
            return texts;
        }
        sealcast_publisher_options raw = options.raw();
        sealcast_publisher* handle = nullptr;
        sealcast_status code = sealcast_publisher_new(identity.raw(), &raw, now, &handle);
        if (code != SEALCAST_STATUS_OK) {
            return status(code);
        }
        return Publisher(handle, identity.state_);
    }
    Publisher(Publisher&&) noexcept = default;
    Publisher& operator=(Publisher&& other) noexcept {
        // The handle first: it may call the signer until it is freed.
        handle_ = std::move(other.handle_);
        identity_ = std::move(other.identity_);
        return *this;
    }

    /// Waits until the key server has taken the device in. Fails as Subscriber::join, and with SEALCAST_STATUS_SIGNING.
    status join(duration timeout) { return status(sealcast_publisher_join(raw(), detail::microseconds(timeout))); }

    /// Queues a message; it is copied. SEALCAST_STATUS_QUEUE_FULL: try again after wait_room(), or use send_wait().
    status send(bytes_view message) { return status(sealcast_publisher_send(raw(), message.raw(), nullptr)); }
    status send(bytes_view message, std::string_view topic) {
        detail::topic_text text(topic);
        return text.is_good() ? status(sealcast_publisher_send(raw(), message.raw(), text.get())) : text.refusal(topic);
    }
    /// As send(), and waits for room where the queue is full; SEALCAST_STATUS_TIMEOUT: there was none.
    status send_wait(bytes_view message, std::optional<std::string_view> topic, duration timeout) {
        const auto begun = std::chrono::steady_clock::now();
        for (;;) {
            status sent = topic ? send(message, *topic) : send(message);
            if (sent.code() != SEALCAST_STATUS_QUEUE_FULL) {
                return sent;
            }
            duration left = timeout;
            if (timeout != forever) {
                left -= std::chrono::duration_cast<duration>(std::chrono::steady_clock::now() - begun);
                if (left < duration::zero()) {
                    return status(SEALCAST_STATUS_TIMEOUT);
                }
            }
            status room = wait_room(left);
            if (!room.ok()) {
                return room;
            }
        }
    }
    /// Queues messages in order until the queue is full; returns how many were taken.
    result<std::size_t> send_many(const bytes_view* messages, std::size_t count,
                                  std::optional<std::string_view> topic = std::nullopt) {
        detail::topic_text text(topic.value_or(std::string_view()));
        if (!text.is_good()) {
            return text.refusal(*topic);
        }
        std::size_t taken = 0;
        sealcast_status code = sealcast_publisher_send_many(raw(), reinterpret_cast<const sealcast_bytes*>(messages),
                                                            count, topic ? text.get() : nullptr, &taken);
        if (code != SEALCAST_STATUS_OK) {
            return status(code);
        }
        return taken;
    }
    /// Waits until half of the queue is free, and there is room for the message that was refused last.
    status wait_room(duration timeout) {
        return status(sealcast_publisher_wait_room(raw(), detail::microseconds(timeout)));
    }
    /// Sends what is queued and says the end of the stream. Keep the publisher, and its Https, for as long as subscribers
    /// are to be mended. SEALCAST_STATUS_INCOMPLETE: nobody could be told.
    status finish(duration timeout) { return status(sealcast_publisher_finish(raw(), detail::microseconds(timeout))); }
    /// Closes it; a stream that was not finished ends without a word.
    void close() noexcept { sealcast_publisher_free(raw()); }

    result<id> stream() const {
        id stream;
        std::uint8_t bytes[16];
        sealcast_status code = sealcast_publisher_get_stream(raw(), &bytes);
        if (code != SEALCAST_STATUS_OK) {
            return status(code);
        }
        std::copy(std::begin(bytes), std::end(bytes), stream.begin());
        return stream;
    }
    status next_event(event& into, duration timeout) {
        return status(
            sealcast_publisher_next_event(raw(), detail::microseconds(timeout), &into.raw(), sizeof into.raw()));
    }
    result<sealcast_publisher_counters> counters() const {
        sealcast_publisher_counters counters;
        sealcast_status code = sealcast_publisher_get_counters(raw(), &counters, sizeof counters);
        if (code != SEALCAST_STATUS_OK) {
            return status(code);
        }
        return counters;
    }

    /// The next request that the host is to make, where there is no Https.
    status next_request(request& into, duration timeout) {
        auto next = [&](std::uint8_t* buffer, std::size_t capacity, sealcast_request* made, std::size_t size) {
            return sealcast_publisher_next_request(raw(), detail::microseconds(timeout), buffer, capacity, made, size);
        };
        return into.fill(next, (std::size_t{1} << 20) + 1024);
    }
    /// As Subscriber::verify_server.
    status verify_server(std::uint64_t request, const std::vector<bytes_view>& chain) {
        return status(sealcast_publisher_verify_server(
            raw(), request, reinterpret_cast<const sealcast_bytes*>(chain.data()), chain.size()));
    }
    /// As Subscriber::respond.
    status respond(std::uint64_t request, std::int32_t http_status, bytes_view body) {
        return status(sealcast_publisher_respond(raw(), request, http_status, body.raw()));
    }
    /// One datagram for the group, where the host has the sockets; SEALCAST_STATUS_TIMEOUT: there is none now. Give it the
    /// same vector again and again.
    status poll_datagram(std::vector<std::uint8_t>& into, std::uint64_t now) {
        std::size_t length = 0;
        into.resize(max_datagram);
        sealcast_status code = sealcast_publisher_poll_datagram(raw(), now, into.data(), into.size(), &length);
        into.resize(length);
        return status(code);
    }
    /// Does what is due, where the host runs the clock; returns when the next thing is.
    result<std::uint64_t> handle_deadline(std::uint64_t now) {
        std::uint64_t deadline = 0;
        sealcast_status code = sealcast_publisher_handle_deadline(raw(), now, &deadline);
        if (code != SEALCAST_STATUS_OK) {
            return status(code);
        }
        return deadline;
    }
    sealcast_publisher* raw() const noexcept { return handle_.get(); }

private:
    friend class Https;

    Publisher(sealcast_publisher* handle, std::shared_ptr<Identity::state> identity) noexcept
        : identity_(std::move(identity)), handle_(handle) {}

    std::shared_ptr<Identity::state> identity_;
    std::unique_ptr<sealcast_publisher, detail::freed<sealcast_publisher, sealcast_publisher_free>> handle_;
};

SEALCAST_NAMESPACE_END

#endif
