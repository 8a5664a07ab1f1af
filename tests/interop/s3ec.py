"""Run in an environment with AWS's S3 encryption client: `s3ec.py get|put FORM URL BUCKET KEY KMS_KEY [CONTEXT_JSON]`.

FORM is `ses` (legacy wrapping allowed, as for objects that SES wrote), `v3` (the client's own default) or `v2`. `get` writes
the message to stdout, `put` reads it from stdin.
"""

import json
import sys

import boto3
from s3_encryption import S3EncryptionClient, S3EncryptionClientConfig  # type: ignore[import-not-found]
from s3_encryption.materials.kms_keyring import KmsKeyring  # type: ignore[import-not-found]
from s3_encryption.materials.materials import AlgorithmSuite, CommitmentPolicy  # type: ignore[import-not-found]

verb, form, url, bucket, key, kms_key, *context = sys.argv[1:]
kms = boto3.client("kms", endpoint_url=url, region_name="us-east-1")
keyring = KmsKeyring(kms, kms_key, enable_legacy_wrapping_algorithms=form == "ses")
more = {
    "ses": {"commitment_policy": CommitmentPolicy.REQUIRE_ENCRYPT_ALLOW_DECRYPT},
    "v3": {},
    "v2": {
        "commitment_policy": CommitmentPolicy.FORBID_ENCRYPT_ALLOW_DECRYPT,
        "encryption_algorithm": AlgorithmSuite.ALG_AES_256_GCM_IV12_TAG16_NO_KDF,
    },
}[form]
s3 = boto3.client("s3", endpoint_url=url, region_name="us-east-1")
client = S3EncryptionClient(s3, S3EncryptionClientConfig(keyring=keyring, **more))
extra = {"EncryptionContext": json.loads(context[0])} if context else {}
if verb == "get":
    sys.stdout.buffer.write(client.get_object(Bucket=bucket, Key=key, **extra)["Body"].read())
else:
    client.put_object(Bucket=bucket, Key=key, Body=sys.stdin.buffer.read(), **extra)
