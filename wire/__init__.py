"""HTTP on the wire: what :mod:`server` is put together from.

Knows WSGI and waitress, nothing of Flask or the storage. Each module imports only those above it:

sizes          how much and how long
heads          the head of an answer
interface      what the application may say and ask
refusals       answers of our own
bodies         bodies of requests
answers        a request's answer
requests       a request while it comes in
threads        where the application runs, one request at a time
sources        what an answer's bytes are sent from
sending        the sending half of a connection
connections    a connection
listening      the listening socket
"""
