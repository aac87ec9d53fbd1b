// The HTTPS of a publisher or subscriber by libcurl. Optional: link sdk/c/src/sealcast_curl.c, libcurl and OpenSSL.
#ifndef SEALCAST_HTTPS_HPP
#define SEALCAST_HTTPS_HPP

#include "sealcast.hpp"
#include "sealcast_curl.h"

SEALCAST_NAMESPACE_BEGIN

/// Makes the requests of one publisher or subscriber on a few threads, until it or the other is closed. May outlive
/// both of them, and the identity.
class Https {
public:
    /// `options`: its `size` is set here; {} for the defaults.
    static result<Https> serve(const Identity& identity, const Subscriber& subscriber, sealcast_curl_options options = {}) {
        sealcast_curl* handle = nullptr;
        options.size = sizeof options;
        // Apart from the next line, which reads what this one writes: arguments are evaluated in any order.
        sealcast_status code = sealcast_curl_serve_subscriber(identity.raw(), subscriber.raw(), &options, &handle);
        return made(code, handle, identity);
    }
    /// The same for a publisher.
    static result<Https> serve(const Identity& identity, const Publisher& publisher, sealcast_curl_options options = {}) {
        sealcast_curl* handle = nullptr;
        options.size = sizeof options;
        // Apart from the next line, which reads what this one writes: arguments are evaluated in any order.
        sealcast_status code = sealcast_curl_serve_publisher(identity.raw(), publisher.raw(), &options, &handle);
        return made(code, handle, identity);
    }
    /// The one that was moved from makes no requests any more.
    Https(Https&&) noexcept = default;
    /// Ends its own requests first.
    Https& operator=(Https&& other) noexcept {
        // In this order, for the reason below.
        handle_ = std::move(other.handle_);
        identity_ = std::move(other.identity_);
        return *this;
    }
    /// Stops, and waits for the requests under way, which end at once. In its own `configure` it does nothing.
    void close() noexcept {
        if (sealcast_curl_free(handle_.get()) != SEALCAST_STATUS_REENTRANT) {
            static_cast<void>(handle_.release());
        }
    }

private:
    struct freed {
        void operator()(sealcast_curl* handle) const noexcept { sealcast_curl_free(handle); }
    };

    Https(sealcast_curl* handle, std::shared_ptr<Identity::state> identity) noexcept
        : identity_(std::move(identity)), handle_(handle) {}

    static result<Https> made(sealcast_status code, sealcast_curl* handle, const Identity& identity) {
        if (code != SEALCAST_STATUS_OK) {
            // Not a call of libsealcast: what that said last is about something else.
            std::string text(sealcast_curl_last_error(nullptr, 0), '\0');
            sealcast_curl_last_error(text.data(), text.size() + 1);
            return status(code, std::move(text));
        }
        return Https(handle, identity.state_);
    }

    // In this order: the threads end before the identity that they show does.
    std::shared_ptr<Identity::state> identity_;
    std::unique_ptr<sealcast_curl, freed> handle_;
};

SEALCAST_NAMESPACE_END

#endif
