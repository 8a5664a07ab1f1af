"""What botocore's errors mean for us: temporary or permanent, and the stable reason.

Temporary: no answer, throttled, 5xx, credentials that could not be fetched; and whatever is not known, since nothing is
lost by trying again. Permanent: what somebody must change first, such as a missing bucket or a missing right.
"""

from collections.abc import Mapping

from botocore import exceptions as botocore

from inbound.clients import reasons as why
from inbound.errors import Failure, PermanentFailure, TemporaryFailure


def http_status(error: botocore.ClientError) -> int:
    """The status of the HTTP answer, 0 when there was none."""
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status


def error_code(error: botocore.ClientError) -> str:
    """The service's own word for it, "" when it had none."""
    code: str = error.response.get("Error", {}).get("Code", "")
    return code


def failure(error: botocore.ClientError | botocore.BotoCoreError) -> Failure:
    """What an error of botocore means for us."""
    if isinstance(error, botocore.ClientError):
        code = error_code(error)
        detail = f"{error.operation_name}: {code}: {error.response.get('Error', {}).get('Message', '')}"[:500]
        kind, reason = _CODES.get(code) or _by_status(http_status(error))
        return kind(reason, detail)
    for classes, kind, reason in _CLASSES:
        if isinstance(error, classes):
            return kind(reason, str(error)[:500])
    return TemporaryFailure(why.SERVICE_DOWN, f"{type(error).__name__}: {error}"[:500])


def _by_status(status: int) -> tuple[type[Failure], str]:
    match status:
        case 401 | 403:
            return PermanentFailure, why.ACCESS_DENIED
        case 408:
            return TemporaryFailure, why.TIMED_OUT
        case 429:
            return TemporaryFailure, why.THROTTLED
        case _ if 300 <= status < 500:  # noqa: PLR2004 - redirects of S3 that botocore could not follow, and 4xx
            return PermanentFailure, why.BAD_REQUEST
        case _:
            return TemporaryFailure, why.SERVICE_DOWN


# The error codes whose HTTP status does not say enough (AWS's API references of S3, KMS, Lambda, SNS, SQS, STS).
_CODES: Mapping[str, tuple[type[Failure], str]] = {
    code: (kind, reason)
    for kind, reason, codes in (
        (PermanentFailure, why.BUCKET_MISSING, """NoSuchBucket"""),
        (PermanentFailure, why.OBJECT_MISSING, """NoSuchKey"""),
        (PermanentFailure, why.KEY_MISSING, """NotFoundException KMSNotFound KMSNotFoundException KmsNotFound"""),
        (PermanentFailure, why.TOPIC_MISSING, """NotFound"""),
        (PermanentFailure, why.QUEUE_MISSING, """QueueDoesNotExist AWS.SimpleQueueService.NonExistentQueue"""),
        (PermanentFailure, why.FUNCTION_MISSING, """ResourceNotFoundException"""),
        (
            PermanentFailure,
            why.KEY_UNUSABLE,
            """DisabledException KMSInvalidStateException InvalidKeyUsageException InvalidGrantTokenException
            KMSDisabled KMSInvalidState KMSOptInRequired KMSDisabledException KmsDisabled KmsInvalidState
            KmsOptInRequired KmsInvalidKeyUsage KMS.DisabledException KMS.InvalidStateException""",
        ),
        (PermanentFailure, why.CONTEXT_MISMATCH, """InvalidCiphertextException IncorrectKeyException"""),
        (
            PermanentFailure,
            why.ACCESS_DENIED,
            """AccessDenied AccessDeniedException AuthorizationError KMSAccessDenied KMSAccessDeniedException
            KmsAccessDenied EC2AccessDeniedException AllAccessDisabled""",
        ),
        (
            PermanentFailure,
            why.CREDENTIALS,
            """InvalidAccessKeyId InvalidClientTokenId UnrecognizedClientException SignatureDoesNotMatch
            RequestTimeTooSkewed InvalidSignatureException IncompleteSignature MissingAuthenticationToken
            OptInRequired InvalidSecurity""",
        ),
        (
            TemporaryFailure,
            why.CREDENTIALS,
            """ExpiredToken ExpiredTokenException RequestExpired TokenRefreshRequired""",
        ),
        (
            PermanentFailure,
            why.TOO_LARGE,
            """EntityTooLarge RequestTooLargeException RequestEntityTooLarge MetadataTooLarge KeyTooLongError
            SerializedRequestEntityTooLargeException""",
        ),
        (
            TemporaryFailure,
            why.THROTTLED,
            """Throttling ThrottlingException ThrottledException SlowDown RequestLimitExceeded
            TooManyRequestsException RequestThrottled RequestThrottledException BandwidthLimitExceeded
            LimitExceededException KMSThrottling KMSThrottlingException KmsThrottled EC2ThrottledException
            ENILimitReachedException SubnetIPAddressLimitReachedException ServiceQuotaExceededException
            PriorRequestNotComplete""",
        ),
        (TemporaryFailure, why.TIMED_OUT, """RequestTimeout RequestTimeoutException"""),
        (
            TemporaryFailure,
            why.SERVICE_DOWN,
            """InternalError InternalFailure ServiceUnavailable ServiceUnavailableException KeyUnavailableException
            DependencyTimeoutException KMSInternalException ServiceException ResourceNotReadyException
            ResourceConflictException SnapStartNotReadyException SnapStartRegenerationFailureException
            CodeArtifactUserPendingException EFSIOException OperationAborted NoSuchUpload""",
        ),
        (TemporaryFailure, why.CONFLICT, """ConditionalRequestConflict"""),
        (
            PermanentFailure,
            why.BAD_REQUEST,
            """InvalidRuntimeException InvalidZipFileException InvalidSubnetIDException
            InvalidSecurityGroupIDException""",
        ),
    )
    for code in codes.split()
}

