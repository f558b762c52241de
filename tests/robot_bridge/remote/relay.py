"""What lies between a client and its server: connections that can be cut, muted, or be taken no more."""

import contextlib
import socket
import threading


class Relay:
    """Passes on what comes to ``port`` to another port of this machine; may be used in a ``with`` statement.

    Attributes:
        heard: the first bytes that each client sent, in the order of their connections.
    """

    def __init__(self, port):
        self._to, self.heard = ("127.0.0.1", port), []
        self._ends, self._muted = [], set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.take_no_more()
        self.cut()
        self._threads[0].join()  # begins the others
        for thread in self._threads[1:]:
            thread.join()

    def take_no_more(self):
        """Refuses connections from now on; those that are open stay."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()

    def cut(self):
        """Ends all connections; new ones are taken."""
        for end in [end for pair in self._ends for end in pair]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mute(self, number):
        """Swallows what the server answers over a connection; 0 is the first that was opened."""
        self._muted.add(number)

    def _accept(self):
        while True:
            try:
                client = self._listener.accept()[0]
            except OSError:
                return
            server = socket.socket()
            server.connect(self._to)
            number = len(self._ends)
            self._ends.append((client, server))
            self.heard.append(b"")
            for target in (self._ask, self._answer):
                self._threads.append(threading.Thread(target=target, args=(number,)))
                self._threads[-1].start()

    def _ask(self, number):
        client, server = self._ends[number]
        with contextlib.suppress(OSError):
            while asked := client.recv(65_536):
                self.heard[number] = self.heard[number] or asked
                server.sendall(asked)
        self._end(number)
        client.close()

    def _answer(self, number):
        client, server = self._ends[number]
        with contextlib.suppress(OSError):
            while answered := server.recv(65_536):
                if number not in self._muted:
                    client.sendall(answered)
        self._end(number)
        server.close()

    def _end(self, number):
        for end in self._ends[number]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
