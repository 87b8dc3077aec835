"""How much of anything is accepted (contract.md section 8)."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that bound one upload; the defaults are those of contract.md section 8."""

    max_file_size: int = 1 * GIB  # bytes of one wheel or sdist
    max_metadata_size: int = 8 * MB  # bytes of METADATA or PKG-INFO
    max_metadata_headers: int = 20_000
    max_archive_members: int = 100_000
    max_unpacked_size: int = 2 * GIB  # bytes of all members together
    max_unpacked_ratio: int = 50  # times the packed size, looked at above RATIO_FLOOR


RATIO_FLOOR = 64 * MIB  # bytes unpacked; PyPI looks at the ratio above the same mark (specs.md 4.5)
