// The device. Include sealcast.hpp.
#ifndef SEALCAST_IDENTITY_HPP
#define SEALCAST_IDENTITY_HPP

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "status.hpp"

SEALCAST_NAMESPACE_BEGIN

/// Signs with a device key that is in no file: puts the signature into the vector and returns true. Is called on any
/// thread, must not call Sealcast and, without SEALCAST_EXCEPTIONS, must not throw. ECDSA signatures are in DER.
using signer = std::function<bool(bytes_view message, std::vector<std::uint8_t>& signature)>;

/// A device: the folder that `sealcast device enroll` made. What is made from it goes on without it.
class Identity {
public:
    /// Fails with SEALCAST_STATUS_NO_DEVICE, SEALCAST_STATUS_STORAGE; with SEALCAST_STATUS_SIGNING where the folder has no key, or
    /// another one than its certificate's, and none is given.
    static result<Identity> open(const std::string& folder) { return open(folder, nullptr, 0); }
    /// With a key elsewhere. `algorithm`: a sealcast_algorithm. The signer lives as long as whatever may call it.
    static result<Identity> open(const std::string& folder, signer sign, std::int32_t algorithm) {
        if (sealcast_abi_version() != SEALCAST_ABI_VERSION) {
            return status(SEALCAST_STATUS_WRONG_SIZE, "libsealcast has interface " +
                                                          std::to_string(sealcast_abi_version()) + ", this program " +
                                                          std::to_string(SEALCAST_ABI_VERSION) + ": build it anew");
        }
        if (status texts = detail::check_texts({folder}); !texts) {
            return texts;
        }
        auto state = std::make_shared<Identity::state>();
        state->sign = std::move(sign);
        sealcast_identity_options options{};
        options.size = sizeof options;
        if (state->sign) {
            options.sign = call_signer;
            options.sign_context = &state->sign;
            options.algorithm = algorithm;
        }
        sealcast_identity* handle = nullptr;
        sealcast_status code = sealcast_identity_open(folder.c_str(), &options, &handle);
        if (code != SEALCAST_STATUS_OK) {
            return status(code);
        }
        state->handle.reset(handle);
        return Identity(std::move(state));
    }
    Identity(Identity&&) noexcept = default;
    Identity& operator=(Identity&&) noexcept = default;

    /// What the device is called, and which files an HTTPS client needs now.
    result<sealcast_identity_info> info() const {
        sealcast_identity_info info;
        sealcast_status code = sealcast_identity_get_info(raw(), &info, sizeof info);
        if (code != SEALCAST_STATUS_OK) {
            return status(code);
        }
        return info;
    }
    /// The device's chain in DER, its own certificate first.
    result<std::vector<std::vector<std::uint8_t>>> certificates() const {
        return list(sealcast_identity_get_certificate);
    }
    /// The roots and site CAs in DER, for a TLS client that wants to build paths.
    result<std::vector<std::vector<std::uint8_t>>> authorities() const { return list(sealcast_identity_get_authority); }
    /// Signs with the device key.
    result<std::vector<std::uint8_t>> sign(bytes_view message) const {
        return detail::read_bytes([&](std::uint8_t* buffer, std::size_t capacity, std::size_t* length) {
            return sealcast_identity_sign(raw(), message.raw(), buffer, capacity, length);
        });
    }
    sealcast_identity* raw() const noexcept { return state_ ? state_->handle.get() : nullptr; }

private:
    friend class Subscriber;
    friend class Publisher;
    friend class Https;

    /// Subscribers, publishers and their HTTPS hold it too: their callbacks end up in the signer.
    struct state {
        signer sign;
        std::unique_ptr<sealcast_identity, detail::freed<sealcast_identity, sealcast_identity_free>> handle;
    };

    explicit Identity(std::shared_ptr<state> made) noexcept : state_(std::move(made)) {}

    static std::int32_t call_signer(void* context, const std::uint8_t* message, std::size_t length,
                                    std::uint8_t* signature, std::size_t* signature_length) noexcept {
        std::vector<std::uint8_t> made;
#ifdef SEALCAST_EXCEPTIONS
        try {
#endif
            if (!(*static_cast<signer*>(context))(bytes_view(message, length), made)) {
                return 1;
            }
#ifdef SEALCAST_EXCEPTIONS
        } catch (...) {
            return 1;
        }
#endif
        if (made.size() > *signature_length) {
            return 1;
        }
        std::copy(made.begin(), made.end(), signature);
        *signature_length = made.size();
        return 0;
    }

    template <class Get>
    result<std::vector<std::vector<std::uint8_t>>> list(Get get) const {
        std::vector<std::vector<std::uint8_t>> found;
        for (;;) {
            auto one = detail::read_bytes([&](std::uint8_t* buffer, std::size_t capacity, std::size_t* length) {
                return get(raw(), found.size(), buffer, capacity, length);
            });
            if (!one && one.why().is_closed()) {
                return found;
            }
            if (!one) {
                return one.why();
            }
            found.push_back(std::move(*one));
        }
    }

    std::shared_ptr<state> state_;
};

SEALCAST_NAMESPACE_END

#endif
