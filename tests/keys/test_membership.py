"""Who holds keys, and joins that share a step: spec/side-channel.md SC-6."""

from sealcast.keys import JoinBatch, MemberRole, Membership

PUBLISH, SUBSCRIBE = MemberRole.PUBLISH, MemberRole.SUBSCRIBE


def test_one_device_may_publish_and_subscribe() -> None:
    members = Membership().admitting(
        [("a", PUBLISH), ("a", SUBSCRIBE), ("b", SUBSCRIBE)], generation=1, step=1, now=5
    )
    assert [member.key for member in members.present()] == [
        ("a", PUBLISH),
        ("a", SUBSCRIBE),
        ("b", SUBSCRIBE),
    ]


def test_one_who_left_is_gone_but_still_holds_keys() -> None:
    members = Membership().admitting([("a", SUBSCRIBE)], generation=1, step=1, now=5)
    after = members.leaving("a")
    assert after.present() == []
    assert not after.is_present("a")
    assert after.holds_keys("a")


def test_a_device_that_subscribes_no_more_may_go_on_publishing() -> None:
    members = Membership().admitting([("a", PUBLISH), ("a", SUBSCRIBE)], generation=1, step=1, now=5)
    assert [member.key for member in members.leaving("a").present()] == [("a", PUBLISH)]


def test_a_second_join_keeps_the_first_admission() -> None:
    members = Membership().admitting([("a", SUBSCRIBE)], generation=1, step=1, now=5)
    again = members.admitting([("a", SUBSCRIBE)], generation=3, step=2, now=6)
    assert again.admitted_in("a") == 1


def test_one_who_left_may_come_back() -> None:
    members = Membership().admitting([("a", SUBSCRIBE)], generation=1, step=1, now=5).leaving("a")
    back = members.admitting([("a", SUBSCRIBE)], generation=1, step=2, now=6)
    assert [(member.step, member.left) for member in back.present()] == [(2, False)]


def test_a_turn_of_the_generation_forgets_the_removed_and_those_that_left() -> None:
    members = Membership().admitting(
        [("a", PUBLISH), ("b", SUBSCRIBE), ("c", SUBSCRIBE)], generation=1, step=1, now=5
    )
    after = members.leaving("c").removing(["b"])
    assert [member.device for member in after.present()] == ["a"]
    assert not after.holds_keys("b")
    assert not after.holds_keys("c")


def test_joins_of_one_moment_are_taken_together() -> None:
    batch = JoinBatch(moment=50_000)
    batch.add("a", PUBLISH, now=1_000)
    batch.add("b", SUBSCRIBE, now=30_000)
    batch.add("a", PUBLISH, now=40_000)
    assert batch.deadline == 51_000
    assert batch.take() == (("a", PUBLISH), ("b", SUBSCRIBE))
    assert batch.take() == ()


def test_an_empty_batch_has_no_deadline() -> None:
    batch = JoinBatch(moment=50_000)
    batch.add("a", PUBLISH, now=1_000)
    batch.take()
    assert batch.deadline is None
