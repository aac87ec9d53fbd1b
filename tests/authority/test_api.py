"""The management API over TLS: resources, roles, retries, lost updates, refusals."""

import asyncio
import re
from pathlib import Path

import pytest
from sqlalchemy import select

from sealcast.authority.admins import AdminRole
from sealcast.authority.models import AuditRow, RequestRow
from sealcast.authority.vault import KEY_FILE
from sealcast.device import enroll_async, renew_async
from sealcast.errors import CertificateError, EnrolmentError, NotAllowedError, TokenError
from sealcast.keys import MemberRole
from sealcast.pki.crl import CrlFacts
from sealcast.pki.names import Role
from tests.authority.conftest import Api, Site

OFFICER, OPERATOR, VIEWER = AdminRole.SECURITY_OFFICER, AdminRole.OPERATOR, AdminRole.VIEWER
CHANNEL = {
    "name": "ward/ecg",
    "group": "239.192.0.1",
    "port": 5000,
    "publish": ["monitor-*"],
    "subscribe": ["*"],
}


@pytest.fixture
async def officer(site: Site) -> Api:
    return await site.api(await site.admin("olga", OFFICER))


def entries(site: Site) -> list[AuditRow]:
    with site.authority.site.storage.snapshot() as session:
        found = list(session.scalars(select(AuditRow).order_by(AuditRow.id)))
        session.expunge_all()
        return found


