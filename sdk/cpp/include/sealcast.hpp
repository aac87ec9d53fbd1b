// Sealcast for C++17: secure, reliable multicast. Header-only, over sealcast.h; link with libsealcast.
//
// Nothing throws unless SEALCAST_EXCEPTIONS is defined; every call returns a status or a result. Any method may be
// called from any thread, close() too, but a batch belongs to one. An object that was closed answers
// SEALCAST_STATUS_INVALID_HANDLE, one that was moved from SEALCAST_STATUS_NULL_ARGUMENT.
#ifndef SEALCAST_HPP
#define SEALCAST_HPP

#include "sealcast/identity.hpp"
#include "sealcast/known_answer.hpp"
#include "sealcast/message.hpp"
#include "sealcast/publisher.hpp"
#include "sealcast/status.hpp"
#include "sealcast/subscriber.hpp"

#endif
