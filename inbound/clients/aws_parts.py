"""PutObject as S3 has it: its arguments for boto3, its header fields; and an upload in parts for what is large.

1. Parts are made, sent and let go one by one, so a large object takes the memory of one part.
2. The whole comes into being with CompleteMultipartUpload, which carries the condition: 412 says that an object is there. A
   conflict with another write (409) ends the upload in S3, and all of it is begun anew.
3. Whatever else goes wrong, or nobody waits any longer: the upload is aborted, so that no parts stay behind and cost. Parts
   that a process leaves that dies are for a rule of the bucket (AbortIncompleteMultipartUpload).
4. A store that knows no conditions (501) is asked whether the object is there, then told to complete.
"""

import logging
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from botocore import exceptions as botocore

from inbound.clients import Body, Piece, Terms
from inbound.clients.aws_errors import error_code, http_status
from inbound.errors import TemporaryFailure

log = logging.getLogger(__name__)

PART = 8 * 1024 * 1024  # octets; S3 takes parts of 5 MiB and more
GIVEN_UP = "given up"

# Of each of the terms: boto3's name, the header field.
_NAMES = {
    "owner": ("ExpectedBucketOwner", "x-amz-expected-bucket-owner"),
    "server_side_encryption": ("ServerSideEncryption", "x-amz-server-side-encryption"),
    "sse_kms_key": ("SSEKMSKeyId", "x-amz-server-side-encryption-aws-kms-key-id"),
    "bucket_key": ("BucketKeyEnabled", "x-amz-server-side-encryption-bucket-key-enabled"),
    "storage_class": ("StorageClass", "x-amz-storage-class"),
    "content_type": ("ContentType", "content-type"),
}


def arguments(terms: Terms, metadata: Mapping[str, str]) -> dict[str, Any]:
    """For boto3's put_object and create_multipart_upload: everything but the condition."""
    given = {name: getattr(terms, key) for key, (name, _) in _NAMES.items() if getattr(terms, key) is not None}
    if terms.tags:
        given["Tagging"] = urlencode(terms.tags, quote_via=quote, safe="-._~")
    return given | {"Metadata": dict(metadata)}


def fields(terms: Terms, metadata: Mapping[str, str]) -> dict[str, str]:
    """The same as header fields of PutObject, and the condition."""
    given = {field: _text(getattr(terms, key)) for key, (_, field) in _NAMES.items() if getattr(terms, key) is not None}
    if terms.tags:
        given["x-amz-tagging"] = urlencode(terms.tags, quote_via=quote, safe="-._~")
    if not terms.replaces:
        given["if-none-match"] = "*"
    return given | {f"x-amz-meta-{name.lower()}": value for name, value in metadata.items()}


def _text(value: str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else value


def condition(terms: Terms) -> dict[str, str]:
    """The condition, for boto3."""
    return {} if terms.replaces else {"IfNoneMatch": "*"}


def must_not_be_there(s3: Any, bucket: str, key: str) -> None:
    """What a store does that knows the condition: 412 when an object is there. Raises botocore's errors."""
    if _is_there(s3, bucket, key):
        said: Any = {"Error": {"Code": "PreconditionFailed"}, "ResponseMetadata": {"HTTPStatusCode": 412}}
        raise botocore.ClientError(said, "HeadObject")


def _is_there(s3: Any, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except botocore.ClientError as error:
        if http_status(error) == 404:  # noqa: PLR2004 - HTTP
            return False
        raise
    return True


class Upload:
    """One object on its way in parts. Blocks: for a thread; `given_up` is set when nobody waits for it any longer."""

    def __init__(self, s3: Any, bucket: str, key: str, body: Body, given_up: threading.Event) -> None:
        self._s3, self._body, self._given_up = s3, body, given_up
        self._bucket, self._key = bucket, key
        self._upload: dict[str, str] = {}

    def put(self, terms: Terms, metadata: Mapping[str, str]) -> None:
        """Store it. Raises botocore's errors (412: another one is there), and TemporaryFailure when it was given up."""
        where = {"Bucket": self._bucket, "Key": self._key}
        # Parts have a checksum where boto3 sends them by itself; S3 wants that said at the beginning.
        sends = self._s3.meta.config.request_checksum_calculation == "when_supported"
        checksum = {"ChecksumAlgorithm": "CRC32"} if sends else {}
        begun = self._s3.create_multipart_upload(**where, **arguments(terms, metadata), **checksum)
        owner = {"ExpectedBucketOwner": terms.owner} if terms.owner else {}
        self._upload = {**where, **owner, "UploadId": begun["UploadId"]}
        try:
            parts = [self._part(number, piece) for number, piece in enumerate(self._body.pieces(PART), start=1)]
            self._complete(parts, condition(terms))
        except BaseException:
            self._abort()
            raise

    def _part(self, number: int, piece: Piece) -> dict[str, Any]:
        self._must_be_wanted()
        octets = piece if isinstance(piece, bytes | bytearray) else bytes(piece)
        said = self._s3.upload_part(**self._upload, PartNumber=number, Body=octets)
        checksum = {name: said[name] for name in ("ChecksumCRC32",) if name in said}
        return {"PartNumber": number, "ETag": said["ETag"], **checksum}

    def _complete(self, parts: list[dict[str, Any]], on: Mapping[str, str]) -> None:
        self._must_be_wanted()
        complete = partial(self._s3.complete_multipart_upload, **self._upload, MultipartUpload={"Parts": parts})
        try:
            complete(**on)
        except botocore.ClientError as error:
            if http_status(error) == 501 and on:  # noqa: PLR2004 - HTTP
                must_not_be_there(self._s3, self._bucket, self._key)
                complete()
            elif error_code(error) != "NoSuchUpload" or not on or not _is_there(self._s3, self._bucket, self._key):
                raise
            # An earlier try of this call was done, and its answer was lost.

    def _must_be_wanted(self) -> None:
        if self._given_up.is_set():
            raise TemporaryFailure(GIVEN_UP, f"{self._bucket}/{self._key}")

    def _abort(self) -> None:
        try:
            self._s3.abort_multipart_upload(**self._upload)
        except (botocore.ClientError, botocore.BotoCoreError) as error:
            if isinstance(error, botocore.ClientError) and http_status(error) == 404:  # noqa: PLR2004 - HTTP
                return  # S3 has ended it by itself
            upload = self._upload["UploadId"]
            log.warning("parts of %s/%s stay behind (upload %s): %s", self._bucket, self._key, upload, error)