class TestResources:
    async def test_a_channel_is_served_at_once(self, site: Site, officer: Api) -> None:
        added = await officer("POST", "/v1/channels", CHANNEL)
        assert added.status == 201
        await site.member("monitor-1", "ward/ecg", MemberRole.PUBLISH)
        shown = await officer("GET", "/v1/channels/ward%2Fecg")
        assert shown.body == added.body | {
            "publishers": ["monitor-1"],
            "publisher_count": 1,
            "subscribers": ["monitor-1"],
            "subscriber_count": 1,
            "policy_version": added.body["policy_version"] + 1,
        }
        status = await officer("GET", "/v1/status")
        assert status.body["channels"] == [{"name": "ward/ecg", "members": 1}]
        assert status.body["running"]
        assert set(status.body["listening"]) == {"authority", "keys", "manage"}

    async def test_members_that_no_longer_match_are_removed(self, site: Site, officer: Api) -> None:
        await officer("POST", "/v1/channels", CHANNEL)
        client = await site.member("display-1", "ward/ecg")
        answer = await officer("PATCH", "/v1/channels/ward%2Fecg/members", {"subscribe": []})
        assert (answer.status, answer.body["subscribe"], answer.body["subscribers"]) == (200, [], [])
        assert answer.body["publish"] == ["monitor-*"], "what is left out stays"
        with pytest.raises(NotAllowedError):
            await client.keys("ward/ecg")

    async def test_a_revoked_device_is_out_when_it_is_answered(self, site: Site, officer: Api) -> None:
        await officer("POST", "/v1/channels", CHANNEL)
        client = await site.member("display-1", "ward/ecg")
        serial = (await officer("GET", "/v1/devices/display-1")).body["certificates"][0]["serial"]
        assert (await officer("PUT", "/v1/devices/display-1/revocation")).body == {"changed": True}
        with pytest.raises(CertificateError, match="revoked"):
            await client.keys("ward/ecg")
        assert (await officer("PUT", "/v1/devices/display-1/revocation")).body == {"changed": False}
        assert (await officer("GET", "/v1/devices?state=revoked")).body["items"][0]["name"] == "display-1"
        revoked = (await officer("GET", "/v1/revocations")).body["items"]
        assert [(row["serial"], row["name"]) for row in revoked] == [(serial, "display-1")]
        assert int(serial, 16) in CrlFacts.parse(site.authority.crl.der).serials

    async def test_lists_come_in_pages(self, site: Site, officer: Api) -> None:
        names = [f"monitor-{number}" for number in range(5)]
        for name in [*names, "display-1"]:
            await site.enrol(name)
        pages = []
        after = ""
        for _ in range(3):
            pages.append((await officer("GET", f"/v1/devices?limit=2&name=monitor-*{after}")).body)
            after = f"&after={pages[-1]['next']}"
        assert [item["name"] for page in pages for item in page["items"]] == names
        assert [page["next"] is None for page in pages] == [False, False, True]
        numbers = [
            entry["number"] for entry in (await officer("GET", "/v1/audit?limit=3&after=1")).body["items"]
        ]
        assert numbers == [2, 3, 4]

    async def test_a_token_is_told_once(self, site: Site, officer: Api) -> None:
        made = await officer("POST", "/v1/tokens", {"device": "monitor-1"})
        assert made.status == 201
        assert made.headers["Cache-Control"] == "no-store"
        [listed] = (await officer("GET", "/v1/tokens?used=false")).body["items"]
        assert listed["id"] == made.body["id"]
        assert made.body["token"] not in str(listed)
        await site.enrol("monitor-1", made.body["token"])
        [used] = (await officer("GET", "/v1/tokens?name=monitor-1")).body["items"]
        assert used["used"]
        assert (await officer("DELETE", f"/v1/tokens/{made.body['id']}")).status == 409

    async def test_a_withdrawn_token_admits_nobody(self, site: Site, officer: Api) -> None:
        made = (await officer("POST", "/v1/tokens", {"device": "monitor-1"})).body
        assert (await officer("DELETE", f"/v1/tokens/{made['id']}")).status == 200
        with pytest.raises(TokenError):
            await site.enrol("monitor-1", made["token"])
        assert (await officer("DELETE", f"/v1/tokens/{made['id']}")).status == 404

    async def test_policies_as_signed(self, officer: Api) -> None:
        await officer("POST", "/v1/channels", CHANNEL)
        await officer("PATCH", "/v1/channels/ward%2Fecg/members", {"publish": ["*"], "subscribe": ["a"]})
        listed = (await officer("GET", "/v1/channels/ward%2Fecg/policies")).body["items"]
        assert listed[0]["version"] == len(listed)
        latest = (await officer("GET", "/v1/channels/ward%2Fecg/policies/latest")).body
        assert latest["version"] == listed[0]["version"]
        assert latest["signed"]
        assert (await officer("GET", "/v1/channels/ward%2Fecg/policies/99")).status == 404

    async def test_site_roots_and_cas(self, site: Site, officer: Api) -> None:
        assert (await officer("GET", "/v1/site")).body["site_id"] == site.authority.site.site_id.hex()
        assert len((await officer("GET", "/v1/roots")).body["items"]) == 1
        assert len((await officer("GET", "/v1/site-cas")).body["items"]) == 1
        assert (await officer("GET", "/v1/crl")).body["number"] == site.authority.crl.number
        assert (await officer("GET", "/healthz")).body == {"status": "ok"}


