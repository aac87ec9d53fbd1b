// Receive from a channel: subscribe FOLDER CHANNEL [INTERFACE]
#include <csignal>
#include <iostream>

#include <sealcast_https.hpp>

namespace {

using namespace std::chrono_literals;

volatile std::sig_atomic_t is_interrupted;

void interrupt(int) { is_interrupted = 1; }

int fail(std::string_view what, const sealcast::status& why) {
    std::cerr << what << ": " << why.name() << ": " << why.text() << '\n';
    return static_cast<int>(why.category());
}

sealcast::status receive(sealcast::Subscriber& subscriber) {
    sealcast::batch batch;
    sealcast::event event;
    while (!is_interrupted) {
        sealcast::status got = subscriber.recv_many(batch, 200ms);
        for (sealcast::message message : batch) {
            std::cout << message.publisher() << ": " << message.data().text() << '\n';
        }
        std::cout.flush();
        while (subscriber.next_event(event, 0s)) {
            std::cerr << event.text() << '\n';
        }
        if (!got && !got.is_timeout()) {
            return got;
        }
    }
    return subscriber.leave();
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::cerr << "usage: " << argv[0] << " FOLDER CHANNEL [INTERFACE]\n";
        return 2;
    }
    auto identity = sealcast::Identity::open(argv[1]);
    if (!identity) {
        return fail(argv[1], identity.why());
    }
    sealcast::subscriber_options options(argv[2]);
    options.on_interface(argc > 3 ? argv[3] : "");
    auto subscriber = sealcast::Subscriber::make(*identity, options);
    if (!subscriber) {
        return fail(argv[2], subscriber.why());
    }
    auto https = sealcast::Https::serve(*identity, *subscriber);
    if (!https) {
        return fail(argv[2], https.why());
    }
    sealcast::status status = subscriber->join(10s);
    if (status) {
        // From now on Ctrl-C takes leave.
        std::signal(SIGINT, interrupt);
        std::signal(SIGTERM, interrupt);
        std::cerr << "joined channel " << argv[2] << '\n';
        status = receive(*subscriber);
    }
    if (!status) {
        return fail(argv[2], status);
    }
    // Until the key server knows that this device has left.
    for (sealcast::event event; subscriber->next_event(event, 2s);) {
    }
    // Nothing else ends it well.
    return 130;
}
