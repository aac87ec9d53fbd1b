// Send each line of standard input to a channel: publish FOLDER CHANNEL [INTERFACE]. With exceptions.
#define SEALCAST_EXCEPTIONS
#include <csignal>

#include <iostream>
#include <string>

#include <sealcast_https.hpp>

using namespace std::chrono_literals;

namespace {

volatile std::sig_atomic_t is_interrupted;

void interrupt(int) { is_interrupted = 1; }

// Ctrl-C ends the wait for a line: without SA_RESTART the read is not begun anew, and never is on Windows. A second one
// ends the program.
void end_by(int number) {
#ifdef _WIN32
    std::signal(number, interrupt);
#else
    struct sigaction action = {};
    action.sa_handler = interrupt;
    action.sa_flags = SA_RESETHAND;
    sigaction(number, &action, nullptr);
#endif
}

}  // namespace

int main(int argc, char** argv) {
    if (argc < 3) {
        std::cerr << "usage: " << argv[0] << " FOLDER CHANNEL [INTERFACE]\n";
        return 2;
    }
    try {
        sealcast::Identity identity = sealcast::Identity::open(argv[1]).value();
        sealcast::publisher_options options(argv[2]);
        options.on_interface(argc > 3 ? argv[3] : "");
        sealcast::Publisher publisher = sealcast::Publisher::make(identity, options).value();
        sealcast::Https https = sealcast::Https::serve(identity, publisher).value();
        publisher.join(10s).require();
        // From now on the stream has an end to tell.
        end_by(SIGINT);
        end_by(SIGTERM);
        std::cerr << "publishing on channel " << argv[2] << '\n';
        for (std::string line; !is_interrupted && std::getline(std::cin, line);) {
            publisher.send_wait(line, std::nullopt, sealcast::forever).require();
        }
        publisher.finish(10s).require();
    } catch (const sealcast::error& error) {
        std::cerr << argv[2] << ": " << sealcast_status_name(error.code()) << ": " << error.what() << '\n';
        return static_cast<int>(error.category());
    }
    return is_interrupted ? 130 : 0;
}