class TestAdmins:
    async def test_the_whole_life_of_an_admin(self, site: Site, officer: Api, tmp_path: Path) -> None:
        made = await officer("POST", "/v1/admins", {"name": "vera", "role": "viewer"})
        assert made.status == 201
        identity = await enroll_async(
            tmp_path / "vera",
            authority_url=site.listening.authority,
            roots=site.roots,
            name="vera",
            token=made.body["token"],
            role=Role.ADMIN,
        )
        vera = await site.api(identity)
        assert (await vera("GET", "/v1/status")).status == 200
        assert (await vera("POST", "/v1/tokens", {"device": "a"})).status == 403
        # The role counts from the next request on, on the same connection.
        assert (await officer("PATCH", "/v1/admins/vera", {"role": "operator"})).status == 200
        assert (await vera("POST", "/v1/tokens", {"device": "a"})).status == 201
        renewed = await renew_async(tmp_path / "vera", role=Role.ADMIN)
        assert renewed.serial != identity.serial
        assert (await officer("PUT", "/v1/admins/vera/revocation")).body == {"changed": True}
        answer = await vera("GET", "/v1/status")
        assert (answer.status, answer.body["type"]) == (401, "sealcast:problem:not-authenticated")
        with pytest.raises(EnrolmentError, match="revoked"):
            await renew_async(tmp_path / "vera", role=Role.ADMIN)
        assert {identity.serial, renewed.serial} <= set(CrlFacts.parse(site.authority.crl.der).serials)

    async def test_a_revoked_admin_comes_back_by_a_token_only(self, site: Site, officer: Api) -> None:
        identity = await site.admin("vera", VIEWER)
        vera = await site.api(identity)
        await officer("PUT", "/v1/admins/vera/revocation")
        token = (await officer("POST", "/v1/admins/vera/tokens", {})).body["token"]
        assert (await vera("GET", "/v1/site")).status == 401
        again = await enroll_async(
            identity.path,
            authority_url=site.listening.authority,
            roots=site.roots,
            name="vera",
            token=token,
            role=Role.ADMIN,
        )
        assert (await (await site.api(again))("GET", "/v1/site")).status == 200
        assert (await vera("GET", "/v1/site")).status == 401, "the old certificate stays revoked"

    async def test_a_token_makes_what_it_was_made_for(self, site: Site, officer: Api) -> None:
        """A device's token makes no admin, and an admin's no device."""
        await officer("POST", "/v1/admins", {"name": "vera", "role": "viewer"})
        token = await site.token("vera")
        with pytest.raises(CertificateError, match="wrong-role"):
            await enroll_async(
                site.devices / "vera",
                authority_url=site.listening.authority,
                roots=site.roots,
                name="vera",
                token=token,
                role=Role.ADMIN,
            )
        admin_token = (await officer("POST", "/v1/admins/vera/tokens", {})).body["token"]
        with pytest.raises(CertificateError, match="wrong-role"):
            await site.enrol("vera", admin_token)

    async def test_only_an_officer_takes_a_revocation_back(self, site: Site, officer: Api) -> None:
        oscar = await site.api(await site.admin("oscar", OPERATOR))
        await site.enrol("monitor-1")
        await officer("PUT", "/v1/devices/monitor-1/revocation")
        assert (await oscar("POST", "/v1/tokens", {"device": "monitor-1"})).status == 403
        assert (await officer("POST", "/v1/tokens", {"device": "monitor-1"})).status == 201
        admin_token = (await officer("POST", "/v1/admins", {"name": "vera", "role": "viewer"})).body["id"]
        assert (await oscar("DELETE", f"/v1/tokens/{admin_token}")).status == 403

    async def test_revoking_a_device_leaves_the_admin_of_its_name(self, site: Site, officer: Api) -> None:
        await site.enrol("vera")
        vera = await site.api(await site.admin("vera", VIEWER))
        await officer("PUT", "/v1/devices/vera/revocation")
        assert (await vera("GET", "/v1/site")).status == 200

    async def test_a_request_under_way_does_not_outlive_a_revocation(self, site: Site, officer: Api) -> None:
        """The role is judged once more inside the transaction."""
        oscar = await site.api(await site.admin("oscar", OPERATOR))
        await oscar("GET", "/v1/site")
        revoked = asyncio.ensure_future(officer("PUT", "/v1/admins/oscar/revocation"))
        made = [asyncio.ensure_future(oscar("POST", "/v1/tokens", {"device": "a"})) for _ in range(20)]
        await revoked
        await asyncio.gather(*made)
        log = entries(site)
        end = next(entry.id for entry in log if entry.action == "revoke admin")
        assert not [
            entry
            for entry in log
            if entry.id > end and entry.actor == "admin:oscar" and entry.outcome == "done"
        ]


