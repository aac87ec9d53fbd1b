// Receiving. Include sealcast.hpp.
#ifndef SEALCAST_SUBSCRIBER_HPP
#define SEALCAST_SUBSCRIBER_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "identity.hpp"
#include "message.hpp"

SEALCAST_NAMESPACE_BEGIN

/// How a subscriber receives: subscriber_options("ward/ecg").start(SEALCAST_START_LAST). `values` holds the rest.
class subscriber_options {
public:
    explicit subscriber_options(std::string channel) : channel_(std::move(channel)) {
        sealcast_subscriber_options_init(&values, sizeof values);
    }
    /// A channel of another site, by its id and its key server, "https://host:port".
    subscriber_options& of_site(const id& site, std::string keys_url) {
        std::copy(site.begin(), site.end(), std::begin(values.site_id));
        keys_url_ = std::move(keys_url);
        return *this;
    }
    /// Name or address of the network interface, in place of the policy's.
    subscriber_options& on_interface(std::string name) { return interface_ = std::move(name), *this; }
    /// "ADDR:PORT" to receive on, in place of the policy's group.
    subscriber_options& listen(std::string address) { return listen_ = std::move(address), *this; }
    /// The only host that is listened to.
    subscriber_options& source(std::string address) { return source_ = std::move(address), *this; }
    subscriber_options& delivery(sealcast_delivery order) { return values.delivery = order, *this; }
    /// In order; what is later than this is passed over.
    subscriber_options& realtime(duration deadline) {
        values.delivery = SEALCAST_DELIVERY_REALTIME;
        values.deadline = detail::microseconds(deadline);
        return *this;
    }
    subscriber_options& start(sealcast_start from) { return values.start = from, *this; }
    subscriber_options& max_message_bytes(std::uint64_t bytes) { return values.max_message_bytes = bytes, *this; }
    /// No multicast: everything comes by requests.
    subscriber_options& side_channel(bool is_on = true) { return values.side_channel = is_on, *this; }

    /// The options as C has them, good for as long as this object is left as it is.
    sealcast_subscriber_options raw() const noexcept {
        sealcast_subscriber_options options = values;
        options.channel = channel_.c_str();
        options.keys_url = detail::or_null(keys_url_);
        options.interface_name = detail::or_null(interface_);
        options.listen = detail::or_null(listen_);
        options.source = detail::or_null(source_);
        return options;
    }

    sealcast_subscriber_options values;

private:
    friend class Subscriber;

    status check() const { return detail::check_texts({channel_, keys_url_, interface_, listen_, source_}); }

    std::string channel_, keys_url_, interface_, listen_, source_;
};

/// Receives from a channel. Its requests have to be made: by Https (sealcast_https.hpp), or by the host.
class Subscriber {
public:
    static result<Subscriber> make(const Identity& identity, const subscriber_options& options, std::uint64_t now = 0) {
        if (status texts = options.check(); !texts) {
            return texts;
        }
        sealcast_subscriber_options raw = options.raw();
        sealcast_subscriber* handle = nullptr;
        sealcast_status code = sealcast_subscriber_new(identity.raw(), &raw, now, &handle);
        if (code != SEALCAST_STATUS_OK) {
            return status(code);
        }
        return Subscriber(handle, identity.state_);
    }
    Subscriber(Subscriber&&) noexcept = default;
    Subscriber& operator=(Subscriber&& other) noexcept {
        // The handle first: it may call the signer until it is freed.
        handle_ = std::move(other.handle_);
        identity_ = std::move(other.identity_);
        return *this;
    }

    /// Waits until the key server has taken the device in. Fails with SEALCAST_STATUS_NOT_ALLOWED,
    /// SEALCAST_STATUS_UNKNOWN_CHANNEL, SEALCAST_STATUS_REVOKED, SEALCAST_STATUS_CERTIFICATE, SEALCAST_STATUS_INTERFACE.
    status join(duration timeout) { return status(sealcast_subscriber_join(raw(), detail::microseconds(timeout))); }

