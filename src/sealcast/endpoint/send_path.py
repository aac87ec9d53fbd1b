"""How a publisher sends: by one driver, for the route and the rate of the policy in force."""

from __future__ import annotations

import asyncio

from sealcast import _core
from sealcast.endpoint.refused_sends import Sends
from sealcast.endpoint.routing import Route, RoutingOverrides, network_error
from sealcast.endpoint.session import Session


class SendPath:
    """The driver of one engine, which a new policy may replace by another."""

    def __init__(
        self, engine: _core.SendEngine, session: Session, routing: RoutingOverrides, policy: _core.Policy
    ) -> None:
        """Begin to send. Raises: ConfigError."""
        self._engine = engine
        self._session = session
        self._routing = routing
        self._route, self._rate = self._of(policy)
        self.driver = self._start(self._route, self._rate)

    def follow(self, policy: _core.Policy) -> None:
        """Send as the policy says; while that stays the same nothing changes. Raises: ConfigError."""
        route, rate = self._of(policy)
        if (route, rate) == (self._route, self._rate):
            return
        before, self.driver = self.driver, self._start(route, rate)
        self._route, self._rate = route, rate
        self._session.spawn(asyncio.to_thread(before.stop))

    def sends(self) -> Sends:
        """What became of the packets of the present driver."""
        return Sends(self._route.interface, *self.driver.statistics())

    def _of(self, policy: _core.Policy) -> tuple[Route, int]:
        routing, keys_url = self._routing, self._session.site.keys_url
        return Route.of(policy, routing.send_to, routing.interface, keys_url), policy["rate"]

    def _start(self, route: Route, rate: int) -> _core.SendDriver:
        try:
            driver = _core.SendDriver(
                self._engine,
                group=route.address,
                port=route.port,
                interface=route.interface,
                rate=rate,
                notify=self._session.notify,
                ttl=self._routing.ttl,
                dscp=self._routing.dscp,
            )
        except _core.NetworkError as error:
            raise network_error(error, route) from None
        self._session.attach(driver)
        return driver