class TestRetries:
    async def test_a_retry_gets_the_first_answer(self, site: Site, officer: Api) -> None:
        asked = ("POST", "/v1/tokens", {"device": "monitor-1"})
        first = await officer(*asked, Idempotency_Key="k1")
        again = await officer(*asked, Idempotency_Key="k1")
        assert again.body == first.body
        assert again.headers["Idempotency-Replayed"] == "true"
        assert (await officer(*asked, Idempotency_Key="k2")).body != first.body
        assert len((await officer("GET", "/v1/tokens?name=monitor-1")).body["items"]) == 2
        other = await officer("POST", "/v1/tokens", {"device": "other"}, Idempotency_Key="k1")
        assert (other.status, other.body["type"]) == (422, "sealcast:problem:key-reused")

    async def test_two_at_once_are_one(self, officer: Api, site: Site) -> None:
        second = await site.api(await site.admin("otto", OFFICER))
        replies = await asyncio.gather(
            *(officer("POST", "/v1/channels", CHANNEL, Idempotency_Key="k") for _ in range(5))
        )
        assert {reply.status for reply in replies} == {201}
        assert (await second("POST", "/v1/channels", CHANNEL, Idempotency_Key="k")).status == 409, (
            "a key is the caller's own"
        )

    async def test_a_remembered_answer_is_sealed(self, site: Site, officer: Api) -> None:
        made = await officer("POST", "/v1/tokens", {"device": "monitor-1"}, Idempotency_Key="k1")
        for file in site.folder.glob("authority.db*"):
            assert made.body["token"].encode() not in file.read_bytes()
        with site.authority.site.storage.snapshot() as session:
            [row] = session.scalars(select(RequestRow)).all()
        assert (site.folder / KEY_FILE).exists()
        assert made.body["token"].encode() not in row.sealed_answer

    async def test_a_key_is_forgotten_after_a_day(self, site: Site, officer: Api) -> None:
        asked = ("POST", "/v1/tokens", {"device": "monitor-1"})
        first = await officer(*asked, Idempotency_Key="k1")
        site.clock.ahead += 25 * 3600 * 1_000_000
        assert (await officer(*asked, Idempotency_Key="k1")).body != first.body