# What botocore raises itself. The first that fits counts. Credentials of a machine come from a service that can be away,
# so they may be there at the next try.
_CLASSES: tuple[tuple[tuple[type[Exception], ...], type[Failure], str], ...] = (
    (
        (
            botocore.ConnectTimeoutError,
            botocore.ReadTimeoutError,
        ),
        TemporaryFailure,
        why.TIMED_OUT,
    ),
    (
        (
            botocore.ConnectionError,
            botocore.HTTPClientError,
            botocore.IncompleteReadError,
            botocore.ChecksumError,
            botocore.FlexibleChecksumError,
        ),
        TemporaryFailure,
        why.UNREACHABLE,
    ),
    (
        (
            botocore.NoCredentialsError,
            botocore.NoAuthTokenError,
            botocore.CredentialRetrievalError,
            botocore.TokenRetrievalError,
            botocore.MetadataRetrievalError,
            botocore.SSOError,
            botocore.LoginError,
        ),
        TemporaryFailure,
        why.CREDENTIALS,
    ),
    (
        (
            botocore.PartialCredentialsError,
            botocore.UnknownCredentialError,
            botocore.ProfileNotFound,
        ),
        PermanentFailure,
        why.CREDENTIALS,
    ),
    (
        (
            botocore.ParamValidationError,
            botocore.ValidationError,
            botocore.MissingParametersError,
            botocore.UnsupportedS3ArnError,
            botocore.UnsupportedS3AccesspointConfigurationError,
            botocore.InvalidDNSNameError,
            botocore.InvalidHostLabelError,
        ),
        PermanentFailure,
        why.BAD_REQUEST,
    ),
    (
        (
            botocore.BaseEndpointResolverError,
            botocore.EndpointProviderError,
            botocore.UnknownRegionError,
            botocore.ServiceNotInRegionError,
            botocore.InvalidEndpointConfigurationError,
            botocore.ConfigParseError,
            botocore.ConfigNotFound,
            botocore.InvalidConfigError,
            botocore.InvalidRetryConfigurationError,
            botocore.InvalidProxiesConfigError,
            botocore.MissingDependencyException,
            botocore.RefreshWithMFAUnsupportedError,
            botocore.DataNotFoundError,
        ),
        PermanentFailure,
        why.CONFIGURATION,
    ),
)
