"""How much and how long: what one client may cost, in bytes, seconds and bytes per second."""

from __future__ import annotations

KIB = 1024
MIB = 1024 * KIB

RECV_BODY = 256 * KIB  # bytes per recv; waitress's 8 KiB is what limits uploads, by four times
# Bytes per recv outside of a body; bounds what a pipelining client leaves with us. For twice as much Python takes
# memory from elsewhere, which costs as much again as the call.
RECV_HEAD = 8 * KIB
SEND_TURN = 1 * MIB  # bytes sent to one client per turn of the event loop, so that a fast reader starves nobody
SEND_PIECE = 256 * KIB  # bytes read from a file per send
LEAST_PIECE = 16 * KIB  # bytes that are read for a client that takes fewer
SHARE_FROM = 64 * KIB  # bytes; answers from this size are sent from where they are instead of being copied
HIGH_WATERMARK = 4 * MIB  # bytes waiting to be sent, above which the application has to wait for the client

MAX_REQUEST_LINE = 16 * KIB  # bytes
MAX_CHUNK_LINE = 1 * KIB  # bytes of one line in a chunked body: size and extensions, or a trailer
MAX_TRAILER_LINES = 64

MIN_RATE = 1 * KIB  # bytes per second a body or an answer has to move at, averaged over the idle timeout
MIN_RATE_HOLDING_THREAD = 64 * KIB  # the same while a task thread waits for the client to read
LINGER_TIME = 30.0  # seconds, as nginx's lingering_time
LINGER_IDLE = 5.0  # seconds without a byte, as nginx's lingering_timeout
LINGER_SIZE = 256 * MIB  # bytes
