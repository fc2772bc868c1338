from unittest.mock import Mock

from modelyard.components.serve.server import limited


def test_the_time_begins_with_the_request_and_not_with_the_connection_or_its_parts():
    loop, transport = Mock(), Mock()
    loop.call_later.side_effect = lambda *_: Mock()
    transport.get_extra_info.return_value = None
    connection = limited(7.0)(Mock(loaded=True), Mock(connections=set()), {}, loop)
    connection.connection_made(transport)
    before = connection._timer
    connection.data_received(b"POST / HTTP/1.1\r\nhost")
    before.cancel.assert_called_once()
    begun = connection._timer
    assert begun not in (None, before)
    connection.data_received(b": tiny\r\n")
    assert connection._timer is begun
    begun.cancel.assert_not_called()
    assert [call.args[0] for call in loop.call_later.call_args_list] == [7.0, 7.0]