    /// Waits for messages and puts those that are there into `into`, which is empty unless it is done.
    ///
    /// A timeout says that none came, SEALCAST_STATUS_CLOSED that none will. Fails as join() when the key server refuses
    /// the device from now on; whoever calls again waits for it to be admitted anew. One thread at a time.
    status recv_many(batch& into, duration timeout) { return recv(into, timeout, into.messages_.size()); }
    /// The same for one message.
    status recv(batch& into, duration timeout) { return recv(into, timeout, 1); }

    /// Waits for the next event. They come in their order among messages, once the messages before were taken.
    status next_event(event& into, duration timeout) {
        return status(
            sealcast_subscriber_next_event(raw(), detail::microseconds(timeout), &into.raw(), sizeof into.raw()));
    }
    result<sealcast_subscriber_counters> counters() const {
        sealcast_subscriber_counters counters;
        sealcast_status code = sealcast_subscriber_get_counters(raw(), &counters, sizeof counters);
        if (code != SEALCAST_STATUS_OK) {
            return status(code);
        }
        return counters;
    }
    /// Leaves the channel; all waits end with SEALCAST_STATUS_CLOSED when the key server knows.
    status leave() { return status(sealcast_subscriber_leave(raw())); }
    /// Closes it: whoever waits gets SEALCAST_STATUS_CLOSED.
    void close() noexcept { sealcast_subscriber_free(raw()); }

    /// The next request that the host is to make, where there is no Https.
    status next_request(request& into, duration timeout) {
        auto next = [&](std::uint8_t* buffer, std::size_t capacity, sealcast_request* made, std::size_t size) {
            return sealcast_subscriber_next_request(raw(), detail::microseconds(timeout), buffer, capacity, made, size);
        };
        return into.fill(next, (std::size_t{64} << 10) + 1024);
    }
    /// Judges who has answered, before a byte of the request is sent. `chain`: DER, its own certificate first.
    status verify_server(std::uint64_t request, const std::vector<bytes_view>& chain) {
        return status(sealcast_subscriber_verify_server(
            raw(), request, reinterpret_cast<const sealcast_bytes*>(chain.data()), chain.size()));
    }
    /// `http_status`: 0 where nobody could be reached, or was believed; `body` may then say why, as text.
    status respond(std::uint64_t request, std::int32_t http_status, bytes_view body) {
        return status(sealcast_subscriber_respond(raw(), request, http_status, body.raw()));
    }
    /// Datagrams of the group, where the host has the sockets.
    status receive_datagrams(const std::vector<bytes_view>& datagrams, std::uint64_t now) {
        return status(sealcast_subscriber_receive_datagrams(
            raw(), reinterpret_cast<const sealcast_bytes*>(datagrams.data()), datagrams.size(), now));
    }
    /// Does what is due, where the host runs the clock; returns when the next thing is.
    result<std::uint64_t> handle_deadline(std::uint64_t now) {
        std::uint64_t deadline = 0;
        sealcast_status code = sealcast_subscriber_handle_deadline(raw(), now, &deadline);
        if (code != SEALCAST_STATUS_OK) {
            return status(code);
        }
        return deadline;
    }
    sealcast_subscriber* raw() const noexcept { return handle_.get(); }

private:
    friend class Https;

    Subscriber(sealcast_subscriber* handle, std::shared_ptr<Identity::state> identity) noexcept
        : identity_(std::move(identity)), handle_(handle) {}

    status recv(batch& into, duration timeout, std::size_t limit) {
        into.count_ = 0;
        std::uint64_t wait = detail::microseconds(timeout);
        for (;;) {
            std::size_t count = 0;
            sealcast_status code = sealcast_subscriber_recv_many(raw(), wait, into.buffer(), into.capacity_,
                                                                 into.messages_.data(), sizeof(sealcast_message), limit,
                                                                 &count);
            if (code != SEALCAST_STATUS_BUFFER_TOO_SMALL) {
                into.count_ = code == SEALCAST_STATUS_OK ? count : 0;
                return status(code);
            }
            // The message is there, and stays.
            into.grow();
            wait = 0;
        }
    }

    std::shared_ptr<Identity::state> identity_;
    std::unique_ptr<sealcast_subscriber, detail::freed<sealcast_subscriber, sealcast_subscriber_free>> handle_;
};

SEALCAST_NAMESPACE_END

#endif
