"""The connections of a server with a simulated event loop, and its port."""

from unittest.mock import Mock

import pytest

from modelyard.components.errors import ServeError
from modelyard.components.serve import server
from modelyard.components.serve.connection import Connection, connection_class


@pytest.fixture
def loop() -> Mock:
    loop = Mock()
    loop.call_later.side_effect = lambda *_: Mock()
    return loop


@pytest.fixture
def connection(loop: Mock) -> Connection:
    """A new connection, which times out if no request arrives within 7 s."""
    transport = Mock()
    transport.get_extra_info.return_value = None
    transport.is_closing.return_value = False
    connection = connection_class(7.0, 10**6, False, Mock())(
        Mock(loaded=True), Mock(connections=set()), {}, loop
    )
    connection.connection_made(transport)
    return connection


def test_the_timeout_starts_with_the_request(connection, loop):
    before = connection._timer
    connection.data_received(b"POST / HTTP/1.1\r\nhost")
    before.cancel.assert_called_once()
    started = connection._timer
    assert started not in (None, before)
    connection.data_received(b": tiny\r\n")
    assert connection._timer is started
    started.cancel.assert_not_called()
    assert [call.args[0] for call in loop.call_later.call_args_list] == [7.0, 7.0]


def test_a_pipelined_request_does_not_time_out(connection):
    connection.data_received(b"POST / HTTP/1.1\r\n")
    connection.pipeline.append((Mock(), Mock()))
    before = connection._timer
    connection._time_out()
    assert connection._timer not in (None, before)
    connection.transport.close.assert_not_called()
    connection.pipeline.clear()
    connection._time_out()
    assert connection.transport.write.call_args.args[0].startswith(b"HTTP/1.1 408 ")
    connection.transport.close.assert_called_once()


def test_nothing_is_written_to_a_closed_connection(connection):
    connection.transport.is_closing.return_value = True
    connection.refuse(400, "Invalid.")
    connection.transport.write.assert_not_called()


def test_the_second_of_two_servers_on_a_port_fails():
    with server._bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with server._bind("127.0.0.1", port) as second:
            server._listen(first, "127.0.0.1", port)
            with pytest.raises(ServeError, match=f"port {port} of 127"):
                server._listen(second, "127.0.0.1", port)
