"""The server under test runs with the guard that keeps it on this machine (tests/network)."""

from kinetograph.tests.network import watch


def test_the_server_is_watched(network, server, client):
    watched = [
        record["command"]
        for record in watch.records(network, "watched")
        if record["pid"] == server.process.pid
    ]
    assert watched and any("main.py" in word for word in watched[-1])
