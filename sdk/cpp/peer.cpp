// The peer of sdk/scenarios, in C++ on the public interface alone.
#include <atomic>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>

#include <sealcast_https.hpp>

namespace {

using namespace std::chrono_literals;
using sealcast::status;

std::mutex output;

// One line, whole and at once, whichever thread tells it.
template <class... Parts>
void tell(const Parts&... parts) {
    std::lock_guard<std::mutex> lock(output);
    (std::cout << ... << parts) << std::endl;
}

int fail(const status& why) {
    tell("error ", why.name(), ' ', why.text());
    return static_cast<int>(why.category());
}

void tell_event(const sealcast::event& event) {
    std::string_view publisher = event.publisher().empty() ? "-" : event.publisher();
    tell("event ", event.name(), ' ', event.first(), ' ', event.last(), ' ', publisher);
}

std::string option(int argc, char** argv, std::string_view name) {
    for (int place = 4; place + 1 < argc; place += 2) {
        if (argv[place] == name) {
            return argv[place + 1];
        }
    }
    return {};
}

status receive(sealcast::Subscriber& subscriber) {
    sealcast::batch batch;
    sealcast::event event;
    for (;;) {
        status got = subscriber.recv_many(batch, 100ms);
        for (sealcast::message message : batch) {
            tell("message ", message.publisher(), ' ', message.topic().value_or("-"), ' ', message.data().text());
        }
        while (subscriber.next_event(event, 0s)) {
            tell_event(event);
        }
        if (!got && !got.is_timeout()) {
            return got;
        }
    }
}

int subscribe(const sealcast::Identity& identity, int argc, char** argv) {
    sealcast::subscriber_options options(argv[3]);
    std::string start = option(argc, argv, "--start");
    options.listen(option(argc, argv, "--listen"));
    options.start(start == "last"    ? SEALCAST_START_LAST
                  : start == "start" ? SEALCAST_START_START
                                     : SEALCAST_START_NOW);
    auto subscriber = sealcast::Subscriber::make(identity, options);
    if (!subscriber) {
        return fail(subscriber.why());
    }
    auto https = sealcast::Https::serve(identity, *subscriber);
    if (!https) {
        return fail(https.why());
    }
    status joined = subscriber->join(20s);
    if (!joined) {
        return fail(joined);
    }
    tell("joined");
    std::atomic<bool> is_leaving{false};
    std::thread reader([&] {
        std::string line;
        while (std::getline(std::cin, line) && line != "leave") {
        }
        is_leaving = true;
        (void)subscriber->leave();
    });
    status end = receive(*subscriber);
    if (end.is_closed() && is_leaving) {
        reader.join();
        if (auto counters = subscriber->counters()) {
            tell("rejected ", counters->rejected_signature);
        }
        tell("left");
        return 0;
    }
    // The reader waits for a line that does not come, and has nothing to do any more: the program ends with it.
    std::quick_exit(fail(end));
}

status send_line(sealcast::Publisher& publisher, std::string_view rest) {
    std::size_t end = rest.find(' ');
    if (end == std::string_view::npos) {
        return {SEALCAST_STATUS_INVALID_ARGUMENT, "write: send TOPIC TEXT"};
    }
    std::string_view topic = rest.substr(0, end), text = rest.substr(end + 1);
    return publisher.send_wait(text, topic == "-" ? std::nullopt : std::optional(topic), sealcast::forever);
}

status obey(sealcast::Publisher& publisher) {
    std::string line;
    for (unsigned count = 0; std::getline(std::cin, line) && line != "exit";) {
        status done;
        if (line.rfind("send ", 0) == 0) {
            done = send_line(publisher, std::string_view(line).substr(5));
            if (done) {
                tell("sent ", ++count);
            }
        } else if (line == "finish") {
            done = publisher.finish(20s);
            if (done) {
                tell("finished");
            }
        }
        if (!done) {
            return done;
        }
    }
    return {};
}

int publish(const sealcast::Identity& identity, int argc, char** argv) {
    sealcast::publisher_options options(argv[3]);
    options.send_to(option(argc, argv, "--send-to"));
    auto publisher = sealcast::Publisher::make(identity, options);
    if (!publisher) {
        return fail(publisher.why());
    }
    auto https = sealcast::Https::serve(identity, *publisher);
    if (!https) {
        return fail(https.why());
    }
    status joined = publisher->join(20s);
    if (!joined) {
        return fail(joined);
    }
    tell("joined");
    std::thread teller([&] {
        sealcast::event event;
        while (publisher->next_event(event, sealcast::forever)) {
            tell_event(event);
        }
    });
    status end = obey(*publisher);
    // Ends the teller's wait.
    publisher->close();
    teller.join();
    return end ? 0 : fail(end);
}

std::uint8_t half_byte(char digit) { return static_cast<std::uint8_t>(digit <= '9' ? digit - '0' : digit - 'a' + 10); }

int answer_vectors() {
    for (std::string line; std::getline(std::cin, line);) {
        std::size_t space = line.find(' ');
        std::vector<std::uint8_t> question;
        for (std::size_t at = space; at != line.npos && at + 2 < line.size(); at += 2) {
            question.push_back(static_cast<std::uint8_t>(half_byte(line[at + 1]) << 4 | half_byte(line[at + 2])));
        }
        auto answer = sealcast::known_answer(line.substr(0, space), question);
        if (!answer) {
            tell(answer.why().name(), ' ', answer.why().text());
            continue;
        }
        std::string digits;
        for (std::uint8_t byte : *answer) {
            digits += {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
        }
        tell("ok ", digits);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc == 2 && std::string_view(argv[1]) == "vectors") {
        return answer_vectors();
    }
    std::string_view verb = argc >= 4 ? argv[1] : "";
    if (verb != "subscribe" && verb != "publish") {
        std::cerr << "usage: " << argv[0]
                  << " subscribe|publish FOLDER CHANNEL [--start WORD] [--listen ADDR:PORT] [--send-to ADDR:PORT]\n"
                  << "       " << argv[0] << " vectors\n";
        return 2;
    }
    auto identity = sealcast::Identity::open(argv[2]);
    if (!identity) {
        return fail(identity.why());
    }
    return verb == "publish" ? publish(*identity, argc, argv) : subscribe(*identity, argc, argv);
}