class TestLostUpdates:
    async def test_a_change_of_what_was_changed_meanwhile_is_refused(self, officer: Api) -> None:
        tag = (await officer("POST", "/v1/channels", CHANNEL)).headers["ETag"]
        shown = await officer("GET", "/v1/channels/ward%2Fecg", If_None_Match=tag)
        assert (shown.status, shown.body) == (304, None)
        path = "/v1/channels/ward%2Fecg/members"
        first = await officer("PATCH", path, {"publish": ["a"]}, If_Match=tag)
        assert (first.status, first.headers["ETag"] != tag) == (200, True)
        second = await officer("PATCH", path, {"publish": ["b"]}, If_Match=tag)
        assert second.status == 412
        assert (await officer("GET", "/v1/channels/ward%2Fecg")).body["publish"] == ["a"]
        assert (
            await officer("PATCH", path, {"publish": ["b"]}, If_Match=f'W/"x", {first.headers["ETag"]}')
        ).status == 200
        assert (await officer("PATCH", path, {"publish": ["c"]}, If_Match="*")).status == 200


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "says"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"\xff", "not JSON"),
            (b"[" * 30_000, "not JSON"),
            (b'{"device": "a", "device": "b"}', "twice"),
            (b'{"device": "a", "ttl_us": NaN}', "no JSON number"),
            (b'{"device": "a", "ttl_us": 1' + b"0" * 5000 + b"}", "not JSON"),
            (b"[]", "the body []"),
            (b"{}", "device is missing"),
            (b'{"device": 1}', "device 1"),
            (b'{"device": "a\\n"}', "device 'a"),
            (b'{"device": "\\ud800"}', "device"),
            (b'{"device": "a", "x": 1}', "x 1"),
            (b'{"device": "a", "ttl_us": true}', "ttl_us True"),
            (b'{"device": "a", "ttl_us": 0}', "ttl_us 0"),
        ],
    )
    async def test_a_malformed_body_is_named(self, officer: Api, body: bytes, says: str) -> None:
        headers = {"Content-Type": "application/json"}
        async with officer.session.post(officer.url + "/v1/tokens", data=body, headers=headers) as answer:
            problem = await answer.json(content_type="application/problem+json")
        assert answer.status == 400, problem
        assert says in problem["detail"]
        assert problem["cure"]
        assert "\n" not in problem["detail"]

    @pytest.mark.parametrize(
        ("method", "path", "status", "says"),
        [
            ("GET", "/v1/devices?limit=0", 400, "limit 0"),
            ("GET", "/v1/devices?limit=x", 400, "limit 'x'"),
            ("GET", "/v1/devices?limit=1&limit=2", 400, "twice"),
            ("GET", "/v1/devices?x=1", 400, "'x'"),
            ("GET", "/v1/devices/nobody", 404, "'nobody'"),
            ("GET", "/v1/devices/%00", 400, "device"),
            ("GET", "/v1/devices/%ff", 404, "no such path"),
            ("GET", "/v1/devices/..%2f..%2fetc", 400, "device"),
            ("GET", "/v1/devices/a%0ab", 400, "device"),
            ("GET", "/v1/nothing", 404, "no such path"),
            ("GET", "/", 404, "no such path"),
            ("GET", "/v1/channels/none/policies", 404, "'none'"),
            ("GET", "/v1/audit?after=99999999999999999999", 400, "after"),
            ("GET", "/v1/tokens?after=zz", 400, "after 'zz'"),
            ("DELETE", "/v1/devices/a", 405, "not for"),
            ("PUT", "/v1/devices/nobody/revocation", 404, "'nobody'"),
        ],
    )
    async def test_a_refusal_names_value_and_cure(
        self, officer: Api, method: str, path: str, status: int, says: str
    ) -> None:
        answer = await officer(method, path)
        assert answer.status == status
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert says in answer.body["detail"]
        assert answer.body["cure"]
        assert answer.body["status"] == status
        if status == 405:
            assert answer.headers["Allow"] == "GET, HEAD"

    async def test_a_value_that_makes_no_sense(self, officer: Api) -> None:
        answer = await officer("POST", "/v1/channels", CHANNEL | {"group": "224.0.0.5"})
        assert (answer.status, answer.body["error"]["kind"]) == (422, "UsageError")
        assert "224.0.0.5" in answer.body["detail"]

    async def test_bounds_of_a_request(self, officer: Api) -> None:
        large = await officer("POST", "/v1/tokens", {"device": "a" * 70_000})
        assert large.status == 413
        async with officer.session.post(officer.url + "/v1/tokens", data=b"{}") as answer:
            assert answer.status == 415
        assert (await officer("GET", "/v1/site", {"a": 1})).status == 400, "reads take no body"

    async def test_every_change_is_written_down_with_its_outcome(self, site: Site, officer: Api) -> None:
        before = len(entries(site))
        vera = await site.api(await site.admin("vera", VIEWER))
        await vera("POST", "/v1/channels", CHANNEL)
        await officer("POST", "/v1/channels", CHANNEL)
        await officer("POST", "/v1/channels", CHANNEL)
        await officer("POST", "/v1/tokens", {"device": "../x"})
        await officer("PUT", "/v1/devices/nobody/revocation")
        await officer("GET", "/v1/devices/nobody")
        done = [
            (entry.actor, entry.action, entry.subject, entry.outcome)
            for entry in entries(site)[before:]
            if entry.action not in ("add admin", "permit admin", "make token", "enrol admin", "sign policy")
            or entry.outcome == "refused"
        ]
        assert done == [
            ("admin:vera", "add channel", "", "refused"),
            ("admin:olga", "add channel", "ward/ecg", "done"),
            ("admin:olga", "add channel", "", "refused"),
            ("admin:olga", "make token", "", "refused"),
            ("admin:olga", "revoke device", "nobody", "refused"),
        ]
        text = str([entry.detail for entry in entries(site)])
        assert not re.search(r"[a-z2-7]{32}", text), "no token in the log"
