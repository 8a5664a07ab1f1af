"""What the standard library cannot do with archives: write a ZIP under a password; before 3.11.4, unpack a tar safely."""

import struct
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path


def unpack(archive: tarfile.TarFile, folder: Path, members: Iterable[tarfile.TarInfo] | None = None) -> None:
    """The regular files of a tar, each inside of the folder. Raises ValueError for one that would lie elsewhere."""
    for member in archive.getmembers() if members is None else members:
        content = archive.extractfile(member) if member.isfile() else None
        if content is None:
            continue
        path = folder / member.name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{member.name!r} is not inside")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.read())


def encrypted_zip(name: str, content: bytes, password: bytes) -> bytes:
    """A ZIP with one stored entry in the traditional encryption (PKWARE APPNOTE 6.1). The same input gives the same octets."""
    crc = zlib.crc32(content)
    # 6.1.6: twelve octets come first, the last of which is of the CRC, so that a reader can tell a wrong password.
    encrypted = _encrypted(bytes(11) + (crc >> 24).to_bytes(1, "little") + content, password)
    file_name = name.encode("ascii")
    common = struct.pack("<HHHHHIIIHH", 20, 1, 0, 0, 0x5421, crc, len(encrypted), len(content), len(file_name), 0)
    local = b"PK\x03\x04" + common + file_name + encrypted
    central = b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + file_name
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0)
    return local + central + end


def _encrypted(plain: bytes, password: bytes) -> bytes:
    keys = [0x12345678, 0x23456789, 0x34567890]

    def update(octet: int) -> None:
        keys[0] = _crc(keys[0], octet)
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134_775_813 + 1) & 0xFFFFFFFF
        keys[2] = _crc(keys[2], keys[1] >> 24)

    for octet in password:
        update(octet)
    out = bytearray()
    for octet in plain:
        stream = (keys[2] | 2) & 0xFFFF
        out.append(octet ^ (stream * (stream ^ 1) >> 8 & 0xFF))
        update(octet)
    return bytes(out)


def _crc(crc: int, octet: int) -> int:
    return ~zlib.crc32(bytes([octet]), ~crc & 0xFFFFFFFF) & 0xFFFFFFFF
