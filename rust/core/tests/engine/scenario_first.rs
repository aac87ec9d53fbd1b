//! The first stream, end to end: join, keys, credential, messages, end.

use crate::common::{SECOND, World};
use sealcast_core::crypto::Suite;
use sealcast_core::event::Event;

#[test]
fn a_first_stream_is_delivered_whole_and_in_order() {
    for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
        let mut world = World::with_suite(1, suite);
        let subscribers = [world.add_subscriber(), world.add_subscriber()];
        let publisher = world.add_publisher();
        world.settle();
        let stream = world.stream(publisher);
        for count in [1, 2, 3, 7, 64, 65, 500] {
            world.send(publisher, count, 700);
            world.run_for(SECOND / 10);
        }
        world.send_steadily(publisher, 20, 10, SECOND / 100);
        for subscriber in subscribers {
            world.finish(subscriber, stream, 10 * SECOND);
            let events = &world.subscribers[subscriber].events;
            assert!(events.iter().any(|event| matches!(event, Event::Joined { .. })));
            let started = events
                .iter()
                .filter(|event| matches!(event, Event::StreamStarted { .. }));
            assert_eq!(started.count(), 1);
            let message = &world.subscribers[subscriber].messages[0];
            assert_eq!(message.publisher.device, "publisher-0");
        }
        assert_eq!(
            world.repair_requests, 0,
            "nothing was lost, so nothing is asked for"
        );
    }
}

/// What repeats while a stream goes on costs the key server nothing but its polls.
#[test]
fn a_quiet_stream_asks_for_nothing() {
    let mut world = World::new(1);
    let subscriber = world.add_subscriber();
    let publisher = world.add_publisher();
    world.settle();
    world.run_for(5 * SECOND);
    let before = world.subscribers[subscriber].commands.len();
    world.send_steadily(publisher, 60, 100, SECOND);
    let commands = &world.subscribers[subscriber].commands[before..];
    let polls = commands
        .iter()
        .filter(|command| command.path.ends_with("/poll"))
        .count();
    assert!((2..=4).contains(&polls), "{polls} polls in a minute");
    assert_eq!(commands.len(), polls, "{commands:?}");
}
