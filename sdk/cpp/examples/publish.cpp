// Send each line of standard input to a channel: publish FOLDER CHANNEL [INTERFACE]. With exceptions.
#define SEALCAST_EXCEPTIONS
#include <iostream>
#include <string>

#include <sealcast_https.hpp>

using namespace std::chrono_literals;

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
        std::cerr << "publishing on channel " << argv[2] << '\n';
        for (std::string line; std::getline(std::cin, line);) {
            publisher.send_wait(line, std::nullopt, sealcast::forever).require();
        }
        publisher.finish(10s).require();
    } catch (const sealcast::error& error) {
        std::cerr << argv[2] << ": " << sealcast_status_name(error.code()) << ": " << error.what() << '\n';
        return static_cast<int>(error.category());
    }
    return 0;
}
