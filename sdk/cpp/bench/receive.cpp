// The receiving end of `make bench`: receive FOLDER CHANNEL COUNT BYTES. Takes a first message, then COUNT of so many
// zero bytes each, checks them, and tells what it has seen as a line of JSON.
#include <algorithm>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <vector>

#include <sealcast_https.hpp>

namespace {

using namespace std::chrono_literals;
using sealcast::status;

constexpr auto patience = 10s;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

int fail(const char* what, const status& why) {
    std::cerr << what << ": " << why.name() << ": " << why.text() << '\n';
    return 1;
}

void tell(const char* line) {
    std::puts(line);
    std::fflush(stdout);
}

std::uint64_t lost(sealcast::Subscriber& subscriber) {
    std::uint64_t count = 0;
    sealcast::event event;
    while (subscriber.next_event(event, 0s)) {
        if (event.kind() == SEALCAST_EVENT_KIND_GAP) {
            count += event.last() == UINT64_MAX ? 1 : event.last() - event.first() + 1;
        } else if (event.kind() == SEALCAST_EVENT_KIND_MESSAGE_LOST) {
            count++;
        }
    }
    return count;
}

int receive(sealcast::Subscriber& subscriber, std::uint64_t count, std::size_t bytes) {
    const std::vector<std::uint8_t> expected(bytes);
    sealcast::batch batch(512);
    status got = subscriber.recv(batch, sealcast::forever);
    if (!got) {
        return fail("recv", got);
    }
    tell("{\"heard\": true}");
    std::uint64_t next = batch[0].message_id() + 1, received = 0, wrong = 0, gone = 0;
    auto before = subscriber.counters();
    double cpu = cpu_seconds(), last = 0;
    while (received + gone < count) {
        got = subscriber.recv_many(batch, patience);
        if (!got) {
            return fail("recv_many", got);
        }
        last = seconds();
        for (sealcast::message message : batch) {
            sealcast::bytes_view data = message.data();
            wrong += message.message_id() != next || data.size() != bytes ||
                     !std::equal(data.begin(), data.end(), expected.begin());
            next = message.message_id() + 1;
        }
        received += batch.size();
        gone += lost(subscriber);
    }
    cpu = cpu_seconds() - cpu;
    auto after = subscriber.counters();
    if (!before || !after) {
        return fail("counters", after.why());
    }
    std::printf("{\"last\": %.9f, \"received\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"wrong\": %" PRIu64
                ", \"cpu\": %.6f, \"counters\": {\"repaired\": %" PRIu64 ", \"dropped-by-kernel\": %" PRIu64 "}}\n",
                last, received, gone, wrong, cpu, after->repaired - before->repaired,
                after->dropped_by_kernel - before->dropped_by_kernel);
    std::fflush(stdout);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 5) {
        std::cerr << "usage: " << argv[0] << " FOLDER CHANNEL COUNT BYTES\n";
        return 2;
    }
    auto identity = sealcast::Identity::open(argv[1]);
    if (!identity) {
        return fail(argv[1], identity.why());
    }
    auto subscriber = sealcast::Subscriber::make(*identity, sealcast::subscriber_options(argv[2]));
    if (!subscriber) {
        return fail(argv[2], subscriber.why());
    }
    auto https = sealcast::Https::serve(*identity, *subscriber);
    if (!https) {
        return fail(argv[2], https.why());
    }
    status joined = subscriber->join(patience);
    if (!joined) {
        return fail(argv[2], joined);
    }
    tell("{\"ready\": true}");
    int code = receive(*subscriber, std::strtoull(argv[3], nullptr, 10), std::strtoull(argv[4], nullptr, 10));
    (void)subscriber->leave();
    sealcast::event event;
    while (subscriber->next_event(event, 2s)) {
    }
    return code;
}
