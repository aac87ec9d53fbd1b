// A self-test of the library as it is installed. Include sealcast.hpp.
#ifndef SEALCAST_KNOWN_ANSWER_HPP
#define SEALCAST_KNOWN_ANSWER_HPP

#include "status.hpp"

SEALCAST_NAMESPACE_BEGIN

/// The library's answer to a case of the known answers (vectors/), to be compared with what the file says.
///
/// `file`: its name without ending, such as "varint". `question`: a CBOR map of the inputs of a case and of its group,
/// with the names and values that the file has; so is the answer, of the results.
inline result<std::vector<std::uint8_t>> known_answer(const std::string& file, bytes_view question) {
    if (status texts = detail::check_texts({file}); !texts) {
        return texts;
    }
    return detail::read_bytes([&](std::uint8_t* buffer, std::size_t capacity, std::size_t* length) {
        return sealcast_known_answer(file.c_str(), question.raw(), buffer, capacity, length);
    });
}

SEALCAST_NAMESPACE_END

#endif
