// What is handed over stays whole, what is left behind is empty, and no text is cut at a NUL. `values FOLDER CHANNEL`
#include <iostream>
#include <type_traits>

#include <sealcast_https.hpp>

namespace {

using namespace std::chrono_literals;
using namespace std::string_literals;
using sealcast::batch;
using sealcast::request;

bool is_good = true;

void check(bool holds, std::string_view what) {
    if (!holds) {
        std::cout << what << '\n';
        is_good = false;
    }
}

bool is_empty(const request& one) {
    return one.id() == 0 && one.body().empty() &&
           (one.method().empty() && one.url().empty() && one.peer().empty() && one.content_type().empty());
}

void check_requests(const sealcast::Identity& identity, const std::string& channel) {
    static_assert(!std::is_copy_constructible_v<request> && !std::is_copy_assignable_v<request>);
    static_assert(std::is_nothrow_move_constructible_v<request> && std::is_nothrow_move_assignable_v<request>);
    auto subscriber = sealcast::Subscriber::make(identity, sealcast::subscriber_options(channel)).value();
    auto publisher = sealcast::Publisher::make(identity, sealcast::publisher_options(channel)).value();
    request first;
    check(is_empty(first), "a fresh request is not empty");
    check(subscriber.next_request(first, 10s).ok(), "no request comes");
    const std::string url(first.url());
    request second(std::move(first));
    check(is_empty(first) && second.url() == url, "a request that is moved does not go with what it points to");
    first = std::move(second);
    check(is_empty(second) && first.url() == url, "a request that is assigned does not go with what it points to");
    publisher.close();
    check(!publisher.next_request(first, 0s).ok() && is_empty(first), "what was there is left in a moved buffer");
}

void check_batches(const sealcast::Identity& identity, const std::string& channel) {
    static_assert(!std::is_copy_constructible_v<batch> && std::is_nothrow_move_constructible_v<batch>);
    auto subscriber = sealcast::Subscriber::make(identity, sealcast::subscriber_options(channel)).value();
    batch first;
    batch second(std::move(first));
    check(first.empty() && first.begin() == first.end(), "a batch that was moved from has messages");
    const auto refused = subscriber.recv_many(first, 0s).code();
    check(refused == SEALCAST_STATUS_NULL_ARGUMENT, "a batch that was moved from is used");
    check(subscriber.recv_many(second, 0s).is_timeout(), "a batch that was moved is not used");
}

void check_refused(const sealcast::status& why, std::string_view what) {
    check(why.code() == SEALCAST_STATUS_INVALID_ARGUMENT && why.text().find("NUL: a?b") != std::string::npos, what);
}

void check_texts(const sealcast::Identity& identity, const std::string& channel) {
    const std::string cut = "a\0b"s;
    auto subscribe = [&](const sealcast::subscriber_options& options) {
        return sealcast::Subscriber::make(identity, options).why();
    };
    auto publish = [&](const sealcast::publisher_options& options) {
        return sealcast::Publisher::make(identity, options).why();
    };
    check_refused(sealcast::Identity::open(cut).why(), "a folder");
    check_refused(sealcast::known_answer(cut, "").why(), "a file");
    check_refused(subscribe(sealcast::subscriber_options(cut)), "a channel to subscribe to");
    check_refused(subscribe(sealcast::subscriber_options(channel).of_site({}, cut)), "a key server");
    check_refused(subscribe(sealcast::subscriber_options(channel).on_interface(cut)), "an interface");
    check_refused(subscribe(sealcast::subscriber_options(channel).listen(cut)), "an address to listen at");
    check_refused(subscribe(sealcast::subscriber_options(channel).source(cut)), "a source");
    check_refused(publish(sealcast::publisher_options(cut)), "a channel to publish on");
    check_refused(publish(sealcast::publisher_options(channel).of_site({}, cut)), "a publisher's key server");
    check_refused(publish(sealcast::publisher_options(channel).on_interface(cut)), "a publisher's interface");
    check_refused(publish(sealcast::publisher_options(channel).send_to(cut)), "an address to send to");
    check_refused(publish(sealcast::publisher_options(channel).instance(cut)), "an instance");
    auto publisher = sealcast::Publisher::make(identity, sealcast::publisher_options(channel)).value();
    const sealcast::bytes_view message = "message";
    check_refused(publisher.send(message, cut), "a topic");
    check_refused(publisher.send_many(&message, 1, cut).why(), "a topic of many");
    check(publisher.send(message, std::string(256, 'x')).code() == SEALCAST_STATUS_TOO_LONG, "a long topic");
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: " << argv[0] << " FOLDER CHANNEL\n";
        return 2;
    }
    auto identity = sealcast::Identity::open(argv[1]).value();
    check_requests(identity, argv[2]);
    check_batches(identity, argv[2]);
    check_texts(identity, argv[2]);
    return is_good ? 0 : 1;
}
