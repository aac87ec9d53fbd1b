// The threads that make requests end with their Https, while what they serve lives on. `threads FOLDER CHANNEL`
#include <filesystem>
#include <iostream>
#include <iterator>

#include <sealcast_https.hpp>

namespace {

auto threads() {
    return std::distance(std::filesystem::directory_iterator("/proc/self/task"), std::filesystem::directory_iterator());
}

template <class End>
bool ends_with_its_https(const sealcast::Identity& identity, const End& end) {
    const auto before = threads();
    auto https = sealcast::Https::serve(identity, end);
    const auto during = threads();
    if (https) {
        https->close();
    }
    std::cout << before << " threads, then " << during << ", then " << threads() << '\n';
    return during > before && threads() == before;
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: " << argv[0] << " FOLDER CHANNEL\n";
        return 2;
    }
    auto identity = sealcast::Identity::open(argv[1]);
    auto subscriber = sealcast::Subscriber::make(*identity, sealcast::subscriber_options(argv[2]));
    auto publisher = sealcast::Publisher::make(*identity, sealcast::publisher_options(argv[2]));
    const bool is_good = ends_with_its_https(*identity, *subscriber) && ends_with_its_https(*identity, *publisher);
    return is_good ? 0 : 1;
}
